"""The import rule of the rooms, read from the syntax tree."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "indm"
GROUND = {"errors", "seeding"}
# How files of params/ are read, for their schemas: those of suites and of claims.
STRICT = {"strict"}
# How several processes train together.
TOGETHER = {"distributed"}
# What keeps the unfinished work of a stage.
KEEPING = {"resume"}
FIRST = {"params", "artifacts", "data", "sde", "models", "flows"}
SECOND = {"objectives", "probability_flow", "sampling", "likelihood", "diffusion"}
THIRD = {"training", "metrics", "official"}
# What each room may import besides itself.
ALLOWED = {
    **{name: set() for name in GROUND},
    "strict": {"errors"},
    **dict.fromkeys(FIRST, GROUND),
    "checks": set(),
    "params": GROUND | STRICT | {"checks"},
    **{name: GROUND | FIRST - {"params"} | SECOND for name in SECOND | THIRD},
    "training": GROUND | FIRST - {"params"} | SECOND | THIRD | TOGETHER,
    "toy2d": GROUND | FIRST - {"params"} | SECOND | THIRD,
    "report": GROUND | STRICT | {"artifacts"},
    "stages": GROUND | FIRST - {"params"} | SECOND | THIRD | {"toy2d", "report"} | KEEPING | TOGETHER,
    "resume": {"errors", "artifacts"},
    "distributed": {"errors"},
    "doctor": {"errors", "artifacts", "data", "metrics", "params"},
    "cli": {"errors", "artifacts", "params", "report", "doctor"} | KEEPING,
    "__main__": {"cli"},
}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms imported anywhere in a file, but for type checking."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("indm.")}


def test_every_room_is_listed() -> None:
    assert {room(path) for path in FILES} == set(ALLOWED)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_import_rule(path: Path) -> None:
    extra = imported_rooms(path) - ALLOWED[room(path)] - {room(path)}
    assert not extra, f"{path.relative_to(REPOSITORY)} imports {sorted(extra)}, allowed: {sorted(ALLOWED[room(path)])}"


@pytest.mark.parametrize(
    "module",
    [
        "indm.cli",
        "indm.params",
        "indm.artifacts",
        "indm.data",
        "indm.report",
        "indm.doctor",
        "indm.stages.prepare",
        "indm.stages.table",
        "indm.stages.claims",
        "indm.stages.curve",
        "indm.stages.sweep",
        "indm.stages.figure",
        "indm.stages.report",
    ],
)
def test_torch_is_not_imported_where_it_is_not_needed(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


def test_garbage_is_looked_for_from_set_up_on_and_not_among_what_was_imported() -> None:
    """The command line runs with its own name and no command; what is registered before it runs after it, at the exit."""
    code = """
import atexit, gc, runpy, sys
atexit.register(lambda: print(gc.get_freeze_count() > frozen))
sys.argv = ["indm", "--version"]
try:
    runpy.run_module("indm", run_name="__main__")
except SystemExit:
    print(gc.isenabled())
from indm.stages.common import set_up
set_up("cpu", 1)
frozen, later = gc.get_freeze_count(), [[] for _ in range(10_000)]
print(gc.isenabled(), frozen > 100_000)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-4:] == ["False", "True", "True", "True"]
