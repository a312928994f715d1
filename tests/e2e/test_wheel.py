"""The wheel and the sdist, installed elsewhere: commands, suites and weights work without a checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.checkout import copy_checkout

pytestmark = [pytest.mark.e2e, pytest.mark.long]
RUN = "digits-vp-indm-nll-s4"
PACKED = [
    "data/standin32/cifar-10-python.tar.gz",
    "bench/kept/results.md.jinja",
    "report/page/templates/index.html.jinja",
    "report/page/templates/style.css",
    "report/page/templates/page.js",
    "shipped/checkout/Snakefile",
    "shipped/checkout/params/claims.yaml",
    "shipped/checkout/params/digits.yaml",
    "shipped/checkout/params/evidence.csv",
    "shipped/checkout/params/published.csv",
    "shipped/checkout/params/registrations.yaml",
    "shipped/checkout/params/schema.json",
    "shipped/checkout/profiles/default/config.yaml",
    "shipped/checkout/workflow/report/workflow.rst",
    "shipped/checkout/workflow/rules/common.smk",
    f"shipped/weights/digits/{RUN}.safetensors",
]


def build_sdist(source: Path, target: Path) -> Path:
    """Pack a checkout, without a network."""
    code = "import sys, setuptools.build_meta as backend; backend.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(target)], cwd=source, check=True, capture_output=True)
    (sdist,) = target.glob("*.tar.gz")
    return sdist


def build_wheel(source: Path, target: Path) -> Path:
    """Make a wheel of a folder or of an sdist, without a network."""
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True, capture_output=True)
    (wheel,) = target.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel made of it and not of the checkout."""
    checkout, target = copy_checkout(tmp_path_factory.mktemp("checkout")), tmp_path_factory.mktemp("built")
    build_wheel(build_sdist(checkout, target), target)
    return target


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of a new environment, which has the wheel and sees the packages of this one."""
    root = tmp_path_factory.mktemp("environment")
    venv.create(root, with_pip=False, symlinks=True)
    (site,) = root.glob("lib/python*/site-packages")
    (site / "packages.pth").write_text(sysconfig.get_path("purelib"))
    (wheel,) = built.glob("*.whl")
    install = [sys.executable, "-m", "pip", "--python", str(root / "bin/python"), "install", "--no-deps", "--no-index"]
    # Forced: this environment may have the package already, as a link to the checkout.
    subprocess.run([*install, "--ignore-installed", str(wheel)], check=True, capture_output=True)
    return root / "bin"


def call(installed: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{installed}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_holds_what_is_needed(built: Path) -> None:
    """And the sdist, of which it is made."""
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        assert {f"indm/{name}" for name in PACKED} <= set(archive.namelist())


def test_commands_work_elsewhere(installed: Path, tmp_path: Path) -> None:
    where = call(installed, tmp_path, "python", "-c", "import indm; print(indm.__file__)")
    assert Path(where.stdout.strip()).is_relative_to(installed.parent), where.stderr
    assert "\n  validate " in call(installed, tmp_path, "indm", "--help").stdout
    assert call(installed, tmp_path, "indm", "schema").stdout.startswith("{")
    doctor = call(installed, tmp_path, "indm", "doctor")
    assert "suite digits: " in doctor.stdout, doctor.stderr


def test_published_weights_are_loaded_elsewhere(installed: Path, tmp_path: Path) -> None:
    code = f"import indm; run = indm.load_run('{RUN}'); print(run.sample(2, steps=4).shape)"
    done = call(installed, tmp_path, "python", "-c", code)
    assert done.stdout == "torch.Size([2, 1, 8, 8])\n", done.stderr


def test_a_suite_runs_in_a_folder_that_init_has_made(installed: Path, tmp_path: Path) -> None:
    assert call(installed, tmp_path, "indm", "init", "mine").stdout.startswith("mine: ready; next: cd mine")
    again = call(installed, tmp_path, "indm", "init", "mine")
    assert again.stderr.startswith("indm init: mine: found Snakefile, params, profiles, workflow, expected")
    mine = tmp_path / "mine"
    made = call(
        installed, mine, "python", "-m", "snakemake", "--cores", "1", "--config", "suite=smoke", "--until", "prepare"
    )
    assert made.returncode == 0, made.stderr
    assert (mine / "results/smoke/data/digits/dataset.json").is_file()
