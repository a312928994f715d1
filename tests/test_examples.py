"""The examples run, elsewhere than in the checkout, and notebooks are committed without outputs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY

EXAMPLES = REPOSITORY / "examples"
NOTEBOOK, KIT = EXAMPLES / "nonlinear_diffusion.ipynb", EXAMPLES / "likelihood.ipynb"


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
    assert found == {"sample_digits.py", "gaussian_oracle.py", NOTEBOOK.name, KIT.name}
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


@pytest.mark.parametrize("notebook", [NOTEBOOK, KIT])
def test_a_notebook_is_committed_without_outputs(notebook: Path) -> None:
    cells = json.loads(notebook.read_text())["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]


def outputs(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Run a notebook in a folder; return what its cells show."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": folder}}).execute()
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.long
def test_the_notebook_of_moons_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = outputs(NOTEBOOK, tmp_path, monkeypatch)
    assert sum("image/png" in output.get("data", {}) for output in shown) == 2
    assert any(output.get("text", "").startswith("500 test points: NLL") for output in shown)


@pytest.mark.long
def test_the_notebook_of_likelihoods_finds_each_planted_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = outputs(KIT, tmp_path, monkeypatch)
    assert any("`nll_uncorrected`" in output.get("data", {}).get("text/markdown", "") for output in shown)
    number, diffusion, sign = [output["text"] for output in shown if output.get("name") == "stdout"]
    assert "left out" in number
    assert "beta_max=20.0" in diffusion
    assert "sign" in sign
