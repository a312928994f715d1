"""The code behind a job: the modules that its stage and its registered members import, each hashed by its syntax tree.

One rule says what counts: code counts if it lies in science or in a stage (:data:`COUNTED`). With a module, every module counts
that it imports, except for type checkers: by ``from``, by ``import`` and by ``*``, with the ``__init__.py`` of each package on the
way. If it uses ``__file__``, all files in its folder that are not modules count.
Its hash does not count docstrings, comments, layout, messages of errors, or annotations of functions and variables; annotations of
a class's fields count, since they can decide what the class does. It counts imported names and their aliases, but not the name of
the module that has them: a stamp numbers modules in the order in which they are found, so that a module can be renamed.

Of what stores, checks, schedules or talks to people, only the names that are used count.
"""

import ast
import functools
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from indm.errors import ArtifactError

ROOT = Path(__file__).parents[3]
# The rooms that count: science,
COUNTED = {"arrays", "data", "densities", "diffusion", "facts", "flows", "measured", "metrics", "networks", "process"}
COUNTED |= {"released", "seeding", "training", "variants"}
# the stages, with the models, the trials and the comparisons of entries that they run, and what they report.
COUNTED |= {"bench.entries", "bench.models", "bench.stages", "bench.trials", "bench.tuning", "report"}
# Results cannot depend on these fields, or newer versions of Python add them.
LEFT_OUT = {"annotation", "ctx", "kind", "returns", "type_comment", "type_params"}
# Kinds of nodes whose fields do not all count, or that name modules.
SPECIAL = {ast.Raise, ast.Assert, ast.ImportFrom, ast.Import, ast.ClassDef}
# Files that editors and patches leave.
LITTER = re.compile(r"[.#].*|.*(~|\.orig|\.rej|\.swp)")


def counts(name: str) -> bool:
    """Return whether a module, or something in it, lies in science or in a stage."""
    parts = name.split(".")
    return not COUNTED.isdisjoint((".".join(parts[1:2]), ".".join(parts[1:3])))


class Module(NamedTuple):
    """A module or a file of data: the hash of its content, empty without statements, and the modules and files that it imports."""

    sha256: str
    imports: tuple[str, ...] = ()


class Sources:
    """The modules of the package in a tree of files, by their paths from the top of the checkout."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = {_name(path): content for path, content in files.items() if not LITTER.fullmatch(Path(path).name)}
        self._known: dict[str, Module] = {}
        self._stamps: dict[tuple[str, ...], str] = {}

    def modules(self, *names: str) -> dict[str, str]:
        """Return the hash of each module, and of each file of data, behind modules of these names, by its name."""
        return {name: module.sha256 for name, module in sorted(self._behind(names).items())}

    def counted(self) -> list[str]:
        """List the modules that count."""
        return sorted(name for name in self._files if "/" not in name and counts(name))

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
        """Yield what counts of the packages on the way to a module, or to something in it, and of the module."""
        parts = name.split(".")
        for count in range(2, len(parts) + 1):
            path = ".".join(parts[:count])
            yield from (found for found in (f"{path}.__init__", path) if found in self._files and counts(path))

    def _module(self, name: str) -> Module:
        if name not in self._known:
            self._known[name] = self._read(name)
        return self._known[name]

    def _read(self, name: str) -> Module:
        content = self._files[name]
        if "/" in name:
            return Module(hashlib.sha256(name.encode() + content).hexdigest())
        path = f"{name.replace('.', '/')}.py"
        try:
            sha256, imported = hashed(ast.parse(content).body)
        except (SyntaxError, ValueError) as error:
            raise ArtifactError(f"{path}: found {error}, expected a Python module") from None
        imports = [module for each in imported for module in self._way(each)]
        if b"__file__" in content:
            imports += sorted(file for file in self._files if file.startswith(path.rpartition("/")[0] + "/"))
        return Module(sha256, tuple(imports))


def hashed(body: list[ast.stmt]) -> tuple[str, list[str]]:
    """Hash the statements of a module, and list the names that they import from the package; without statements the hash is empty.

    Raises:
        ValueError: if an import is relative.
    """
    writer = _Writer()
    text = writer.text(body)
    return hashlib.sha256(text.encode()).hexdigest() if text != "[]" else "", writer.imported


class _Writer:
    """Writes the parts of a tree down on which a result can depend, in the same way in every version of Python."""

    def __init__(self) -> None:
        self.imported: list[str] = []

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
        if kind in SPECIAL:
            return self._special(node)
        return self._fields(node) if isinstance(node, ast.AST) else repr(node)

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


def _is_own(node: ast.AST) -> bool:
    """Return whether a node imports names from this package."""
    return isinstance(node, ast.ImportFrom) and not node.level and str(node.module).split(".")[0] == "indm"


def _name(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".") if path.endswith(".py") else path


@functools.cache
def sources() -> Sources:
    """Return the sources of this package, read once per execution, because imported modules do not change either."""
    found: dict[str, bytes] = {}
    for folder, folders, files in os.walk(ROOT / "indm", followlinks=True):
        folders[:] = [name for name in folders if name not in ("__pycache__", "shipped")]
        paths = [Path(folder, name) for name in files if not LITTER.fullmatch(name)]
        found |= {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in paths}
    return Sources(found)
