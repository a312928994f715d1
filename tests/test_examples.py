"""The examples run, elsewhere than in the checkout, and the notebook is committed without outputs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

EXAMPLES = REPOSITORY / "examples"
NOTEBOOK = EXAMPLES / "nonlinear_diffusion.ipynb"


def run(folder: Path, name: str, *arguments: str) -> str:
    """Run an example in a folder; return what it prints."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_tested_and_named_in_the_docs() -> None:
    page = (REPOSITORY / "docs/library.md").read_text()
    found = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")}
    assert found == {"sample_digits.py", "gaussian_oracle.py", NOTEBOOK.name}
    assert all(name in page for name in found)


@pytest.mark.long
def test_sample_digits(tmp_path: Path) -> None:
    first, *rest = run(tmp_path, "sample_digits.py").splitlines()
    assert first == "digits.png: 64 digits drawn from digits-vp-indm-nll-s4"
    assert [line.split()[:2] for line in rest] == [
        [f"digits-vp-{model}-nll-s4:", "NLL"] for model in ("indm", "ddpmpp")
    ]
    assert (tmp_path / "digits.png").stat().st_size > 1000


@pytest.mark.long
def test_gaussian_oracle(tmp_path: Path) -> None:
    _, *rows = run(tmp_path, "gaussian_oracle.py").splitlines()
    for row in rows:
        known, nll, nelbo = map(float, row.split()[-3:])
        assert nll == pytest.approx(known, abs=0.002)
        assert nelbo > known - 0.002


def test_the_notebook_is_committed_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]


@pytest.mark.long
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert any(output.get("text", "").startswith("500 test points: NLL") for output in outputs)
