"""The floors of the house: what each room may import, read from the syntax trees."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

from indm.pipeline.code import OUTSIDE, SHOWN
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
    {"densities", "tuning", "pipeline"},
    {"stages", "doctor", "kept", "register", "watching"},
    {"foreign"},
    {"cli", "library"},
    {"__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported_rooms(path: Path) -> set[str]:
    """Rooms imported anywhere in a file, but for type checking."""
    guarded = {
        id(node)
        for branch in ast.walk(tree(path))
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    names = set()
    for node in ast.walk(tree(path)):
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


def test_a_room_imports_what_lies_below_it() -> None:
    imports = [(path, room(path), other) for path in FILES for other in imported_rooms(path) - {room(path)}]
    assert not [one for one in imports if FLOOR[one[2]] >= FLOOR[one[1]]]


def test_no_stage_imports_another() -> None:
    for path in (PACKAGE / "stages").glob("*.py"):
        assert "indm.stages" not in path.read_text().replace("``indm.stages", ""), path


def test_packages_import_nothing() -> None:
    """Else a module's stamp would be of all that its package imports."""
    for path in PACKAGE.glob("*/**/__init__.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        assert not [node for node in nodes if isinstance(node, ast.ImportFrom | ast.Import)]


def test_importing_all_modules_changes_no_setting_and_replaces_no_function_or_table() -> None:
    """Stamps count what is imported by name, and not what an import does to others."""
    code = """
import ast, contextlib, importlib, pathlib, pkgutil, random
import numpy, torch, indm

def settings():
    random_numbers = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    torchs = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    return random_numbers, torchs, numpy.geterr()

before = settings()
names = {found.name for found in pkgutil.walk_packages(indm.__path__, "indm.")} - {"indm.__main__", "indm.cli"}
modules = [importlib.import_module(name) for name in sorted(names)]
assert settings() == before
for module in modules:
    written = {}
    for node in ast.parse(pathlib.Path(module.__file__).read_bytes()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            assert getattr(module, node.name).__module__ == module.__name__, (module, node.name)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            with contextlib.suppress(ValueError):
                written[node.targets[0].id] = ast.literal_eval(node.value)
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            written.pop(node.target.id, None)
    assert {name: getattr(module, name) for name in written} == written, module
"""
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


# Registries alone import by a name in a variable: stamps know their members.
LOOK_UPS = {"__import__", "eval", "exec", "globals", "import_module", "resources.files", "vars"}
COUNTED = [path for path in sorted(PACKAGE.rglob("*.py")) if room(path) not in OUTSIDE]


def test_nothing_is_looked_up_where_stamps_cannot_see_it() -> None:
    for path in COUNTED:
        nodes = list(ast.walk(tree(path)))
        imported = (alias for node in nodes if isinstance(node, ast.Import) for alias in node.names)
        modules = {alias.asname or alias.name.partition(".")[0] for alias in imported}
        for call in (node for node in nodes if isinstance(node, ast.Call)):
            called = ast.unparse(call.func)
            assert called.removeprefix("importlib.") not in LOOK_UPS, ast.unparse(call)
            assert called != "getattr" or ast.unparse(call.args[0]) not in modules, ast.unparse(call)
        # What only readers of a registered member see is read by Registry.literal.
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and ".registered" in str(node.module):
                assert SHOWN.isdisjoint(alias.name for alias in node.names), ast.unparse(node)
            if isinstance(node, ast.Name) and path.parent.name == "registered":
                assert node.id not in SHOWN or isinstance(node.ctx, ast.Store), ast.unparse(node)


# What commands that compute nothing import.
LIGHT = "cli suite.load suite.claims store.files data.levels doctor.examine pipeline.input_check pipeline.runner pipeline.track "
LIGHT += "pipeline.why report.export stages.prepare stages.table stages.claims stages.figure stages.report"


def test_torch_is_not_imported_where_it_is_not_needed() -> None:
    code = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(f"indm.{name}")
    assert "torch" not in sys.modules, name
"""
    subprocess.run([sys.executable, "-c", code, *LIGHT.split()], cwd=REPOSITORY, check=True)


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
