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
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent.parent
KEPT = ROOT / "indm" / "__pycache__" / "code-1.json"
# Not code behind a number: the version must not retrain everything at each release, errors and progress only report, and the
# description of the pipeline says which code a job has.
EXCLUDED = {"indm", "indm.errors", "indm.pipeline", "indm.progress", "indm.stamps"}
# Of a node: None of these changes what it computes, and the second is new in Python 3.12.
FIELDS_LEFT_OUT = {"ctx", "type_params", "type_comment", "kind"}


class Module(NamedTuple):
    """What a stamp needs of a module: the hash of its tree, and the names that it imports."""

    tree: str
    imports: list[str]


def stamp(*names: str) -> str:
    """Hash what modules and all that they import do.

    Arguments:
        names: modules of this package, such as ``indm.stages.train``.
    """
    return _Sources.now().stamp(frozenset(names))


def modules(*names: str) -> set[str]:
    """Name the modules that :func:`stamp` is of: those given, the packages around them, and what they import."""
    return _Sources.now().reachable(frozenset(names))


class _Sources:
    """The modules of this package as their files are, with a hash of all of them.

    Arguments:
        files: bytes of every file, by module; a package's other files are by its name and theirs.
    """

    def __init__(self, files: dict[str, tuple[bytes, ...]]) -> None:
        self._modules = _parsed(files)
        self._stamps: dict[frozenset[str], str] = {}

    @classmethod
    def now(cls) -> "_Sources":
        """Return the sources as they are, read once an execution: what it has imported does not change either."""
        return _read()

    def stamp(self, names: frozenset[str]) -> str:
        if names not in self._stamps:
            trees = [f"{name} {self._modules[name].tree}" for name in sorted(self.reachable(names))]
            self._stamps[names] = hashlib.sha256("\n".join(trees).encode()).hexdigest()
        return self._stamps[names]

    def reachable(self, names: frozenset[str]) -> set[str]:
        found: set[str] = set()
        queue = list(names)
        while queue:
            parts = queue.pop().split(".")
            # A name may be something in a module; the packages around a module are imported with it.
            for name in (".".join(parts[: i + 1]) for i in range(len(parts))):
                if name in self._modules and name not in found and name not in EXCLUDED:
                    found.add(name)
                    queue += self._modules[name].imports
        return found


@functools.cache
def _read() -> _Sources:
    files: dict[str, tuple[bytes, ...]] = {}
    for path in sorted((ROOT / "indm").rglob("*.py")):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        data: list[Path] = []
        if parts[-1] == "__init__":
            parts.pop()
            data = sorted(_data_files(path.parent))
        named = (str(file.relative_to(path.parent)).encode() + b"\0" + file.read_bytes() for file in data)
        files[".".join(parts)] = (path.read_bytes(), *named)
    return _Sources(files)


def _data_files(package: Path) -> Iterator[Path]:
    """Yield the files of a package that are no modules, those in its folders that are no packages included."""
    for path in package.iterdir():
        if path.is_dir() and path.name != "__pycache__" and not (path / "__init__.py").exists():
            yield from _data_files(path)
        elif path.is_file() and path.suffix not in (".py", ".pyc"):
            yield path


def _parsed(files: dict[str, tuple[bytes, ...]]) -> dict[str, Module]:
    """Parse modules, or know them by the hash of their bytes from an earlier execution."""
    kept = _load()
    found: dict[str, tuple[str, Module]] = {}
    for name, contents in files.items():
        sha256 = hashlib.sha256(b"\0".join(hashlib.sha256(content).digest() for content in contents)).hexdigest()
        known = kept.get(name)
        found[name] = (sha256, Module(*known[1]) if known and known[0] == sha256 else _module(name, contents))
    current = {name: [sha256, list(module)] for name, (sha256, module) in found.items()}
    if current != kept:
        _save(current)
    return {name: module for name, (_, module) in found.items()}


def _load() -> dict[str, Any]:
    try:
        content = json.loads(KEPT.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _save(content: dict[str, Any]) -> None:
    """Keep it where that is possible: it only saves time."""
    temporary = KEPT.with_suffix(f".{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        KEPT.parent.mkdir(exist_ok=True)
        temporary.write_text(json.dumps(content))
        temporary.replace(KEPT)


def _module(name: str, contents: tuple[bytes, ...]) -> Module:
    tree = ast.parse(contents[0])
    digest = hashlib.sha256()
    for piece in _serialised(tree):
        digest.update(piece.encode())
    for content in contents[1:]:
        digest.update(content)
    return Module(digest.hexdigest(), sorted(set(_imports(tree))))


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
            if not _is_text(item) and not _is_for_type_checkers(item):
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
            case ast.If() if _is_for_type_checkers(child):
                continue
            case ast.Import():
                yield from (alias.name for alias in child.names if alias.name.split(".")[0] == "indm")
            case ast.ImportFrom(level=0, module=str(module)) if module.split(".")[0] == "indm":
                yield from (f"{module}.{alias.name}" for alias in child.names)
            case ast.ImportFrom(level=level) if level:
                raise ValueError(f"{ast.unparse(child)}: relative imports are not followed; write the full name")
            case _:
                yield from _imports(child)
