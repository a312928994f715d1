"""The sdist holds what git has, and tests run in it; what the Containerfile copies is enough for the wheel."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.checkout import copy_checkout
from tests.conftest import REPOSITORY
from tests.e2e.test_wheel import PACKED, build_sdist, build_wheel
from tests.test_container import arguments

pytestmark = [pytest.mark.e2e, pytest.mark.long]
# Of the files around the package, of its data, of its mathematics.
SOME = ["tests/test_frame.py", "tests/test_container.py", "tests/test_sde.py"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("checkout"), tests=True)


@pytest.fixture(scope="module")
def unpacked(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the sdist makes, as a repository."""
    target = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build_sdist(checkout, target)) as archive:
        archive.extractall(target, filter="data")
    (folder,) = (path for path in target.iterdir() if path.is_dir())
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    subprocess.run(["git", "add", "--all"], cwd=folder, check=True)
    return folder


def test_the_sdist_has_what_git_has_but_kept_results(checkout: Path, unpacked: Path) -> None:
    names = {path.relative_to(checkout) for path in checkout.rglob("*") if path.is_file()}
    made = {name for name in names if name.parts[0] in {".git", "indm.egg-info"} or "kept" in name.parts[3:4]}
    assert {str(name) for name in names - made if not (unpacked / name).is_file()} == set()
    assert not list(unpacked.glob("docs/results/*/kept"))


def test_tests_run_in_the_sdist(unpacked: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *SOME],
        cwd=unpacked, env=os.environ | {"PYTHONPATH": str(unpacked)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_what_the_image_copies_makes_the_wheel(tmp_path: Path) -> None:
    folder = tmp_path / "src"
    for line in arguments("COPY"):
        *sources, target = line.split()
        for source in sources:
            copy(REPOSITORY / source, folder / target / (Path(source).name if target == "./" else ""))
    with zipfile.ZipFile(build_wheel(folder, tmp_path)) as archive:
        assert {f"indm/{name}" for name in PACKED} <= set(archive.namelist())


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
