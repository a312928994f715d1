"""Hashes of modules: a matrix of small edits of a small package, each with the stages that it makes run again."""

import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from indm.bench.pipeline import code
from indm.bench.pipeline.code import Sources
from indm.errors import ArtifactError

Files = dict[str, str]
STAGES = ("train", "sample", "table")
MODULES = {
    "__init__": '"""A package."""\n\n__version__ = "1.0"\n',
    "errors": "class BadInput(Exception):\n    pass\n",
    "store/__init__": "",
    "store/files": "def write(path, content):\n    path.write_bytes(content)\n",
    "bench/stages/__init__": "",
    "bench/stages/train": """
        from indm.training.flow import Flow
        from indm.training.loss import loss
        from indm.store.files import write


        def run(path):
            \"\"\"Train.\"\"\"
            import indm.training.late
            write(path, loss(Flow().forward(1.0)))
        """,
    "bench/stages/sample": """
        import indm.training.whole as whole
        from indm import measured
        from indm.training import sampler
        from indm.training.flow import Flow
        from indm.training.left import step
        from indm.training.right import step as other


        def run(path):
            return step(path) - other(path), [sampler.step(whole.twice(x)) for x in measured.draw(Flow())]
        """,
    "bench/stages/table": """
        from pathlib import Path

        from indm.facts import LABEL
        from indm.report.rows import *

        TEMPLATE = Path(__file__).parent / "table.html"


        def run(path):
            return TEMPLATE.read_text(), rows(LABEL)
        """,
    "measured": "def draw(x):\n    return x\n",
    "training/__init__": '"""Formulas."""\n',
    "training/deep/__init__": "",
    "training/deep/base": "SCALE = 2.0\n\n\nclass Base:\n    bound: float = SCALE\n\n    def forward(self, x):\n        return x\n",
    "training/registered/__init__": "",
    "facts": 'LABEL = "One"\n',
    "training/flow": """
        from __future__ import annotations

        from typing import TYPE_CHECKING

        from indm.errors import BadInput
        from indm.training.deep.base import SCALE, Base

        if TYPE_CHECKING:
            from indm.training.unused import Other


        def cached(function):
            return function


        class Flow(Base):
            @cached
            def inverse(self, z: float, tolerance=1e-5) -> float:
                \"\"\"Invert.\"\"\"
                steps: int = 10
                assert z == z, "not a number"
                if not z > 0:
                    raise BadInput(f"found {z}, expected a number above 0")
                return z / SCALE * steps
        """,
    "training/loss": "from indm.training.levels import up as rounded\n\n\ndef loss(x):\n    return rounded(x)\n",
    "training/levels": """
        from indm.training.loss import loss


        def up(x):
            return x + 1


        def down(x):
            return loss(x - 1)
        """,
    "training/left": "def step(x):\n    return x\n",
    "training/right": "def step(x):\n    return -x\n",
    "training/late": "LATE = 1\n",
    "training/sampler": "def step(x):\n    return 0.1 * x\n",
    "training/unused": "class Other:\n    pass\n",
    "training/whole": "def twice(x):\n    return 2 * x\n",
    "report/__init__": "",
    "report/rows": "def rows(x):\n    return [x]\n",
}
DATA = {"indm/bench/stages/table.html": "<table>", "indm/training/notes.txt": "read by no one"}
PACKAGE = {f"indm/{name}.py": textwrap.dedent(text) for name, text in MODULES.items()} | DATA


class Edit(NamedTuple):
    """A small edit, and the stages whose stamps it changes: a text in a file is replaced, or, if it is empty, added to the file."""

    what: str
    stages: set[str]
    file: str = ""
    old: str = ""
    new: str = ""
    more: Callable[[Files], Files] | None = None

    def apply(self) -> Files:
        if self.more is not None:
            return self.more(PACKAGE)
        path = f"indm/{self.file if '.' in self.file else f'{self.file}.py'}"
        text = PACKAGE.get(path, "")
        assert self.old in text, self.what
        return PACKAGE | {path: text.replace(self.old, self.new) if self.old else text + self.new}


def rename(old: str, new: str) -> Callable[[Files], Files]:
    """Move a module, and name its new place wherever it is imported."""

    def apply(files: Files) -> Files:
        (before, name), (after, new_name) = (
            (f"indm.{path.replace('/', '.')}".rpartition(".")[::2]) for path in (old, new)
        )
        found = {path.replace(f"indm/{old}.py", f"indm/{new}.py"): text for path, text in files.items()}
        for path, text in found.items():
            text = text.replace(f"from {before} import {name}\n", f"from {after} import {new_name} as {name}\n")
            found[path] = re.sub(rf"\b{before}\.{name}\b", f"{after}.{new_name}", text)
        return found

    return apply


def swap_imports(files: Files) -> Files:
    """Name a module first that was imported second."""
    lines = files["indm/training/flow.py"].split("\n")
    first, second = (next(i for i, line in enumerate(lines) if name in line) for name in ("BadInput", "deep.base"))
    lines[first], lines[second] = lines[second], lines[first]
    return files | {"indm/training/flow.py": "\n".join(lines)}


def swap_modules(files: Files) -> Files:
    """Swap the modules from which a name is imported twice, once under another name."""
    swapped = files["indm/bench/stages/sample.py"].replace("left", "?").replace("right", "left").replace("?", "right")
    return files | {"indm/bench/stages/sample.py": swapped}


def rename_class(files: Files) -> Files:
    return {path: text.replace("Flow", "Map") for path, text in files.items()}


FLOW, EFFECT = {"train", "sample"}, "import torch\n\ntorch.set_default_dtype(torch.float64)\n"
NOTHING: set[str] = set()
EDITS = [
    Edit("a renamed module", NOTHING, more=rename("training/levels", "training/a_first_one")),
    Edit("a module moved to another package", NOTHING, more=rename("training/loss", "training/deep/objective")),
    Edit("the order of imports", NOTHING, more=swap_imports),
    Edit("an error's message", NOTHING, "training/flow", "expected a number above 0", "expected more than 0"),
    Edit("a docstring", NOTHING, "training/flow", "Invert.", "Compute the inverse."),
    Edit("a comment", NOTHING, "training/loss", "", "# A remark.\n"),
    Edit("the layout", NOTHING, "training/sampler", "0.1 * x", "(\n        0.1\n        * x\n    )"),
    Edit("an argument's annotation", NOTHING, "training/flow", "z: float", "z: int"),
    Edit("a variable's annotation", NOTHING, "training/flow", "steps: int", "steps: float"),
    Edit("what is imported for type checkers", NOTHING, "training/unused", "pass", "other = 1"),
    Edit("how something is stored", NOTHING, "store/files", "path.write_bytes(content)", "path.write_text(content)"),
    Edit("the version", NOTHING, "__init__", "1.0", "1.1"),
    Edit("a file that is not read", NOTHING, "training/notes.txt", "no one", "nobody"),
    Edit("what an editor leaves", NOTHING, "bench/stages/.table.html.swp", "", "x"),
    Edit("an unfinished module beside", NOTHING, "training/registered/two", "", "def ("),
    Edit("a formula three calls away", {"train"}, "training/levels", "x + 1", "x + 2"),
    Edit("the condition of an error", FLOW, "training/flow", "if not z > 0", "if not z >= 0"),
    Edit("the class of an error that is raised", FLOW, "training/flow", "raise BadInput(", "raise ValueError("),
    Edit("an assertion", FLOW, "training/flow", "z == z", "z != z"),
    Edit("a constant", FLOW, "training/deep/base", "SCALE = 2.0", "SCALE = 3.0"),
    Edit("a default", FLOW, "training/flow", "tolerance=1e-5", "tolerance=1e-6"),
    Edit("a base class", FLOW, "training/flow", "Flow(Base)", "Flow(object)"),
    Edit("a decorator taken away", FLOW, "training/flow", "    @cached\n", ""),
    Edit("a renamed class, whose name may seed numbers", FLOW, more=rename_class),
    Edit("the annotation of a field", FLOW, "training/deep/base", "bound: float", "bound: ClassVar[float]"),
    Edit("another name under the same alias", {"train"}, "training/loss", "import up as rounded", "import down as rounded"),
    Edit("a module that is imported late", {"train"}, "training/late", "LATE = 1", "LATE = 2"),
    Edit("a module that is imported whole", {"sample"}, "training/whole", "2 * x", "3 * x"),
    Edit("a module from the package itself", {"sample"}, "measured", "return x", "return -x"),
    Edit("a module that is imported from its package", {"sample"}, "training/sampler", "0.1 * x", "0.2 * x"),
    Edit("a module of which all names are imported", {"table"}, "report/rows", "[x]", "[x, x]"),
    Edit("which of two modules a name is from", {"sample"}, more=swap_modules),
    Edit("the package itself, which only names", NOTHING, "__init__", "", EFFECT),
    Edit("a package on the way", FLOW, "training/__init__", "", EFFECT),
    Edit("a package on the way to one module", FLOW, "training/deep/__init__", "", EFFECT),
    Edit("a package on the way to all names of a module", {"table"}, "report/__init__", "", EFFECT),
    Edit("a file that is read", {"table"}, "bench/stages/table.html", "<table>", "<table class=wide>"),
    Edit("a constant from a table of facts", {"table"}, "facts", "One", "First"),
]  # fmt: skip


def stamps(files: Files) -> dict[str, str]:
    found = Sources({path: text.encode() for path, text in files.items()})
    return {stage: found.stamp(f"indm.bench.stages.{stage}") for stage in STAGES}


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.what)
def test_an_edit_runs_again_what_it_feeds(edit: Edit) -> None:
    before, after = stamps(PACKAGE), stamps(edit.apply())
    assert {stage for stage in STAGES if before[stage] != after[stage]} == edit.stages


def modules(files: Files, *names: str) -> dict[str, str]:
    return Sources({path: text.encode() for path, text in files.items()}).modules(*names)


def test_what_changed_is_one_module_and_not_those_that_import_it() -> None:
    edit = next(edit for edit in EDITS if edit.what == "a formula three calls away")
    before, after = (modules(files, "indm.bench.stages.train") for files in (PACKAGE, edit.apply()))
    assert {name for name in after if before[name] != after[name]} == {"indm.training.levels"}


def test_modules_are_those_with_statements_and_the_data_beside_them() -> None:
    assert modules(PACKAGE, "indm.bench.stages.table").keys() == {
        "indm.bench.stages.table",
        "indm.facts",
        "indm.report.rows",
        "indm/bench/stages/table.html",
    }


def test_a_relative_import_and_what_is_no_python_are_one_line() -> None:
    for text, found in (("from . import flow\n", "relative imports are not followed"), ("def (", "invalid syntax")):
        with pytest.raises(ArtifactError, match=rf"indm/training/loss\.py.*{found}"):
            stamps(PACKAGE | {"indm/training/loss.py": text})


def test_the_package_has_the_hashes_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in PACKAGE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(code, "ROOT", tmp_path)
    names = [f"indm.bench.stages.{stage}" for stage in STAGES]
    assert code.sources.__wrapped__().modules(*names) == modules(PACKAGE, *names)
    # A folder may be a link.
    (tmp_path / "indm/training").rename(tmp_path / "elsewhere")
    (tmp_path / "indm/training").symlink_to(tmp_path / "elsewhere")
    assert code.sources.__wrapped__().modules(*names) == modules(PACKAGE, *names)
