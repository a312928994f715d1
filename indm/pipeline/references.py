"""The references between definitions of the package, by the modules in a tree of files; each is parsed when it is needed."""

import ast
import contextlib
import functools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from indm.errors import ArtifactError
from indm.pipeline import syntax
from indm.pipeline.syntax import FILES, STATEMENTS, WHOLE, Definition, Module, sha256
from indm.pipeline.trees import Tree

KEPT = Path(__file__).parents[1] / "__pycache__" / "code.txt"
OUTSIDE = {
    *(
        "__main__",
        "cli",
        "doctor",
        "errors",
        "kept",
        "library",
        "pipeline",
        "progress",
        "register",
        "registry",
        "shipped",
    ),
    *("store", "suite", "terminal", "watching"),
    # Modules of the pipeline in earlier commits, whose sources are hashed for results that were kept at these commits.
    *("identity", "jobs", "stamps", "track", "why"),
}
# Each edit of a file adds a line. When there are more, everything is parsed again, in half a second.
MOST_KEPT = 1000
# Leftovers of editors and patches.
LITTER = re.compile(r"[.#].*|.*(~|\.orig|\.rej|\.swp)")


class Place(NamedTuple):
    """Module and name of a definition."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class References:
    """The modules of the package in a tree of files, and the references of their definitions.

    Arguments:
        tree: the files.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        paths = sorted(path for path in tree.paths() if not LITTER.fullmatch(path.rpartition("/")[2]))
        self.files = {_module_name(path): path for path in paths if path.endswith(".py")}
        self._data = [path for path in paths if not path.endswith((".py", ".pyc"))]
        self._kept = _load()
        self._known = len(self._kept)
        self._parsed: dict[str, Module] = {}
        self._linked: dict[Place, list[Place | str]] = {}

    def where(self, place: Place) -> str:
        """Return the file and the line of a definition."""
        path = self.files[place.module]
        known = self._module(place.module).definitions.get(place.name)
        return f"{path}:{known.line}" if known else path

    def _defines(self, module: str, name: str) -> bool:
        return name in self._module(module).definitions

    def _own(self, place: Place) -> str:
        """Return the hash of a definition's tree; for the files next to a module, the hash of their names and contents."""
        if place.name == WHOLE:
            return WHOLE
        if place.name != FILES:
            return self._module(place.module).definitions[place.name].tree
        folder = self.files[place.module].rpartition("/")[0]
        packages = {path.rpartition("/")[0] for path in self.files.values()} - {folder}
        beside = [path for path in self._data if self._package(path, packages | {folder}) == folder]
        return sha256(*(f"{path[len(folder) :]} {sha256(self._tree.read(path))}" for path in beside))

    @staticmethod
    def _package(path: str, packages: set[str]) -> str:
        """Name the innermost package around a file."""
        while path and path not in packages:
            path = path.rpartition("/")[0]
        return path

    def _links(self, place: Place) -> list[Place | str]:
        """List the references of a definition: definitions, and text for references that are not followed."""
        if place not in self._linked:
            self._linked[place] = list(self._link(place))
        return self._linked[place]

    def _link(self, place: Place) -> Iterator[Place | str]:
        if place.name == FILES:
            return
        known = self._module(place.module).definitions
        if place.name == WHOLE:
            yield from (word for name in sorted(known) for word in (name, Place(place.module, name)))
            return
        for reference in known[place.name].references:
            found, rest = self._resolve(reference, place.module)
            yield found
            if rest:
                yield rest
        if place.name != STATEMENTS and STATEMENTS in known:
            yield Place(place.module, STATEMENTS)

    def _resolve(self, path: str, module: str = "") -> tuple[Place | str, str]:
        """Find the definition behind a name, and the attributes after it."""
        if path.startswith("."):
            return self._within(module, path[1:].split("."))
        parts = path.split(".")
        for count in range(len(parts), 0, -1):
            if (name := ".".join(parts[:count])) in self.files:
                return self._within(name, parts[count:])
        return path, ""

    def _within(self, module: str, parts: list[str]) -> tuple[Place | str, str]:
        """Find the definition behind names in a module; text if the module does not count."""
        name, rest = (parts or [WHOLE])[0], ".".join(parts[1:])
        if is_outside(module) and not name.endswith("FORMAT"):
            return f"outside {module.rpartition('.')[2] if name == WHOLE else name}", rest
        known = self._module(module)
        if name in known.definitions or name in (WHOLE, FILES):
            return Place(module, name), rest
        if name in known.imports:
            return self._resolve(".".join([known.imports[name], *parts[1:]]))
        return Place(module, STATEMENTS) if name in known.bound else ".".join(parts), rest

    def _module(self, name: str) -> Module:
        """Parse a module, or reuse the result of an earlier execution for the same bytes."""
        if name not in self._parsed:
            content = self._tree.read(self.files[name])
            key = sha256(content)
            if key not in self._kept:
                try:
                    self._kept[key] = json.dumps(syntax.parse(ast.parse(content)))
                except (SyntaxError, ValueError) as error:
                    raise ArtifactError(f"{self.files[name]}: found {error}, expected a Python module") from None
            definitions, *others = json.loads(self._kept[key])
            self._parsed[name] = Module({name: Definition(*found) for name, found in definitions.items()}, *others)
        return self._parsed[name]

    def _save(self) -> None:
        """Store the parsed modules if possible; they only save time."""
        if len(self._kept) == self._known:
            return
        self._known = len(self._kept)
        temporary = KEPT.with_suffix(f".{os.getpid()}.tmp")
        with contextlib.suppress(OSError):
            KEPT.parent.mkdir(exist_ok=True)
            temporary.write_text("".join(f"{key} {text}\n" for key, text in {"by": _by(), **self._kept}.items()))
            temporary.replace(KEPT)


def is_outside(module: str) -> bool:
    """Return whether a module belongs to a package that does not count."""
    return module == "indm" or module.split(".")[1] in OUTSIDE


def _module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _load() -> dict[str, str]:
    """Read the modules that an earlier execution has parsed, if it had the same code: a line for each file."""
    with contextlib.suppress(OSError, ValueError):
        # Few of the lines are needed, so each is decoded when it is used.
        by, *lines, end = KEPT.read_text().split("\n")
        # If the last line does not end, the file was cut off.
        if by == f"by {_by()}" and not end and len(lines) < MOST_KEPT:
            return {key: text for key, _, text in (line.partition(" ") for line in lines)}
    return {}


@functools.cache
def _by() -> str:
    return sha256(Path(syntax.__file__).read_bytes())
