"""The wheel and the sdist, installed elsewhere: commands, suites and weights work without a checkout, science without the bench."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from indm.__main__ import BENCH
from tests.checkout import copy_checkout
from tests.test_imports import PROJECT, core, distributions
from tests.test_kit import check_example

pytestmark = [pytest.mark.e2e, pytest.mark.long]
RUN = "digits-vp-indm-nll-s4"
PACKED = [
    "py.typed",
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


def needed(lines: Iterable[str]) -> set[str]:
    """List the distributions that requirements need, directly or not, by their names."""
    found: set[str] = set()
    queue = [(Requirement(line), {""}) for line in lines]
    for requirement, extras in queue:
        name, marker = canonicalize_name(requirement.name), requirement.marker
        asked = {"", *requirement.extras}
        wanted = marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)
        if wanted and (key := f"{name}{sorted(asked)}") not in found:
            found.add(key)
            queue += [(Requirement(line), asked) for line in distribution(name).requires or ()]
    return {key.partition("[")[0] for key in found}


def link(name: str, site: Path) -> None:
    """Give another environment a distribution of this one: links to its folders and files."""
    for top in {file.parts[0] for file in distribution(name).files or ()} - {"..", "__pycache__"}:
        if not (site / top).is_symlink():
            (site / top).symlink_to(distribution(name).locate_file(top))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def alone(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of a new environment, which has the wheel and what it requires without extras, and nothing else.

    The requirements are links to packages of this environment, since installing torch again would take minutes and a
    network; pip would refuse the wheel if one of its requirements were missing.
    """
    root = tmp_path_factory.mktemp("alone")
    venv.create(root, with_pip=False, symlinks=True)
    (site,) = root.glob("lib/python*/site-packages")
    for name in needed(PROJECT["dependencies"]):
        link(name, site)
    (wheel,) = built.glob("*.whl")
    install = [sys.executable, "-m", "pip", "--python", str(root / "bin/python"), "install", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    return root / "bin"


def test_science_is_imported_where_the_bench_is_not_installed(alone: Path, tmp_path: Path) -> None:
    # torch needs jinja2.
    absent = [name for name in BENCH if distributions([name]).isdisjoint(needed(PROJECT["dependencies"]))]
    assert set(BENCH) - set(absent) <= {"jinja2"}
    code = """
import importlib, importlib.util, sys
absent = sys.argv[1].split()
assert [name for name in absent if importlib.util.find_spec(name)] == []
for name in sys.argv[2:]:
    importlib.import_module(name)
print(sys.modules["indm"].__file__)
"""
    done = call(alone, tmp_path, "python", "-c", code, " ".join(absent), *core())
    assert Path(done.stdout.strip()).is_relative_to(alone.parent), done.stderr


@pytest.mark.parametrize("command", [["indm", "show"], ["python", "-m", "indm", "run", "digits"]])
def test_a_command_where_the_bench_is_not_installed_is_one_line(
    alone: Path, tmp_path: Path, command: list[str]
) -> None:
    done = call(alone, tmp_path, *command)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.endswith("pip install 'indm[bench]'")


def test_help_and_the_referee_s_options_are_shown_where_the_bench_is_not_installed(alone: Path, tmp_path: Path) -> None:
    assert "\n  referee " in call(alone, tmp_path, "indm", "--help").stdout
    assert "--claimed" in call(alone, tmp_path, "indm", "referee", "--help").stdout


@pytest.mark.parametrize("name", ["my_likelihood.py", "my_check.py"])
def test_the_core_trains_evaluates_and_referees_where_the_bench_is_not_installed(
    alone: Path, tmp_path: Path, name: str
) -> None:
    variables = os.environ | {"PYTHONPATH": str(tmp_path)}
    check_example(tmp_path, name, alone / "python", variables)


def test_a_user_has_the_types(alone: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import indm\n\nrun = indm.load_run(3)\nreveal_type(run.seed)\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--python-executable", str(alone / "python"), "mine.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert 'Argument 1 to "load_run" has incompatible type "int"; expected "str | Path"' in done.stdout, done.stdout
    assert 'Revealed type is "int"' in done.stdout
