"""The floors of the house: what each room may import, read from the syntax trees."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "indm"
# From the ground up; a room imports rooms of lower floors, and itself.
FLOORS = [
    {"errors", "measured", "seeding"},
    {"process", "progress", "registry", "shipped", "terminal"},
    {"store", "suite", "data", "networks", "flows"},
    {"diffusion"},
    {"released", "metrics", "report"},
    {"training"},
    {"toy2d", "tuning", "pipeline"},
    {"stages", "doctor", "kept", "register", "watching"},
    {"cli", "library"},
    {"__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
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
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("indm.")} - {"__version__"}


def test_every_room_has_a_floor() -> None:
    assert {room(path) for path in FILES} == set(FLOOR)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_what_lies_below_it(path: Path) -> None:
    here = room(path)
    wrong = {other for other in imported_rooms(path) - {here} if FLOOR[other] >= FLOOR[here]}
    assert not wrong, f"{path.relative_to(REPOSITORY)} imports {sorted(wrong)}, which do not lie below {here}"


def test_no_stage_imports_another() -> None:
    for path in (PACKAGE / "stages").glob("*.py"):
        assert "indm.stages" not in path.read_text().replace("``indm.stages", ""), path


def test_packages_import_nothing() -> None:
    """Else a module's stamp would be of all that its package imports. The package itself is in no stamp."""
    for path in PACKAGE.glob("*/**/__init__.py"):
        assert not [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom | ast.Import)
        ]


@pytest.mark.parametrize(
    "module",
    [
        "indm",
        "indm.cli",
        "indm.suite.load",
        "indm.suite.claims",
        "indm.store.files",
        "indm.data.levels",
        "indm.doctor.examine",
        "indm.pipeline.identity",
        "indm.pipeline.runner",
        "indm.pipeline.track",
        "indm.pipeline.why",
        "indm.report.export",
        "indm.stages.prepare",
        "indm.stages.table",
        "indm.stages.claims",
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
from indm.process import set_up
set_up("cpu", 1)
frozen, later = gc.get_freeze_count(), [[] for _ in range(10_000)]
print(gc.isenabled(), frozen > 100_000)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-4:] == ["False", "True", "True", "True"]
