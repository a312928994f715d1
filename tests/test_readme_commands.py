"""README's commands: each one is read from its text and planned, so that none names a file, stage or suite that is gone."""

import re
import shlex
from pathlib import Path

import pytest

from tests.checkout import copy_checkout, run
from tests.conftest import REPOSITORY

TRY = (REPOSITORY / "README.md").read_text().split("## Try it\n")[1].split("\n## ")[0]
BLOCK = re.search(r"^```sh\n(.*?)^```$", TRY, flags=re.MULTILINE | re.DOTALL)
CELLS = [cell for row in TRY.splitlines() if row.startswith("|") for cell in row.split("|")[2:]]
PROGRAMS = ("make", "snakemake", "dvc", "python")


def commands() -> list[str]:
    """The lines of the block, without their comments, and the code in the columns of the engines."""
    assert BLOCK
    lines = [line.partition("#")[0].strip() for line in BLOCK[1].splitlines()]
    return [*lines, *(code for cell in CELLS for code in re.findall(r"`([^`]+)`", cell))]


def plan(command: str) -> list[str]:
    """Return the command that plans another one and runs nothing of it.

    ``dvc repro --dry`` hashes inputs that no stage has made yet, so that it fails in a new clone; the graph needs none.
    """
    program, *rest = shlex.split(command)
    if program == "dvc":
        assert rest[0] == "repro"
        return ["dvc", "dag", "--dot", *rest[1:]]
    return [program, "--dry-run", *rest]


# The graph of the full-size suite has thousands of jobs, and its dvc.yaml is generated first.
SLOW = "paper"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("checkout"))


def test_readme_names_both_engines_and_how_to_test() -> None:
    assert {command.split()[0] for command in commands()} == {*PROGRAMS}
    assert {"make report", "make test", "snakemake --cores all", "dvc repro"} <= {*commands()}


@pytest.mark.parametrize("command", [it for it in commands() if SLOW not in it])
def test_a_command_of_readme_can_be_planned(command: str, checkout: Path) -> None:
    done = run(checkout, *plan(command))
    assert done.returncode == 0, done.stderr
    assert not (checkout / "results/digits").exists()


@pytest.mark.long
def test_the_full_size_suite_can_be_planned_by_both_engines(checkout: Path) -> None:
    """Thousands of jobs, and a dvc.yaml that is made first."""
    for command in (it for it in commands() if SLOW in it):
        words = command.split() if command.startswith("python ") else plan(command)
        done = run(checkout, *words)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command",
    ["make reprot", "snakemake --cores all results/table_fud.csv", "dvc repro publish@fud"],
)
def test_a_mistyped_command_cannot_be_planned(command: str, checkout: Path) -> None:
    assert run(checkout, *plan(command)).returncode != 0
