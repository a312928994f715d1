r"""Which code makes a result: stamps of definitions, by what they compute and not by where or how they are written.

A definition is a function, a class or a constant at the top level of a module. Its hash covers its syntax tree, in which the hash
of the definition that it refers to stands for each reference:

.. math:: h(d) = \mathrm{SHA256}\big(\text{tree of } d,\ h(r_1), \dots, h(r_n)\big)

Definitions that refer to each other in a circle are hashed together. A name from a library counts by its qualified name. A stamp is
the hash of the definitions with which a job begins (:mod:`indm.stamps`).

Not counted: the names of definitions and modules, docstrings, comments, annotations, the arguments of ``raise`` and of
:func:`indm.progress.say`, and the rooms in ``OUTSIDE``, which store, report, check or schedule; of these only the names that are
used count, and by value the format of what is stored (``…FORMAT``). Counted with every definition of a module: its statements that
define nothing, such as a loop that adds to a table. Counted where a module names its own place (``__file__``): the files beside it
that are no modules. Names that are looked up while the program runs are not seen; ``tests/test_stamps.py`` forbids them.

A stamp is computed from the sources that are there, every time: it cannot be stale. ``__pycache__`` keeps what was read from each
file by the hash of its bytes, as Python keeps its bytecode.
"""

import ast
import contextlib
import functools
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from indm.errors import ArtifactError

ROOT = Path(__file__).parent.parent.parent
KEPT = ROOT / "indm" / "__pycache__" / "code.json"
OUTSIDE = {
    *("__main__", "cli", "doctor", "errors", "identity", "jobs", "kept", "library", "pipeline", "progress", "register"),
    *("registry", "shipped", "stamps", "store", "suite", "terminal", "track", "watching", "why"),
}
# Of a node: annotations, and what Python itself adds.
FIELDS_LEFT_OUT = {"annotation", "ctx", "kind", "returns", "type_comment", "type_params"}
# Each edit adds one. When there are more, everything is parsed again, in half a second.
MOST_KEPT = 1000
# What editors and patches leave beside a file.
LITTER = re.compile(r"[.#].*|.*(~|\.orig|\.rej|\.swp)")
# What stands for the statements of a module that define nothing, for all of a module, and for the files beside it.
STATEMENTS, WHOLE, FILES = "<statements>", "<module>", "__file__"
SAY = "indm.progress.say"

Names = Mapping[str, str | None]


class Definition(NamedTuple):
    """What a file says of a definition.

    Arguments:
        tree: the hash of its syntax tree without what it refers to.
        references: what it refers to, in the order of the tree: ``.name`` of the same module, or a qualified name.
        line: where it begins.
    """

    tree: str
    references: list[str]
    line: int


class Module(NamedTuple):
    """What a file says of a module: its definitions, its imports as qualified names, and what other statements name."""

    definitions: dict[str, Definition]
    imports: dict[str, str]
    bound: list[str]


class Place(NamedTuple):
    """Where a definition is."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Tree(Protocol):
    """The files below ``indm/``, by their paths from the top of a checkout."""

    def paths(self) -> Iterable[str]:
        """List the files."""

    def read(self, path: str) -> bytes:
        """Read one of them."""


class Folder:
    """The files of a checkout, as they are now.

    Arguments:
        root: its top.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def paths(self) -> Iterator[str]:
        """List the files, those behind links to folders left out."""
        for folder, folders, files in os.walk(self.root / "indm"):
            folders[:] = [name for name in folders if name != "__pycache__"]
            yield from ((Path(folder) / name).relative_to(self.root).as_posix() for name in files)

    def read(self, path: str) -> bytes:
        """Read one of them."""
        return (self.root / path).read_bytes()


class Commit:
    """The files of a commit.

    Arguments:
        root: the top of its checkout.
        commit: the commit.

    Raises:
        ArtifactError: if git cannot read it.
    """

    def __init__(self, root: Path, commit: str) -> None:
        self.root, self.commit = root, commit
        self._blobs: dict[str, str] = {}
        for entry in self._git("ls-tree", "-r", "-z", commit, "indm/").split(b"\0"):
            mode, _, rest = entry.decode().partition(" ")
            # Links point out of the package.
            if mode.startswith("100"):
                name, _, path = rest.partition("\t")
                self._blobs[path] = name.split()[1]

    def paths(self) -> Iterable[str]:
        """List the files."""
        return self._blobs

    def read(self, path: str) -> bytes:
        """Read one of them."""
        return self._git("cat-file", "blob", self._blobs[path])

    def _git(self, *arguments: str) -> bytes:
        try:
            done = subprocess.run(["git", "-C", str(self.root), *arguments], capture_output=True, check=False)
        except OSError as error:
            raise ArtifactError(f"commit {self.commit[:12]}: git does not run ({error.strerror}); install it") from None
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip().partition("\n")[0]
            raise ArtifactError(
                f"commit {self.commit[:12]}: git cannot read it here ({reason}); fetch it, as by git fetch --unshallow"
            )
        return done.stdout


def sources() -> "Sources":
    """Return the sources of this package, read once an execution: what it has imported does not change either."""
    return _sources(ROOT)


@functools.cache
def _sources(root: Path) -> "Sources":
    return Sources(Folder(root))


class Sources:
    """The modules of the package in a tree of files, each parsed when it is asked for.

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
        self._stamps: dict[tuple[str, ...], str] = {}
        self._hashes: dict[Place, str] = {}

    def stamp(self, *names: str) -> str:
        """Hash what definitions, by their qualified names, and all that they refer to compute.

        Raises:
            ArtifactError: if there is no such definition, or a module cannot be parsed.
        """
        if names not in self._stamps:
            places = self._places(names)
            for place in places:
                self._hash(place)
            self._stamps[names] = _sha256(*sorted(self._hashes[place] for place in places))
            self._save()
        return self._stamps[names]

    def reachable(self, *names: str) -> dict[Place, str]:
        """Hash each of these definitions and of all that they refer to by itself: by its tree and the names that it uses."""
        found: dict[Place, str] = {}
        queue = self._places(names)
        while queue:
            place = queue.pop()
            if place in found:
                continue
            links = self._links(place)
            # Else the first statement of a module would change all of its definitions.
            named = [link for link in links if not (isinstance(link, Place) and link.name == STATEMENTS)]
            words = [link.name if isinstance(link, Place) else link for link in named]
            found[place] = _sha256(self._own(place), *words)
            queue += [link for link in links if isinstance(link, Place)]
        self._save()
        return found

    def has(self, name: str) -> bool:
        """Tell whether there is a definition of a qualified name, here or in another file."""
        return isinstance(self._begin(name)[0], Place)

    def where(self, place: Place) -> str:
        """Say where a definition is: file and line."""
        path = self.files[place.module]
        known = self._module(place.module).definitions.get(place.name)
        return f"{path}:{known.line}" if known else path

    def _places(self, names: Iterable[str]) -> list[Place]:
        places = [self._begin(name) for name in names]
        if missing := [name for name, place in zip(names, places, strict=True) if not isinstance(place[0], Place)]:
            raise ArtifactError(f"indm/: found no {missing[0]}, expected it in the sources of this package")
        return [place for place, _ in places if isinstance(place, Place)]

    def _begin(self, name: str) -> tuple[Place | str, str]:
        """Find a definition by its qualified name; where it is not there, in the one file of that name which has it."""
        found = self._resolve(name)
        if isinstance(found[0], Place):
            return found
        *_, file, last = name.split(".")
        moved = [
            Place(module, last) for module in self.files if module.endswith(f".{file}") and self._defines(module, last)
        ]
        return (moved[0], "") if len(moved) == 1 else found

    def _defines(self, module: str, name: str) -> bool:
        return name in self._module(module).definitions

    def _hash(self, first: Place) -> None:
        """Hash a definition, and before it what it refers to: Tarjan's algorithm finds the circles."""
        order: dict[Place, int] = {}
        lowest: dict[Place, int] = {}
        stack: list[Place] = []
        work = [(first, iter(self._links(first)))] if first not in self._hashes else []
        while work:
            place, links = work[-1]
            if place not in order:
                order[place] = lowest[place] = len(order)
                stack.append(place)
            for link in links:
                if not isinstance(link, Place) or link in self._hashes:
                    continue
                if link not in order:
                    work.append((link, iter(self._links(link))))
                    break
                lowest[place] = min(lowest[place], order[link])
            else:
                work.pop()
                if work:
                    lowest[work[-1][0]] = min(lowest[work[-1][0]], lowest[place])
                if lowest[place] == order[place]:
                    at = stack.index(place)
                    self._hash_circle(stack[at:])
                    del stack[at:]

    def _hash_circle(self, circle: list[Place]) -> None:
        """Hash definitions that refer to each other, or one that stands alone.

        References inside of the circle count by their number in an order that depends on no name, unless two definitions are alike.
        """
        alone = {place: self._combined(place, dict.fromkeys(circle, "circle")) for place in circle}
        if len(circle) == 1:
            self._hashes |= alone
            return
        numbers = {place: str(i) for i, place in enumerate(sorted(circle, key=lambda place: (alone[place], place)))}
        whole = _sha256(*(self._combined(place, numbers) for place in numbers))
        for place, number in numbers.items():
            self._hashes[place] = _sha256(whole, number)

    def _combined(self, place: Place, inside: Mapping[Place, str]) -> str:
        links = self._links(place)
        words = (link if isinstance(link, str) else inside.get(link) or self._hashes[link] for link in links)
        return _sha256(self._own(place), *words)

    def _own(self, place: Place) -> str:
        """Return the hash of a definition's tree; of the files beside a module, of their names and contents."""
        if place.name == WHOLE:
            return WHOLE
        if place.name != FILES:
            return self._module(place.module).definitions[place.name].tree
        folder = self.files[place.module].rpartition("/")[0]
        packages = {path.rpartition("/")[0] for path in self.files.values()} - {folder}
        beside = [path for path in self._data if self._package(path, packages | {folder}) == folder]
        return _sha256(*(f"{path[len(folder) :]} {_sha256(self._tree.read(path))}" for path in beside))

    @staticmethod
    def _package(path: str, packages: set[str]) -> str:
        """Name the innermost package around a file."""
        while path and path not in packages:
            path = path.rpartition("/")[0]
        return path

    def _links(self, place: Place) -> list[Place | str]:
        """List what a definition refers to: definitions, and words for what is not followed."""
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
        """Find the definition behind a name, and the attributes of it that follow."""
        if path.startswith("."):
            return self._within(module, path[1:].split("."))
        parts = path.split(".")
        for count in range(len(parts), 0, -1):
            if (name := ".".join(parts[:count])) in self.files:
                return self._within(name, parts[count:])
        return path, ""

    def _within(self, module: str, parts: list[str]) -> tuple[Place | str, str]:
        """Find the definition behind names in a module; a word where the module is outside of what counts."""
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
        """Parse a module, or take what an earlier execution read from a file with the same bytes."""
        if name not in self._parsed:
            content = self._tree.read(self.files[name])
            key = _sha256(content)
            if key not in self._kept:
                try:
                    self._kept[key] = _parse(ast.parse(content))
                except (SyntaxError, ValueError) as error:
                    raise ArtifactError(f"{self.files[name]}: found {error}; expected a module of Python") from None
            definitions, *others = self._kept[key]
            self._parsed[name] = Module({name: Definition(*found) for name, found in definitions.items()}, *others)
        return self._parsed[name]

    def _save(self) -> None:
        """Store what was parsed if possible: it only saves time."""
        if len(self._kept) == self._known:
            return
        self._known = len(self._kept)
        temporary = KEPT.with_suffix(f".{os.getpid()}.tmp")
        with contextlib.suppress(OSError):
            KEPT.parent.mkdir(exist_ok=True)
            temporary.write_text(json.dumps({"by": _by(), "modules": self._kept}))
            temporary.replace(KEPT)


def is_outside(module: str) -> bool:
    """Tell whether a module belongs to a room of which nothing counts."""
    return module == "indm" or module.split(".")[1] in OUTSIDE


def _module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _load() -> dict[str, Any]:
    """Read what an earlier execution has parsed, if it did so by this very code."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        content = json.loads(KEPT.read_bytes())
        if content["by"] == _by() and len(content["modules"]) < MOST_KEPT:
            return dict(content["modules"])
    return {}


@functools.cache
def _by() -> str:
    return _sha256(Path(__file__).read_bytes())


def _sha256(*words: str | bytes) -> str:
    """Hash words; no two lists of words give the same bytes."""
    digest = hashlib.sha256()
    for word in words:
        content = word.encode() if isinstance(word, str) else word
        digest.update(b"%d:" % len(content) + content)
    return digest.hexdigest()


def _parse(tree: ast.Module) -> Module:
    """Read the definitions, imports and other statements of a module."""
    defined: dict[str, list[ast.stmt]] = {}
    rest: list[ast.stmt] = []
    for node in _statements(tree.body):
        names = names_defined(node)
        for name in names or ():
            defined.setdefault(name, []).append(node)
        if names is None:
            rest.append(node)
    bound = _bound(tree.body)
    imports = {name: path for name, path in bound.items() if path is not None}
    others = [name for name, path in bound.items() if path is None and name not in defined]
    known = {name: f".{name}" for name in (*defined, *others, FILES)} | imports
    definitions = {name: _definition(nodes, known) for name, nodes in defined.items()}
    if rest:
        definitions[STATEMENTS] = _definition(rest, known)
    return Module(definitions, imports, others)


def _definition(nodes: list[ast.stmt], known: Names) -> Definition:
    writer, scope = _Writer(), _Scope(known, known)
    for node in nodes:
        # Its name does not count. An assignment refers to itself by it.
        writer.write(node, scope, "name")
    return Definition(_sha256(*writer.words), writer.references, nodes[0].lineno)


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a body that count: no imports, no texts that stand for themselves, nothing for type checkers."""
    for node in body:
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant(value=str())):
                pass
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=others):
                yield from _statements(others)
            case _:
                yield node


def names_defined(node: ast.stmt) -> list[str] | None:
    """Name what a statement at the top level of a module defines, if that is all that it does."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.AnnAssign(target=ast.Name(id=name), value=value):
            return [name] if value else []
        case ast.Assign(targets=targets):
            flat = [item for target in targets for item in (target.elts if isinstance(target, ast.Tuple) else [target])]
            names = [item.id for item in flat if isinstance(item, ast.Name)]
            return names if len(names) == len(flat) else None
    return None


def _bound(body: Iterable[ast.AST]) -> dict[str, str | None]:
    """Find the names that statements bind in their own scope, with the qualified name of what is imported."""
    found: dict[str, str | None] = {}
    free: set[str] = set()
    queue = list(body)
    while queue:
        match node := queue.pop(0):
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=others):
                queue += others
                continue
            case ast.Import(names=names):
                found |= {item.asname or item.name.split(".")[0]: _imported(item) for item in names}
            case ast.ImportFrom(level=0, module=str(module), names=names):
                found |= {item.asname or item.name: f"{module}.{item.name}" for item in names}
            case ast.ImportFrom():
                raise ValueError(f"{ast.unparse(node)}: relative imports are not followed; write the full name")
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found[name] = None
                # Its body is a scope of its own.
                queue += node.decorator_list
                continue
            case ast.Lambda() | ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                found |= {inner.target.id: None for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr)}
                continue
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                free |= set(names)
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                found.setdefault(name, None)
            case (
                ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
                | ast.MatchMapping(rest=str(name))
            ):
                found[name] = None
        queue += ast.iter_child_nodes(node)
    return {name: path for name, path in found.items() if name not in free}


def _imported(item: ast.alias) -> str:
    return item.name if item.asname else item.name.split(".")[0]


class _Scope(NamedTuple):
    """What names mean: here, and in the functions that are defined here, which do not see those of a class."""

    here: Names
    inside: Names

    def function(self, bound: Names) -> "_Scope":
        names = {**self.inside, **bound}
        return _Scope(names, names)


class _Writer:
    """Writes a tree down, the same by every version of Python; what it refers to apart."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.references: list[str] = []

    def write(self, node: Any, scope: _Scope, *left_out: str) -> None:
        """Write a node without some of its fields, a list of nodes, or what else a node has in a field."""
        match node:
            case ast.Name() | ast.Attribute() if path := _path(node, scope.here):
                self._refer(path)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                self._function(node, scope, *left_out)
            case ast.ClassDef():
                self._class(node, scope, *left_out)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                targets = _bound(generator.target for generator in node.generators)
                self._fields(node, _Scope({**scope.here, **targets}, {**scope.inside, **targets}))
            case ast.Raise(exc=ast.Call(func=error)):
                self._fields(ast.Raise(error, None), scope)
            case ast.Raise(exc=error):
                self._fields(ast.Raise(error, None), scope)
            case ast.Assert(test=test):
                self._fields(ast.Assert(test, None), scope)
            case ast.Expr(value=ast.Call(func=said)) if _path(said, scope.here) == SAY:
                self.words.append("say")
            case ast.AST():
                self._fields(node, scope)
            case list():
                self.words.append("[")
                for item in _statements(node):
                    self.write(item, scope)
                self.words.append("]")
            case _:
                self.words.append(repr(node))

    def _refer(self, path: str) -> None:
        """Write a name: what belongs to this package is looked up later."""
        if path.startswith((".", "indm.")):
            self.words.append("reference")
            self.references.append(path)
        else:
            self.words.append(f"library {path}")

    def _fields(self, node: ast.AST, scope: _Scope, *left_out: str) -> None:
        """Write the fields of a node; empty ones are left out, since newer versions of Python have more."""
        self.words.append(f"({type(node).__name__}")
        for field, value in ast.iter_fields(node):
            if field not in FIELDS_LEFT_OUT and field not in left_out and value is not None and value != []:
                self.words.append(field)
                self.write(value, scope)
        self.words.append(")")

    def _function(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, scope: _Scope, *left_out: str
    ) -> None:
        """Write decorators and defaults where the function is defined, the rest in a scope of its own."""
        arguments = node.args
        listed = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        starred = [found for found in (arguments.vararg, arguments.kwarg) if found]
        self._fields(node, scope, "args", "body", *left_out)
        self.write([*arguments.defaults, *arguments.kw_defaults], scope)
        self._fields(arguments, scope, "defaults", "kw_defaults")
        body = node.body if isinstance(node.body, list) else [node.body]
        bound = _bound(body) | {argument.arg: None for argument in (*listed, *starred)}
        self.write(body, scope.function(bound))

    def _class(self, node: ast.ClassDef, scope: _Scope, *left_out: str) -> None:
        self._fields(node, scope, "body", *left_out)
        self.write(node.body, _Scope({**scope.inside, **_bound(node.body)}, scope.inside))


def _path(node: ast.AST, names: Names) -> str | None:
    """Return the qualified name that an expression is, such as ``torch.nn.Module``; none of a local variable."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute) and (path := _path(node.value, names)):
        return f"{path}.{node.attr}"
    return None
