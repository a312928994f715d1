r"""Which code makes a result: stamps of modules, by what they do and not by how they are written.

.. math:: \mathrm{stamp} = \mathrm{SHA256}\big(\{(m, \mathrm{SHA256}(\text{tree of } m)) : m \text{ reachable by imports}\}\big)

A tree is a module's syntax tree without comments, docstrings and what only type checkers see. Imports in functions count; what is
imported by a name in a variable does not, and is named by the caller (:mod:`indm.stamps`). A package's files that are no modules,
such as templates, count by their bytes.

A stamp is computed from the sources that are there, every time: it cannot be stale. What is kept in ``__pycache__`` is each file's
tree by the hash of its bytes, as Python keeps its bytecode.
"""

import ast
import contextlib
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from indm.errors import ArtifactError

ROOT = Path(__file__).parent.parent.parent
KEPT = ROOT / "indm" / "__pycache__" / "code.json"
# Not code behind a number: the version must not retrain everything at each release, errors and progress only report, and the
# description of the pipeline says which code a job has.
EXCLUDED = {"indm", "indm.errors", "indm.pipeline", "indm.progress", "indm.stamps"}
# Of a node: none of these changes what it computes, and the second is new in Python 3.12.
FIELDS_LEFT_OUT = {"ctx", "type_params", "type_comment", "kind"}
# Each edit adds one. When there are more, everything is parsed again, in a third of a second.
MOST_KEPT = 1000
# What editors and patches leave beside a file.
LITTER = re.compile(r"[.#].*|.*(~|\.orig|\.rej|\.swp)")


class Module(NamedTuple):
    """What a stamp needs of a module: the hash of its tree, and the names that it imports."""

    tree: str
    imports: list[str]


def stamp(*names: str) -> str:
    """Hash what modules and all that they import do.

    Arguments:
        names: modules of this package, such as ``indm.stages.train``.

    Raises:
        ArtifactError: if one of the modules cannot be parsed.
    """
    return _sources().stamp(frozenset(names))


def modules(*names: str) -> set[str]:
    """Name the modules that :func:`stamp` is of: those given, the packages around them, and what they import."""
    return _sources().reachable(frozenset(names))


@functools.cache
def _sources() -> "_Sources":
    """Read the sources once an execution: what it has imported does not change either."""
    return _Sources(ROOT)


class _Sources:
    """The modules of the package in a folder, each parsed when it is asked for.

    Arguments:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self._files = dict(_modules(root))
        self._kept = _load()
        self._parsed: dict[str, Module] = {}
        self._stamps: dict[frozenset[str], str] = {}

    def stamp(self, names: frozenset[str]) -> str:
        """Hash the trees of all reachable modules, by name."""
        if names not in self._stamps:
            trees = [f"{name} {self._module(name).tree}" for name in sorted(self.reachable(names))]
            self._stamps[names] = hashlib.sha256("\n".join(trees).encode()).hexdigest()
        return self._stamps[names]

    def reachable(self, names: frozenset[str]) -> set[str]:
        """Name the modules that are imported from some, and those."""
        found: set[str] = set()
        queue, known = list(names), len(self._kept)
        while queue:
            parts = queue.pop().split(".")
            # A name may be something in a module; the packages around a module are imported with it.
            for name in (".".join(parts[: i + 1]) for i in range(len(parts))):
                if name in self._files and name not in found and name not in EXCLUDED:
                    found.add(name)
                    queue += self._module(name).imports
        if len(self._kept) > known:
            _save(self._kept)
        return found

    def _module(self, name: str) -> Module:
        """Parse a module, or take what an earlier execution parsed of files with the same hash."""
        if name not in self._parsed:
            self._parsed[name] = self._parse(name)
        return self._parsed[name]

    def _parse(self, name: str) -> Module:
        contents = [path.read_bytes() for path in self._files[name]]
        labels = [path.name.encode() for path in self._files[name]]
        key = hashlib.sha256(b"".join(hashlib.sha256(item).digest() for item in (*labels, *contents))).hexdigest()
        if key not in self._kept:
            try:
                self._kept[key] = _parse(contents[0], zip(labels[1:], contents[1:], strict=True))
            except (SyntaxError, ValueError) as error:
                raise ArtifactError(f"{self._files[name][0]}: found {error}; expected a module of Python") from None
        return Module(*self._kept[key])


def _modules(root: Path) -> Iterator[tuple[str, list[Path]]]:
    """Yield each module's name and file; a package has its other files too, such as templates."""
    for path in sorted((root / "indm").rglob("*.py")):
        if LITTER.fullmatch(path.name):
            continue
        parts = list(path.relative_to(root).with_suffix("").parts)
        if parts[-1] == "__init__":
            yield ".".join(parts[:-1]), [path, *sorted(_data_files(path.parent))]
        else:
            yield ".".join(parts), [path]


def _data_files(package: Path) -> Iterator[Path]:
    """Yield the files of a package that are no modules, those in its folders that are no packages included."""
    for path in package.iterdir():
        if LITTER.fullmatch(path.name) or path.name == "__pycache__":
            continue
        if path.is_dir() and not (path / "__init__.py").exists():
            yield from _data_files(path)
        elif path.is_file() and path.suffix not in (".py", ".pyc"):
            yield path


def _parse(source: bytes, data: Iterable[tuple[bytes, bytes]]) -> tuple[str, list[str]]:
    """Hash a module's tree, and the names and contents of its data; find what it imports."""
    tree = ast.parse(source)
    digest = hashlib.sha256("".join(_serialised(tree)).encode())
    for label, content in data:
        digest.update(label + b"\0" + content)
    return digest.hexdigest(), sorted(set(_imports(tree)))


def _load() -> dict[str, Any]:
    """Read what an earlier execution has parsed, if it did so by this very code."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        content = json.loads(KEPT.read_bytes())
        if content["by"] == _own_sha256() and len(content["modules"]) < MOST_KEPT:
            return dict(content["modules"])
    return {}


def _save(kept: dict[str, Any]) -> None:
    """Store it if possible: it only saves time."""
    temporary = KEPT.with_suffix(f".{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        KEPT.parent.mkdir(exist_ok=True)
        temporary.write_text(json.dumps({"by": _own_sha256(), "modules": kept}))
        temporary.replace(KEPT)


@functools.cache
def _own_sha256() -> str:
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def _serialised(node: Any) -> Iterator[str]:
    """Write a tree down, the same by every version of Python: its nodes and what is in them, empty fields left out."""
    if isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for field, value in ast.iter_fields(node):
            if field not in FIELDS_LEFT_OUT and value is not None and value != []:
                yield f" {field}="
                yield from _serialised(value)
        yield ")"
    elif isinstance(node, list):
        yield "["
        for item in node:
            if _is_for_type_checkers(item):
                yield from map("".join, map(_serialised, item.orelse))
            elif not _is_text(item):
                yield from _serialised(item)
        yield "]"
    else:
        yield repr(node)


def _is_text(node: Any) -> bool:
    """Tell a docstring, or another text that stands for itself."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_for_type_checkers(node: Any) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _imports(node: ast.AST) -> Iterator[str]:
    """Yield the names that a tree imports, in functions too, but not for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.If(orelse=others) if _is_for_type_checkers(child):
                for other in others:
                    yield from _imports(ast.Module([other], []))
            case ast.Import():
                yield from (alias.name for alias in child.names if alias.name.split(".")[0] == "indm")
            case ast.ImportFrom(level=0, module=str(module)) if module.split(".")[0] == "indm":
                yield from (f"{module}.{alias.name}" for alias in child.names)
            case ast.ImportFrom(level=level) if level:
                raise ValueError(f"{ast.unparse(child)}: relative imports are not followed; write the full name")
            case _:
                yield from _imports(child)
