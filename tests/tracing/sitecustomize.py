"""Notes in which files of the package an execution of it calls functions; Python imports this at its start, from PYTHONPATH.

Each function of the package begins with a note: a profiler, which Python calls for all of torch, takes seconds in each job.
"""

import ast
import atexit
import builtins
import json
import os
import sys
import time
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

CALLED: set[str] = set()
PACKAGE = f"{os.getcwd()}/indm/"
# The modules of the package that are being imported: they have constants that the job does not use.
IMPORTED: list[str] = []
GET_CODE, EXEC_MODULE = SourceFileLoader.get_code, SourceFileLoader.exec_module


def note(file: str) -> None:
    if not IMPORTED:
        CALLED.add(file)


class Noting(ast.NodeTransformer):
    """Begins each function of a file with its note."""

    def __init__(self, file: str) -> None:
        self.file = file

    def call(self) -> ast.expr:
        return ast.parse(f"_note({self.file!r})", mode="eval").body

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        # A docstring stays the first statement.
        node.body.insert(int(ast.get_docstring(node) is not None), ast.Expr(self.call()))
        return self.generic_visit(node)

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        node.body = ast.BoolOp(ast.Or(), [self.call(), node.body])
        return self.generic_visit(node)


def get_code(loader: SourceFileLoader, name: str) -> CodeType | None:
    if not loader.path.startswith(PACKAGE):
        return GET_CODE(loader, name)
    tree = Noting(loader.path.removeprefix(PACKAGE)).visit(ast.parse(loader.get_data(loader.path)))
    code: CodeType = compile(ast.fix_missing_locations(tree), loader.path, "exec", dont_inherit=True)
    return code


def exec_module(loader: SourceFileLoader, module: ModuleType) -> None:
    ours = [loader.path] if loader.path.startswith(PACKAGE) else []
    IMPORTED.extend(ours)
    try:
        EXEC_MODULE(loader, module)
    finally:
        del IMPORTED[len(IMPORTED) - len(ours) :]


def write() -> None:
    # A process that torch starts has other arguments than the command.
    if CALLED and "--suite" in sys.argv:
        # Numbers of processes come again.
        path = Path(os.environ["INDM_CALLED"]) / f"{os.getpid()}-{time.time_ns()}.json"
        path.write_text(json.dumps({"command": sys.argv[1:], "files": sorted(CALLED)}))


if "INDM_CALLED" in os.environ:
    vars(builtins)["_note"] = note
    SourceFileLoader.get_code, SourceFileLoader.exec_module = get_code, exec_module  # type: ignore[method-assign, assignment]
    atexit.register(write)
