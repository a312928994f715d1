"""The definitions in a Python file, each with the hash of its syntax tree and its references."""

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

# Fields of a node that do not count: annotations, and fields that Python itself adds.
FIELDS_LEFT_OUT = {"annotation", "ctx", "kind", "returns", "type_comment", "type_params"}
# Names for the statements of a module outside of its definitions, for a whole module, and for the files next to it.
STATEMENTS, WHOLE, FILES = "<statements>", "<module>", "__file__"
SAY = "indm.progress.say"

Names = Mapping[str, str | None]


class Definition(NamedTuple):
    """A definition in a file.

    Arguments:
        tree: the hash of its syntax tree without its references.
        references: its references, in the order of the tree: ``.name`` in the same module, or a qualified name.
        line: its first line.
    """

    tree: str
    references: list[str]
    line: int


class Module(NamedTuple):
    """A module in a file: its definitions, its imports as qualified names, and names that other statements bind."""

    definitions: dict[str, Definition]
    imports: dict[str, str]
    bound: list[str]


def sha256(*words: str | bytes) -> str:
    """Hash words; no two lists of words give the same bytes."""
    digest = hashlib.sha256()
    for word in words:
        content = word.encode() if isinstance(word, str) else word
        digest.update(b"%d:" % len(content) + content)
    return digest.hexdigest()


def parse(tree: ast.Module) -> Module:
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
        # The name does not count. In an assignment it is a reference to the definition itself.
        writer.write(node, scope, "name")
    return Definition(sha256(*writer.words), writer.references, nodes[0].lineno)


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a body that count, which are not imports, docstrings or code for type checkers."""
    for node in body:
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant(value=str())):
                pass
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=others):
                yield from _statements(others)
            case _:
                yield node


def names_defined(node: ast.stmt) -> list[str] | None:
    """List the names that a statement at the top level of a module defines, or ``None`` if it does something else."""
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
    """Find the names that statements bind in their own scope, with the qualified names of imports."""
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
                # Its body has its own scope.
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
    """The meaning of names, here and in functions that are defined here, which do not see the names of a class."""

    here: Names
    inside: Names

    def function(self, bound: Names) -> "_Scope":
        names = {**self.inside, **bound}
        return _Scope(names, names)


class _Writer:
    """Writes a tree down, in the same way in every version of Python, and its references separately."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.references: list[str] = []

    def write(self, node: Any, scope: _Scope, *left_out: str) -> None:
        """Write a node without some of its fields, a list of nodes, or another value of a field."""
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
        """Write a name; names in this package are resolved later."""
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
        """Write decorators and defaults in the scope of the definition, and the rest in the function's own scope."""
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
    """Return the qualified name of an expression, such as ``torch.nn.Module``; ``None`` for a local variable."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute) and (path := _path(node.value, names)):
        return f"{path}.{node.attr}"
    return None
