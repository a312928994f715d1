"""The pages of docs/extending: each is followed to the letter in a copy of the checkout.

A page is a program. Of its fenced blocks, ``diff`` is applied by ``git apply``; a block whose fence names a path becomes
that file; ``sh`` is run, and must end well.
"""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from indm.report.tables import FID_COLUMNS, NLL_COLUMNS
from indm.report.values import VALUE_COLUMNS
from indm.store.files import write_table
from tests.checkout import REPOSITORY, copy_checkout, run

pytestmark = pytest.mark.long

PAGES = sorted(path.stem for path in (REPOSITORY / "docs/extending").glob("*.md") if path.stem != "README")
BLOCK = re.compile(r"^```(?P<kind>\w+)(?: (?P<path>\S+))?\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


def follow(checkout: Path, page: str) -> None:
    """Do what a page says, block by block."""
    for block in BLOCK.finditer((REPOSITORY / f"docs/extending/{page}.md").read_text()):
        if block["path"]:
            (checkout / block["path"]).write_text(block["body"])
        elif block["kind"] == "diff":
            apply = ["git", "apply", "--recount", "--whitespace=nowarn", "-"]
            subprocess.run(apply, cwd=checkout, input=block["body"], text=True, check=True)
        elif block["kind"] == "sh":
            done = run(checkout, "bash", "-euo", "pipefail", "-c", block["body"])
            assert done.returncode == 0, f"{block['body']}{done.stdout}{done.stderr}"
        else:
            raise ValueError(f"{page}: found a block of kind {block['kind']}; expected diff, sh, or a file's path")


def make_up_values(checkout: Path) -> None:
    """Write the tables that stage claims reads, of made-up numbers: a gap that INDM halves, on five seeds."""
    cells = [("indm", 0.1), ("ddpmpp", 0.2)]
    same = {"suite": "smoke", "dataset": "digits", "sde": "vp", "variant": "", "objective": "nll"}
    same |= {"stage": "nll", "metric": "gap", "source": "made up"}
    rows = [
        same | {"model": model, "seed": seed, "value": gap + seed / 1000} for model, gap in cells for seed in range(5)
    ]
    tables = checkout / "results/smoke/tables"
    for name, columns in {"values": VALUE_COLUMNS, "fid": FID_COLUMNS, "nll": NLL_COLUMNS}.items():
        write_table(tables / f"{name}.csv", pd.DataFrame(rows if name == "values" else [], columns=columns))


def claim_is_graded(checkout: Path) -> None:
    table = pd.read_csv(checkout / "results/smoke/tables/claims.csv").set_index("id")
    assert table.loc["half-the-gap", "grade"] == "shown"


MODEL = """
from pathlib import Path
from indm.diffusion import ImplicitNonlinearDiffusion
from indm.params import load_suite
from indm.stages.train import model_spec
suite = load_suite(Path("params/smoke.yaml"))
model = ImplicitNonlinearDiffusion(model_spec(suite, "digits-vp-ddpmpp-nll-s0", [1, 8, 8]))
print(type(model.noise.network).__name__)
"""


def network_is_built(checkout: Path) -> None:
    done = run(checkout, "python", "-c", MODEL)
    assert done.stdout.split() == ["MirrorUNet"], done.stderr


def suite_is_a_suite(checkout: Path) -> None:
    assert yaml.safe_load((checkout / "params/two-seeds.yaml").read_text())["suite"] == "two-seeds"
    assert (checkout / "workflow/dvc/two-seeds/dvc.yaml").is_file()


BEFORE: dict[str, Callable[[Path], None]] = {"claim": make_up_values}
AFTER: dict[str, Callable[[Path], None]] = {
    "claim": claim_is_graded,
    "network": network_is_built,
    "suite": suite_is_a_suite,
}


@pytest.mark.parametrize("page", PAGES)
def test_page_does_what_it_says(tmp_path: Path, page: str) -> None:
    checkout = copy_checkout(tmp_path)
    shutil.copytree(REPOSITORY / "tests", checkout / "tests", ignore=shutil.ignore_patterns("__pycache__", "e2e"))
    BEFORE.get(page, lambda _: None)(checkout)
    follow(checkout, page)
    for command in (["ruff", "check", "--quiet"], ["ruff", "format", "--check", "--quiet", "--diff"]):
        done = run(checkout, *command)
        assert done.returncode == 0, done.stdout + done.stderr
    AFTER.get(page, lambda _: None)(checkout)


def test_every_page_is_in_the_index() -> None:
    index = (REPOSITORY / "docs/extending/README.md").read_text()
    assert set(re.findall(r"\]\(([\w-]+)\.md\)", index)) == set(PAGES)
