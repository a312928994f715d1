"""The code behind a job: the modules that its stage and its registered members import, each hashed by its syntax tree.

A module counts with every module of the package that it imports, except for type checkers: by ``from``, by ``import`` and by ``*``,
with the ``__init__.py`` of each package on the way. If it uses ``__file__``, all files in its folder that are not modules count.
Its hash does not count docstrings, comments, layout, messages of errors, or annotations of functions and variables; annotations of
a class's fields count, since they can decide what the class does. It counts imported names and their aliases, but not the name of
the module that has them: a stamp numbers modules in the order in which they are found, so that a module can be renamed.

From the packages in ``OUTSIDE``, which store, report, check or schedule, only the names that are used count.
"""

import ast
import functools
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from indm.errors import ArtifactError

ROOT = Path(__file__).parents[3]
OUTSIDE = {
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
OUTSIDE |= {
    "bench.cli",
    "bench.doctor",
    "bench.kept",
    "bench.measure",
    "bench.pipeline",
    "bench.register",
    "bench.suite",
}
OUTSIDE |= {"bench.watching", "strict_yaml", "terminal"}
# Constants of registered members, and of the package, that only readers see. Where stages read them, they count by their values.
SHOWN = {"LABEL", "NO_ODE", "ONLY", "REFERENCE", "SOUND", "STYLE", "__version__"}
# Results cannot depend on these fields, or newer versions of Python add them.
LEFT_OUT = {"annotation", "ctx", "kind", "returns", "type_comment", "type_params"}
# Kinds of nodes whose fields do not all count, or that name modules.
SPECIAL = {ast.Raise, ast.Assert, ast.ImportFrom, ast.Import, ast.ClassDef}
# Files that editors and patches leave.
LITTER = re.compile(r"[.#].*|.*(~|\.orig|\.rej|\.swp)")


class Module(NamedTuple):
    """A module or a file of data: the hash of its content, empty without statements, and the modules and files that it imports.

    ``reads`` are constants of members that it reads by :meth:`indm.registry.Registry.literal`, ``constants`` a member's own.
    """

    sha256: str
    imports: tuple[str, ...] = ()
    reads: frozenset[str] = frozenset()
    constants: Mapping[str, str] = MappingProxyType({})


class Sources:
    """The modules of the package in a tree of files, by their paths from the top of the checkout."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = {_name(path): content for path, content in files.items() if not LITTER.fullmatch(Path(path).name)}
        self._known: dict[str, Module] = {}
        self._stamps: dict[tuple[str, ...], str] = {}
        self._reads: dict[tuple[str, ...], list[str]] = {}

    def modules(self, *names: str) -> dict[str, str]:
        """Return the hash of each module, and of each file of data, behind modules of these names, by its name."""
        return {name: module.sha256 for name, module in sorted(self._behind(names).items())}

    def stamp(self, *names: str) -> str:
        """Hash the modules behind modules of these names, and which imports which, but not their names."""
        if names not in self._stamps:
            self._stamps[names] = self._stamp(names)
        return self._stamps[names]

    def _stamp(self, names: tuple[str, ...]) -> str:
        found = self._behind(names)
        numbers = {name: number for number, name in enumerate(found)}
        begun: list[int] = []
        for name in names:
            begun += [numbers[module] for module in self._way(name) if module in numbers]
        graph = []
        for module in found.values():
            imported = [numbers[name] for name in module.imports if name in numbers]
            graph.append((module.sha256, imported))
        return hashlib.sha256(repr((begun, graph)).encode()).hexdigest()

    def reads(self, *names: str) -> list[str]:
        """List the constants of registered members that are read behind modules of these names."""
        if names not in self._reads:
            found: set[str] = set()
            for module in self._behind(names).values():
                found |= module.reads
            self._reads[names] = sorted(found)
        return self._reads[names]

    def shown(self, members: Iterable[str], *names: str) -> list[tuple[str, str, str]]:
        """List the constants of registered members that are read behind modules of these names: module, constant, value."""
        found, reads = [], self.reads(*names)
        for member in members:
            constants = self._module(member).constants if member in self._files else {}
            found += [(member, key, constants[key]) for key in reads if key in constants]
        return found

    def _behind(self, names: Iterable[str]) -> dict[str, Module]:
        """Read the modules behind others, in the order in which they are found, without empty ones."""
        found: dict[str, Module] = {}
        queue: list[str] = []
        for name in names:
            queue += self._way(name)
        for name in queue:
            if name not in found:
                found[name] = self._module(name)
                queue += found[name].imports
        return {name: module for name, module in found.items() if module.sha256}

    def _way(self, name: str) -> Iterator[str]:
        """Yield the packages on the way to a module, or to something in it, and the module."""
        parts = name.split(".")
        counted = 1 if is_outside(name) else len(parts)
        for count in range(1, counted + 1):
            path = ".".join(parts[:count])
            yield from (found for found in (f"{path}.__init__", path) if found in self._files)

    def _module(self, name: str) -> Module:
        if name not in self._known:
            self._known[name] = self._read(name)
        return self._known[name]

    def _read(self, name: str) -> Module:
        content, writer = self._files[name], _Writer()
        if "/" in name:
            return Module(hashlib.sha256(name.encode() + content).hexdigest())
        path = f"{name.replace('.', '/')}.py"
        try:
            tree = ast.parse(content)
            constants = _constants(tree) if ".registered." in name or name == "indm.__init__" else {}
            shown = [constants[key] for key in SHOWN & constants.keys()]
            text = writer.text([node for node in tree.body if node not in shown])
        except (SyntaxError, ValueError) as error:
            raise ArtifactError(f"{path}: found {error}, expected a Python module") from None
        imports = [module for imported in writer.imported for module in self._way(imported)]
        if b"__file__" in content:
            imports += sorted(file for file in self._files if file.startswith(path.rpartition("/")[0] + "/"))
        sha256 = hashlib.sha256(text.encode()).hexdigest() if text != "[]" else ""
        values = {key: writer.text(node.value) for key, node in constants.items()}
        return Module(sha256, tuple(imports), frozenset(writer.reads), values)


class _Writer:
    """Writes the parts of a tree down on which a result can depend, in the same way in every version of Python."""

    def __init__(self) -> None:
        self.imported: list[str] = []
        self.reads: set[str] = set()

    def text(self, node: Any) -> str:
        """Write a node, a list of nodes, or another value of a field."""
        # The most frequent kinds come first, because all modules are written at the start of Snakemake.
        kind = type(node)
        if kind is ast.Name:
            return str(node.id)
        if kind is ast.Constant:
            return repr(node.value)
        if kind is ast.Attribute:
            return f"{self.text(node.value)}.{node.attr}"
        if kind is list:
            nodes = _statements(node) if node and isinstance(node[0], ast.stmt) else node
            return f"[{','.join([self.text(each) for each in nodes])}]"
        match node:
            case ast.Call(func=ast.Attribute(attr="literal"), args=[_, ast.Constant(value=str(name))]):
                self.reads.add(name)
        return (
            self._special(node) if kind in SPECIAL else self._fields(node) if isinstance(node, ast.AST) else repr(node)
        )

    def _special(self, node: ast.AST) -> str:
        match node:
            case ast.Raise(exc=ast.Call(func=error)):
                return f"Raise({self.text(error)})"
            case ast.Assert(test=test):
                return f"Assert({self.text(test)})"
            case ast.ImportFrom(module=module, names=names) if _is_own(node):
                self.imported += [f"{module}.{alias.name}" for alias in names]
                return f"import({self.text(names)})"
            case ast.ImportFrom(level=level) if level:
                raise ValueError(f"{ast.unparse(node)}: relative imports are not followed; write the full name")
            case ast.Import(names=names):
                self.imported += [alias.name for alias in names if alias.name.split(".")[0] == "indm"]
            case ast.ClassDef(body=body):
                fields = [self.text(field.annotation) for field in body if isinstance(field, ast.AnnAssign)]
                return f"{self._fields(node)}{fields}"
        return self._fields(node)

    def _fields(self, node: ast.AST) -> str:
        """Write the fields of a node that are not empty, since newer versions of Python have more."""
        found = [(name, getattr(node, name, None)) for name in node._fields if name not in LEFT_OUT]
        written = [f"{name}={self.text(value)}" for name, value in found if value is not None and value != []]
        return f"{type(node).__name__}({','.join(written)})"


def _statements(nodes: Iterable[ast.stmt]) -> list[Any]:
    """List the statements of a body that count, with imports from the package in the order of the names that they bind."""
    found: list[Any] = []
    for node in nodes:
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                pass
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=others):
                found += _statements(others)
            case _:
                found.append(node)
    own = iter(sorted(filter(_is_own, found), key=lambda node: [alias.asname or alias.name for alias in node.names]))
    return [next(own) if _is_own(node) else node for node in found]


def is_outside(name: str) -> bool:
    """Return whether a module, or something in it, belongs to one of the packages of which only the names that are used count."""
    parts = name.split(".")
    return not OUTSIDE.isdisjoint((".".join(parts[1:2]), ".".join(parts[1:3])))


def _is_own(node: ast.AST) -> bool:
    """Return whether a node imports names from this package."""
    return isinstance(node, ast.ImportFrom) and not node.level and str(node.module).split(".")[0] == "indm"


def _constants(tree: ast.Module) -> dict[str, ast.Assign]:
    """Return the assignments to a single name at the top level of a module, by their names."""
    found = {}
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)]):
                found[name] = node
    return found


def _name(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".") if path.endswith(".py") else path


@functools.cache
def sources() -> Sources:
    """Return the sources of this package, read once per execution, because imported modules do not change either."""
    found: dict[str, bytes] = {}
    for folder, folders, files in os.walk(ROOT / "indm"):
        folders[:] = [name for name in folders if name not in ("__pycache__", "shipped")]
        paths = [Path(folder, name) for name in files if not LITTER.fullmatch(name)]
        found |= {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in paths}
    return Sources(found)
