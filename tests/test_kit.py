"""The page of the core: its examples run without the bench, and the names that it lists are there."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from indm.__main__ import BENCH
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs/library.md").read_text()
EXAMPLES = dict(re.findall(r"^```python (\S+\.py)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))
# Without the packages of the bench: runs an example and prints the numbers that it has found.
WITHOUT_BENCH = """
import json, runpy, sys
sys.modules |= dict.fromkeys(sys.argv[2].split())
found = runpy.run_path(sys.argv[1])
print(json.dumps({name: found["found"].__dict__[name].mean().item() for name in ("nll", "nelbo")}))
if "report" in found:
    print(json.dumps(found["report"].images[["nll", "nelbo"]].mean().to_dict()))
"""


def run_example(folder: Path, name: str, python: str | Path, variables: dict[str, str]) -> list[dict[str, float]]:
    """Write the page's examples to a folder and run one of them there; return the means that it has computed."""
    for file, body in EXAMPLES.items():
        (folder / file).write_text(body)
    done = subprocess.run(
        [python, "-c", WITHOUT_BENCH, name, " ".join(BENCH)],
        cwd=folder, env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def check_example(folder: Path, name: str, python: str | Path, variables: dict[str, str]) -> None:
    """Run an example, and hold its numbers against each other and against a coin's: log2(17) bits for 17 levels."""
    found = run_example(folder, name, python, variables)
    assert all(1 < number < 4.09 for numbers in found for number in numbers.values())
    if len(found) == 2:
        # The errors of one draw for 20 images.
        assert found[1] == {key: pytest.approx(value, abs=0.2) for key, value in found[0].items()}
        assert found[0]["nelbo"] < 2.5


def test_the_example_of_a_training_runs_without_the_bench(tmp_path: Path) -> None:
    """Where it is not installed, ``tests/e2e/test_wheel.py`` runs the other example, too."""
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(tmp_path)])}
    check_example(tmp_path, "my_likelihood.py", sys.executable, variables)


def test_the_names_of_the_table_are_there() -> None:
    names = re.findall(r"`(indm(?:\.\w+)+)`", PAGE.partition("## What there is")[2].partition("\n## ")[0])
    assert len(names) > 15
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name
