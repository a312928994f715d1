"""The referee with the core alone: what it imports, in a process in which no other package can be imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY

# What evaluates a network: torchdiffeq solves the ODE, with scipy; tqdm draws bars.
NEEDED = {"numpy", "scipy", "torch", "torchdiffeq", "tqdm"}
# What torch brings, and imports.
OF_TORCH = {"filelock", "fsspec", "functorch", "jinja2", "markupsafe", "mpmath", "networkx", "sympy", "torchgen"}
OF_TORCH |= {"typing_extensions"}
# Python imports this module whenever it starts.
ONLY = """
import os, sys

ALLOWED = {*sys.stdlib_module_names, *os.environ["ALLOWED"].split(), "indm", "my_model"}

class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED and not name.startswith(("__editable__", "_sysconfigdata")):
            raise ModuleNotFoundError(f"{name} is refused", name=name)

sys.meta_path.insert(0, Refusal())
"""
MODEL = """
import torch

import indm

sde = indm.build_sde("vp")


def network(z, t):
    alpha, sigma = (value(t).view(-1, 1, 1, 1) for value in (sde.alpha, sde.sigma))
    return sigma * z / (alpha**2 * 0.3 + sigma**2)


images = torch.randint(17, (8, 1, 4, 4), generator=torch.Generator().manual_seed(0)).byte()
"""
EVALUATION = """
import json, sys
from my_model import images, network, sde
import indm

report = indm.referee(network, sde, images, levels=17, time_draws=4, ode_steps=2, steps=4)
assert "nelbo" in str(report) and json.loads(report.to_json())["numbers"]
print(json.dumps(sorted(name for name in sys.modules if name.partition(".")[0] == "indm")))
"""


def python(folder: Path, allowed: set[str], *words: str) -> "subprocess.CompletedProcess[str]":
    """Run Python in a folder, without any package that is not allowed."""
    (folder / "sitecustomize.py").write_text(ONLY)
    (folder / "my_model.py").write_text(MODEL)
    variables = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}", "ALLOWED": " ".join(allowed)}
    return subprocess.run([sys.executable, *words], cwd=folder, env=variables, capture_output=True, text=True)


def test_the_referee_evaluates_and_reports_with_torch_numpy_and_the_ode_s_solver(tmp_path: Path) -> None:
    done = python(tmp_path, NEEDED | OF_TORCH, "-c", EVALUATION)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # What a distribution of its own would have to bring.
    rooms = {name.split(".")[1] for name in found if "." in name}
    assert rooms == {
        "arguments", "data", "diffusion", "errors", "flows", "foreign", "process", "progress", "registry", "seeding"
    }  # fmt: skip


def test_another_package_is_refused_there(tmp_path: Path) -> None:
    done = python(tmp_path, NEEDED | OF_TORCH, "-c", "import pandas")
    assert "pandas is refused" in done.stderr


@pytest.mark.parametrize("words", [[], ["--help"], ["referee", "--help"], ["train", "--help"]])
def test_help_needs_click_and_nothing_else(tmp_path: Path, words: list[str]) -> None:
    done = python(tmp_path, {"click"}, "-m", "indm", *words)
    assert "Usage: indm" in done.stdout + done.stderr


def test_the_command_evaluates_with_the_core_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 17, (8, 1, 4, 4)).astype(np.uint8))
    command = "referee my_model:network --images images.npy --sde my_model:sde --levels 17 --time-draws 4 --ode-steps 2"
    allowed = NEEDED | OF_TORCH | {"click", "PIL"}
    done = python(tmp_path, allowed, "-m", "indm", *command.split(), "--json", "referee.json")
    # Random levels are no data of a Gaussian: it warns.
    assert done.returncode in (0, 2), done.stderr
    assert (tmp_path / "referee.md").read_text() == done.stdout
    assert json.loads((tmp_path / "referee.json").read_text())["numbers"]["nelbo"]["mean"] > 0
