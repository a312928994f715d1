"""The start of the command line: the process of every command has large pages."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from indm.__main__ import BENCH
from tests.conftest import REPOSITORY

LARGE_PAGES = "glibc.malloc.hugetlb=1"
# Python imports this module whenever it starts.
NOTES = """
import os, sys
with open(os.environ["NOTES"], "a") as file:
    print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), *sys.warnoptions, file=file)
"""
# What pip writes for a command.
SCRIPT = "import sys\nfrom {} import {}\nsys.exit({}())\n"


@pytest.fixture(params=["module", "script"])
def command(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """Return the command line of ``python -m indm`` and of ``indm``, with an option for Python."""
    if request.param == "module":
        return [sys.executable, "-W", "ignore", "-m", "indm"]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["indm"].partition(":")
    (tmp_path / "indm-script").write_text(SCRIPT.format(module, function, function))
    return [sys.executable, "-W", "ignore", str(tmp_path / "indm-script")]


def starts(folder: Path, command: list[str], tunables: str | None) -> tuple[int, int, list[list[str]]]:
    """Run a command; return its process, its exit status, and what each start of Python in it has noted."""
    (folder / "sitecustomize.py").write_text(NOTES)
    variables = os.environ | {"NOTES": str(folder / "notes"), "PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}"}
    variables.pop("GLIBC_TUNABLES", None)
    variables |= {} if tunables is None else {"GLIBC_TUNABLES": tunables}
    process = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    status = process.wait()
    return process.pid, status, [line.split() for line in (folder / "notes").read_text().splitlines()]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc reads the variable")
@pytest.mark.parametrize(("words", "expected"), [(["--version"], 0), (["prepare", "--nothing"], 2)])
def test_a_process_starts_again_with_large_pages(
    command: list[str], words: list[str], expected: int, tmp_path: Path
) -> None:
    """It has the same number, options and exit status, so that signals and engines find it."""
    pid, status, notes = starts(tmp_path, [*command, *words], None)
    assert status == expected
    assert notes == [[str(pid), "None", "ignore"], [str(pid), LARGE_PAGES, "ignore"]]


@pytest.mark.parametrize("tunables", ["", LARGE_PAGES, "glibc.malloc.hugetlb=0"])
def test_a_process_whose_environment_has_tunables_starts_once(
    command: list[str], tunables: str, tmp_path: Path
) -> None:
    pid, status, notes = starts(tmp_path, [*command, "--version"], tunables)
    assert status == 0
    assert notes == [[str(pid), *filter(None, [tunables]), "ignore"]]


@pytest.mark.parametrize("words", [["show", "digits"], ["--version", "run"], ["measure", "--samples", "."]])
def test_a_command_without_the_bench_is_one_line_with_the_remedy(words: list[str], tmp_path: Path) -> None:
    """Python has no packages here at all: the line comes before any import of one."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "indm", *words],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"found no {', '.join(BENCH)}; pip install 'indm[bench]'" in line
    assert done.stdout == ""
