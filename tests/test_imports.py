"""The wings of the house: what each may import, read from the syntax trees; and what an import may do."""

import ast
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from indm.__main__ import BENCH
from indm.bench.pipeline.code import counts
from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "indm"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
# What bench and report share. All other rooms outside of them are science, except for the start of the command line.
BETWEEN = {"fields", "strict_yaml", "terminal"}


def wing(name: str) -> str:
    """Name the wing to which a module belongs."""
    first = name.split(".")[1]
    return first if first in ("bench", "report", "__main__") else "between" if first in BETWEEN else "science"


def room(name: str) -> str:
    """Name the room in which a module is: a package or a module below a wing."""
    parts = name.split(".")
    return ".".join(parts[1:3] if parts[1] == "bench" else parts[1:2])


def module(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(parsed: ast.Module) -> set[str]:
    """List what a module imports of this package anywhere, for type checkers too."""
    names: set[str] = set()
    for node in ast.walk(parsed):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import: {ast.unparse(node)}"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.startswith("indm.") and name != "indm.__version__"}


# The wings that a wing may import, besides itself.
MAY_IMPORT = {
    "science": set[str](),
    "between": {"science"},
    "report": {"science", "between"},
    "bench": {"science", "between", "report"},
    "__main__": {"science", "bench"},
}


def refused(name: str, parsed: ast.Module) -> list[str]:
    """List the imports of a module that its wing may not import."""
    allowed = MAY_IMPORT[wing(name)] | {wing(name)}
    return sorted(other for other in imported(parsed) if wing(other) not in allowed)


def test_science_knows_nobody_and_the_report_does_not_know_the_bench() -> None:
    assert not {module(path): found for path in FILES if (found := refused(module(path), tree(path)))}


@pytest.mark.parametrize(
    ("name", "planted"),
    [
        ("indm.training.loop", "from indm.bench.suite.schema.train import TrainParams"),
        ("indm.diffusion.likelihood", "def f():\n    from indm.report.numbers import VALUE_COLUMNS"),
        ("indm.foreign.report", "from indm.terminal import grid"),
        (
            "indm.data.levels",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from indm.bench.suite import load",
        ),
        ("indm.report.tables", "import indm.bench.pipeline.stages"),
        ("indm.fields", "from indm.report.names import name"),
    ],
)
def test_an_import_of_another_wing_is_found(name: str, planted: str) -> None:
    assert refused(name, ast.parse(planted))


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """Return rooms that import each other in a circle, or an empty list."""
    left = {room: others - {room} for room, others in arrows.items()}
    while leaves := [name for name, others in left.items() if not others & left.keys()]:
        for name in leaves:
            del left[name]
    return sorted(left)


MODULES = {module(path) for path in FILES}


def whole(name: str) -> str:
    """Name a module: what is imported is one, or stands in one."""
    return name if name in MODULES else name.rpartition(".")[0]


def arrows(of: Callable[[str], str]) -> dict[str, set[str]]:
    """List what each module, or each room, imports, for type checkers too."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in FILES:
        found[of(module(path))] |= {of(name) for name in imported(tree(path))}
    return found


@pytest.mark.parametrize(
    ("of", "above", "below"), [(room, "training", "data"), (whole, "indm.diffusion.model", "indm.diffusion.sde")]
)
def test_nothing_imports_each_other_in_a_circle(of: Callable[[str], str], above: str, below: str) -> None:
    """Neither rooms nor modules, type checkers included; an arrow back would be found."""
    found = arrows(of)
    assert circle(found) == []
    planted = found | {below: found[below] | {above}}
    assert {above, below} <= set(circle(planted))


IMPORTS = """
import importlib, sys

class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ImportError(f"{name} is refused")

REFUSED = set(sys.argv[1].split())
sys.meta_path.insert(0, Refusal())
for name in sys.argv[2:]:
    importlib.import_module(name)
"""


def imports_without(refused: str, names: list[str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", IMPORTS, refused, *names]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


def modules_of(of: str) -> Iterator[str]:
    return (name for path in FILES if wing(name := module(path)) == of)


def test_the_report_needs_no_torch() -> None:
    done = imports_without("torch", list(modules_of("report")))
    assert done.returncode == 0, done.stderr
    assert imports_without("torch", ["indm.diffusion.model"]).returncode != 0


# Of science, these alone need packages of the bench.
OF_BENCH = " ".join(BENCH)


def core() -> list[str]:
    """The modules of science that need no package of the bench: all but metrics."""
    return [name for name in modules_of("science") if room(name) != "metrics"]


def test_science_needs_few_packages() -> None:
    done = imports_without(OF_BENCH, core())
    assert done.returncode == 0, done.stderr
    assert imports_without(OF_BENCH, ["indm.bench.suite.load"]).returncode != 0


# Downloads alone need these two; their absence is one line with the remedy.
FOR_DOWNLOADS = {"gdown", "pooch"}
# The command line, of which the referee needs no more.
FOR_COMMANDS = {"click"}
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def packages(parsed: ast.Module) -> set[str]:
    """List the packages, other than Python's and this one, that a module imports anywhere."""
    nodes = list(ast.walk(parsed))
    names = {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"indm"}


def distributions(names: Iterable[str]) -> set[str]:
    """List the distributions that hold packages of these names."""
    known = packages_distributions()
    return {canonicalize_name(distribution) for name in names for distribution in known[name]}


def required(lines: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in lines}


def test_the_package_requires_what_science_and_commands_import_and_nothing_else() -> None:
    imported = set[str]().union(*(packages(tree(path)) for path in FILES if module(path) in core()))
    assert distributions(imported - FOR_DOWNLOADS | FOR_COMMANDS) == required(PROJECT["dependencies"])
    assert len(PROJECT["dependencies"]) <= 12


def test_the_extra_bench_has_what_the_command_line_asks_for() -> None:
    wanted = required(PROJECT["optional-dependencies"]["bench"])
    # The C part of ruamel.yaml, which works without.
    assert wanted - {"ruamel-yaml-clib"} == distributions(BENCH) - {"ruamel-yaml-clib"}
    assert not wanted & required(PROJECT["dependencies"])


def test_every_other_extra_has_the_bench_too() -> None:
    """Each is for commands of the bench."""
    extras = PROJECT["optional-dependencies"].items()
    assert [name for name, lines in extras if name != "bench" and "indm[bench]" not in lines] == []


def test_no_stage_imports_another() -> None:
    for path in (PACKAGE / "bench" / "stages").glob("*.py"):
        assert "indm.bench.stages" not in path.read_text().replace("``indm.bench.stages", ""), path


def test_packages_import_nothing() -> None:
    """Else a module's stamp would be of all that its package imports."""
    for path in PACKAGE.glob("*/**/__init__.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        assert not [node for node in nodes if isinstance(node, ast.ImportFrom | ast.Import)]


COUNTED = [path for path in FILES if counts(module(path))]
# Rooms that store, check, schedule or talk to people.
UNCOUNTED = {
    "__main__",
    "arguments",
    "errors",
    "fields",
    "foreign",
    "library",
    "progress",
    "registry",
    "shipped",
    "store",
}
UNCOUNTED |= {
    "bench.cli",
    "bench.doctor",
    "bench.kept",
    "bench.measure",
    "bench.pipeline",
    "bench.register",
    "bench.suite",
}
UNCOUNTED |= {"bench", "bench.watching", "strict_yaml", "terminal"}


def test_every_room_counts_for_stamps_or_is_known_not_to() -> None:
    """A new room has to be put on one side, or its formulas would be edited unseen."""
    assert {room(module(path)) for path in FILES if not counts(module(path))} == UNCOUNTED


def test_no_seed_depends_on_the_name_of_a_module() -> None:
    """A stamp does not count names of modules, so that a module can be renamed; else its renaming would change numbers unseen."""
    names = {"__name__", "__module__", "__qualname__", "__package__", "__spec__", "__file__"}
    seeds = {"derive_seed", "manual_seed", "default_rng", "Generator", "SeedSequence"}
    for path in COUNTED:
        calls = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
        seeding = [call for call in calls if ast.unparse(call.func).rpartition(".")[2] in seeds]
        words = {word for call in seeding for part in ast.walk(call) for word in (named(part),)}
        assert not words & names, path


def named(node: ast.AST) -> str:
    """Return the name that a node is, or ends with."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def test_modules_read_data_of_their_own_folder_by_their_path() -> None:
    """A stamp finds data by ``__file__`` alone."""
    for path in COUNTED:
        found = {ast.unparse(node) for node in ast.walk(tree(path)) if isinstance(node, ast.Import | ast.ImportFrom)}
        assert not [line for line in found if "importlib.resources" in line or "pkgutil" in line], path
        assert "import resources" not in " ".join(found), path


ALL = sorted(PACKAGE.rglob("*.py"))
# Two are programs, and the command line makes a command of each stage.
DO_MORE = {"__main__.py", "bench/watching/engine.py", "bench/cli.py"}
# First words of functions that change something besides what they return.
VERBS = {"add", "append", "clear", "delattr", "disable", "enable", "exec", "extend", "filterwarnings", "insert"}
VERBS |= {"manual", "patch", "pop", "put", "register", "remove", "seed", "set", "setattr", "setdefault", "seterr"}
VERBS |= {"simplefilter", "update", "use"}
ALIASES = ast.Name | ast.Attribute | ast.Subscript | ast.IfExp | ast.BoolOp


def effects(body: list[ast.stmt], known: frozenset[str] = frozenset()) -> list[str]:
    """List what statements of a module or a class do besides defining names, and changing what they have made (``known``)."""
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                known |= {name}
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                known |= set() if isinstance(node.value, ALIASES) else {name}
    return [ast.unparse(node).partition("\n")[0] for node in body if not defines(node, known)]


def defines(node: ast.stmt, known: frozenset[str]) -> bool:
    executed: list[ast.AST] = [node]
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        executed = [*node.decorator_list, *([node.args] if isinstance(node, ast.FunctionDef) else node.bases)]
    called = [call.func for part in executed for call in ast.walk(part) if isinstance(call, ast.Call)]
    for function in (*called, *getattr(node, "decorator_list", ())):
        words = ast.unparse(function).rpartition(".")[2].strip("_").split("_")
        if words[0] in VERBS and root(function) not in known:
            return False
    match node:
        case ast.Import(names=names):
            # An attribute of the package may be a module that somebody else has imported.
            return all(alias.asname or alias.name.split(".")[0] != "indm" for alias in names)
        case ast.ImportFrom(names=names):
            return names[0].name != "*"
        case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=body) | ast.ClassDef(body=body):
            return not effects(body, known)
        case ast.Assign(targets=targets):
            return all(isinstance(target, ast.Name | ast.Tuple) or root(target) in known for target in targets)
        case ast.AugAssign(target=changed) | ast.Expr(value=ast.Call(func=ast.Attribute(value=changed))):
            return root(changed) in known
    return isinstance(node, ast.FunctionDef | ast.AnnAssign | ast.Pass) or isinstance(
        getattr(node, "value", None), ast.Constant
    )


def root(node: ast.AST) -> str:
    """Return the name with which an expression begins."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def test_a_module_only_defines_when_it_is_imported() -> None:
    """Stamps count what is imported by name, and not what an import does to others."""
    found = {str(path.relative_to(PACKAGE)): effects(tree(path).body) for path in ALL}
    assert {path for path, done in found.items() if done} == DO_MORE, found


@pytest.mark.parametrize(
    "planted",
    [
        "import torch\ntorch.set_default_dtype(torch.float64)",
        "import torch\nBEFORE = torch.set_default_dtype(torch.float64)",
        "import torch\n\n\nclass A:\n    torch.manual_seed(0)",
        "from indm.metrics import frechet\nfrechet.distance = max",
        "from indm.metrics import frechet\nsetattr(frechet, 'distance', max)",
        "from indm.metrics.frechet import COLUMNS\nCOLUMNS += ['a']",
        "from indm.metrics import frechet\nMINE = frechet.COLUMNS\nMINE += ['a']",
        "from indm.metrics import frechet\nfrechet.COLUMNS.append('a')",
        "from indm.metrics import frechet\nfrechet.TABLE['a'] = 1",
        "from indm.metrics.frechet import *",
        "import indm.metrics.frechet",
        "from torch_fidelity import register\nfor name in ('a', 'b'):\n    register(name)",
        "from functools import singledispatch\nfrom indm.maths import f\n\n\n@f.register\ndef _(x: int):\n    return x",
        "import numpy as np\n\n\ndef f(x=np.seterr(all='raise')):\n    return x",
        "import os\nos.environ['A'] = 'b'",
        "import warnings\nwith warnings.catch_warnings():\n    pass",
    ],
)
def test_a_module_that_does_more_is_found(planted: str) -> None:
    assert effects(ast.parse(planted).body)


def test_importing_all_modules_changes_no_setting_and_replaces_no_function() -> None:
    code = """
import ast, importlib, pathlib, pkgutil, random
import numpy, torch, indm

def settings():
    random_numbers = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    return random_numbers, torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(), numpy.geterr()

before = settings()
names = {found.name for found in pkgutil.walk_packages(indm.__path__, "indm.")} - {"indm.__main__", "indm.bench.cli"}
modules = [importlib.import_module(name) for name in sorted(names)]
assert settings() == before
for module in modules:
    for node in ast.parse(pathlib.Path(module.__file__).read_bytes()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            assert getattr(module, node.name).__module__ == module.__name__, (module, node.name)
"""
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


# Registries alone import by a name in a variable: stamps know their members.
LOOK_UPS = {"__import__", "eval", "exec", "globals", "import_module", "resources.files", "vars"}


def test_nothing_is_looked_up_where_stamps_cannot_see_it() -> None:
    for path in COUNTED:
        nodes = list(ast.walk(tree(path)))
        imported = (alias for node in nodes if isinstance(node, ast.Import) for alias in node.names)
        modules = {alias.asname or alias.name.partition(".")[0] for alias in imported}
        for call in (node for node in nodes if isinstance(node, ast.Call)):
            called = ast.unparse(call.func)
            assert called.removeprefix("importlib.") not in LOOK_UPS, ast.unparse(call)
            assert called != "getattr" or ast.unparse(call.args[0]) not in modules, ast.unparse(call)


# What commands that compute nothing import.
LIGHT = "bench.cli bench.suite.load bench.suite.claims store.files data.levels bench.doctor bench.pipeline.input_check "
LIGHT += "bench.pipeline.runner bench.pipeline.track bench.pipeline.why report.export bench.stages.prepare bench.stages.table "
LIGHT += "bench.stages.claims bench.stages.figure bench.stages.report"


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
