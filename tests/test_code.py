"""Stamps of definitions: a matrix of small edits of a small package, each with the stages that it makes run again."""

import shutil
import subprocess
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from indm.errors import ArtifactError
from indm.pipeline import references
from indm.pipeline.code import Sources
from indm.pipeline.references import Place
from indm.pipeline.trees import Commit, Folder

STAGES = ("train", "sample", "table")
PACKAGE = {
    "__init__": '__version__ = "1.0"\n',
    "errors": "class BadInput(Exception):\n    pass\n",
    "progress": "def say(line):\n    print(line)\n",
    "store/__init__": "",
    "store/files": 'FORMAT = "file-1"\n\n\ndef write(path, content):\n    path.write_bytes(content)\n',
    "stages/__init__": "",
    "stages/train": """
        from indm.maths.flow import Flow
        from indm.maths.loss import loss, unused_by_sample
        from indm.progress import say
        from indm.store.files import FORMAT, write


        def run(path):
            \"\"\"Train.\"\"\"
            say("training")
            write(path, FORMAT, unused_by_sample(loss(Flow().forward(1.0))))
        """,
    "stages/sample": """
        from indm.maths import sampler
        from indm.maths.flow import Flow


        def run(path):
            return [sampler.step(x) for x in Flow().inverse(path)]
        """,
    "stages/table": """
        from pathlib import Path

        from indm.maths.tables import COLUMNS

        TEMPLATE = Path(__file__).parent / "table.html"


        def run(path):
            return TEMPLATE.read_text(), COLUMNS
        """,
    "maths/__init__": "",
    "maths/base": """
        from math import exp

        SCALE = 2.0


        class Base:
            bound = SCALE

            def forward(self, x):
                return exp(x) * self.bound
        """,
    "maths/flow": """
        from indm.errors import BadInput
        from indm.maths.base import Base
        from indm.maths.constants import STEPS, TOLERANCE


        def cached(function):
            return function


        class Flow(Base):
            def inverse(self, z, steps=STEPS, tolerance=TOLERANCE):
                if not z > 0:
                    raise BadInput(f"found {z}, expected a number above 0")
                return self.solve(z, lambda x: x * 0.5)

            @cached
            def solve(self, z, function):
                def once(x):
                    return z - function(x)

                return once(z)
        """,
    "maths/constants": "STEPS = 10\nTOLERANCE = 1e-5\nEPS = 1e-3\n",
    "maths/loss": """
        from __future__ import annotations

        from math import log

        from indm.maths.constants import EPS


        def loss(x: float) -> float:
            \"\"\"Return the loss.\"\"\"
            assert x == x, "not a number"
            return log(x + EPS) if x > 0 else even(x, 3)


        def even(x, n):
            return x if n == 0 else odd(x, n - 1)


        def odd(x, n):
            return -x if n == 0 else even(x, n - 1)


        def unused_by_sample(x):
            from math import sqrt

            return sqrt(x)


        def unused(x):
            return x
        """,
    "maths/sampler": "def step(x):\n    return x + noise(x)\n\n\ndef noise(x):\n    return 0.1 * x\n",
    "maths/tables": """
        COLUMNS = ["a"]
        for name in ("b", "c"):
            COLUMNS.append(name)
        COLUMNS += ["d"]
        WIDTHS = {}
        """,
}
DATA = {"stages/table.html": "<table>", "maths/notes.txt": "read by no one"}


class Edit(NamedTuple):
    """A small edit, and the stages whose stamps it changes."""

    what: str
    stages: set[str]
    file: str = ""
    old: str = ""
    new: str = ""
    more: Callable[[Path], object] | None = None

    def apply(self, root: Path) -> None:
        if self.file:
            path = root / "indm" / (self.file if "." in self.file else f"{self.file}.py")
            text = path.read_text()
            assert self.old in text, self.what
            path.write_text(text.replace(self.old, self.new) if self.old else text + self.new)
        if self.more is not None:
            self.more(root / "indm")


def rename(old: str, new: str) -> Callable[[Path], None]:
    """Move a module, and name its new place wherever it is imported."""

    def apply(package: Path) -> None:
        (package / f"{new}.py").parent.mkdir(exist_ok=True)
        (package / f"{old}.py").rename(package / f"{new}.py")
        before, after = (f"indm.{name.replace('/', '.')}" for name in (old, new))
        (room, _, name), (new_room, _, new_name) = before.rpartition("."), after.rpartition(".")
        for file in package.rglob("*.py"):
            text = file.read_text().replace(before, after)
            file.write_text(
                text.replace(f"from {room} import {name}\n", f"from {new_room} import {new_name} as {name}\n")
            )

    return apply


def split_loss(package: Path) -> None:
    """Move half of a circle of functions to a module of its own, and import it under another name."""
    text = (package / "maths/loss.py").read_text()
    half = text[text.index("def odd") : text.index("def unused_by_sample")]
    rest = text.replace(half, "").replace("odd(x", "other(x")
    (package / "maths/loss.py").write_text(
        rest.replace("import EPS", "import EPS\nfrom indm.maths.odds import odd as other")
    )
    (package / "maths/odds.py").write_text(f"from indm.maths.loss import even\n\n\n{half}")


def whole_module(package: Path) -> None:
    """Import a module where a function of it was imported."""
    file = package / "stages/train.py"
    text = file.read_text().replace("from indm.maths.loss import loss, unused_by_sample", "import indm.maths.loss as m")
    file.write_text(text.replace("unused_by_sample(loss(", "m.unused_by_sample(m.loss("))


def reexport(package: Path) -> None:
    """Import a class through another module."""
    (package / "maths/api.py").write_text("from indm.maths.flow import Flow as Map\n")
    file = package / "stages/sample.py"
    text = file.read_text().replace("from indm.maths.flow import Flow", "from indm.maths.api import Map")
    file.write_text(text.replace("Flow()", "Map()"))


def swap_constants(package: Path) -> None:
    """Give each of two constants, in two modules, the value of the other."""
    (package / "maths/base.py").write_text(
        (package / "maths/base.py").read_text().replace("SCALE = 2.0", "SCALE = 1e-3")
    )
    file = package / "maths/constants.py"
    file.write_text(file.read_text().replace("EPS = 1e-3", "EPS = 2.0"))


def rename_function(package: Path) -> None:
    for file in package.rglob("*.py"):
        file.write_text(file.read_text().replace("noise", "perturbation"))


def late_import(package: Path) -> None:
    """Import in the function what the module imported."""
    file = package / "maths/loss.py"
    text = file.read_text().replace("from indm.maths.constants import EPS\n", "")
    file.write_text(
        text.replace('    assert x == x, "not', '    from indm.maths.constants import EPS\n\n    assert x == x, "not')
    )


NOTHING: set[str] = set()
EDITS = [
    # Nothing runs again.
    Edit("a renamed module", NOTHING, more=rename("maths/loss", "maths/objective")),
    Edit("a module moved to another package", NOTHING, more=rename("maths/sampler", "sampling/steps")),
    Edit("a module split, half of a circle in each", NOTHING, more=split_loss),
    Edit("a module imported in place of its functions", NOTHING, more=whole_module),
    Edit("a class imported through another module, by another name", NOTHING, more=reexport),
    Edit("a renamed function", NOTHING, more=rename_function),
    Edit("an import moved into the function", NOTHING, more=late_import),
    Edit("an error's message", NOTHING, "maths/flow", "expected a number above 0", "expected more than 0"),
    Edit("an assertion's message", NOTHING, "maths/loss", '"not a number"', '"no number"'),
    Edit("a line for the user", NOTHING, "stages/train", '"training"', 'f"training {path}"'),
    Edit("a docstring", NOTHING, "maths/loss", "Return the loss.", "Compute the loss."),
    Edit("a comment", NOTHING, "maths/loss", "", "# A remark.\n"),
    Edit("an annotation", NOTHING, "maths/loss", "x: float", "x: int"),
    Edit("a result's annotation", NOTHING, "maths/loss", "-> float", "-> int"),
    Edit("an added function", NOTHING, "maths/loss", "", "\n\ndef added(x):\n    return x\n"),
    Edit("an added constant", NOTHING, "maths/constants", "", "ADDED = 3\n"),
    Edit("an unused function", NOTHING, "maths/loss", "def unused(x):\n    return x", "def unused(x):\n    return 2 * x"),
    Edit("what is imported for type checkers", NOTHING, "maths/loss", "", "\nif TYPE_CHECKING:\n    from torch import Tensor\n"),
    Edit("how something is stored", NOTHING, "store/files", "path.write_bytes(content)", "path.write_text(content)"),
    Edit("how a line is printed", NOTHING, "progress", "print(line)", "print(line, flush=True)"),
    Edit("the class of errors", NOTHING, "errors", "pass", "code = 3"),
    Edit("the version", NOTHING, "__init__", "1.0", "1.1"),
    Edit("a file that is not read", NOTHING, "maths/notes.txt", "no one", "nobody"),
    Edit("another member beside", NOTHING, more=lambda package: (package / "maths/another.py").write_text("FLOW = 1\n")),
    Edit("an unfinished module beside", NOTHING, more=lambda package: (package / "maths/odd.py").write_text("def (")),
    Edit("the order of definitions", NOTHING, "maths/constants", "STEPS = 10\nTOLERANCE = 1e-5", "TOLERANCE = 1e-5\nSTEPS = 10"),
    # What an edit feeds runs again.
    Edit("a formula", {"train"}, "maths/loss", "x + EPS", "x - EPS"),
    Edit("a formula in a circle", {"train"}, "maths/loss", "else even(x, n - 1)", "else even(x, n - 2)"),
    Edit("a condition", {"train"}, "maths/loss", "if x > 0", "if x >= 0"),
    Edit("the condition of an error", {"train", "sample"}, "maths/flow", "if not z > 0", "if not z >= 0"),
    Edit("the class of an error that is raised", {"train", "sample"}, "maths/flow", "raise BadInput(", "raise ValueError("),
    Edit("an assertion", {"train"}, "maths/loss", "x == x", "x != x"),
    Edit("a constant", {"train", "sample"}, "maths/constants", "STEPS = 10", "STEPS = 11"),
    Edit("a constant of one function", {"train"}, "maths/constants", "EPS = 1e-3", "EPS = 1e-4"),
    Edit("a default", {"train", "sample"}, "maths/flow", "tolerance=TOLERANCE", "tolerance=2 * TOLERANCE"),
    Edit("two defaults swapped", {"train", "sample"}, "maths/flow", "=STEPS, tolerance=TOLERANCE", "=TOLERANCE, tolerance=STEPS"),
    Edit("a base class", {"train", "sample"}, "maths/flow", "class Flow(Base)", "class Flow(object)"),
    Edit("a method of a base class", {"train", "sample"}, "maths/base", "exp(x) *", "exp(-x) *"),
    Edit("a class's own constant", {"train", "sample"}, "maths/base", "bound = SCALE", "bound = SCALE + 1"),
    Edit("a lambda", {"train", "sample"}, "maths/flow", "x * 0.5", "x * 0.25"),
    Edit("a nested function", {"train", "sample"}, "maths/flow", "z - function(x)", "z + function(x)"),
    Edit("a decorator taken away", {"train", "sample"}, "maths/flow", "    @cached\n", ""),
    Edit("what a decorator does", {"train", "sample"}, "maths/flow", "return function\n", "return print\n"),
    Edit("the library behind a name", {"train"}, "maths/loss", "from math import log", "from numpy import log"),
    Edit("the library behind a late name", {"train"}, "maths/loss", "from math import sqrt", "from math import cbrt as sqrt"),
    Edit("the library of a base class", {"train", "sample"}, "maths/base", "from math import exp", "from cmath import exp"),
    Edit("the definition behind a name", {"sample"}, "stages/sample", "sampler.step(x)", "sampler.noise(x)"),
    Edit("a function of a module that is imported whole", {"sample"}, "maths/sampler", "0.1 * x", "0.2 * x"),
    Edit("two constants of two modules swapped", {"train", "sample"}, more=swap_constants),
    Edit("a loop that adds to a table", {"table"}, "maths/tables", '("b", "c")', '("b",)'),
    Edit("what is added to a constant", {"table"}, "maths/tables", '+= ["d"]', '+= ["e"]'),
    Edit("a file that is read", {"table"}, "stages/table.html", "<table>", "<table class=wide>"),
    Edit("the format of what is stored", {"train"}, "store/files", "file-1", "file-2"),
    Edit("another function to store with", {"train"}, "stages/train", "write(path, FORMAT", "write_later(path, FORMAT"),
]  # fmt: skip


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("package")
    files = {f"{name}.py": textwrap.dedent(text) for name, text in PACKAGE.items()} | DATA
    for name, text in files.items():
        (root / "indm" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "indm" / name).write_text(text)
    return root


def by_definition(root: Path) -> dict[str, str]:
    sources = Sources(Folder(root))
    return {stage: sources.stamp(f"indm.stages.{stage}.run") for stage in STAGES}


def too_narrow(root: Path) -> dict[str, str]:
    """Stamp what a job begins with, and nothing that it refers to."""
    sources = Sources(Folder(root))
    found = {stage: sources.reachable(f"indm.stages.{stage}.run") for stage in STAGES}
    return {stage: hashes[Place(f"indm.stages.{stage}", "run")] for stage, hashes in found.items()}


def too_wide(root: Path) -> dict[str, str]:
    """Stamp every byte."""
    return dict.fromkeys(STAGES, "".join(file.read_text() for file in sorted((root / "indm").rglob("*.*"))))


def changed(edit: Edit, package: Path, root: Path, stamps: Callable[[Path], Mapping[str, str]]) -> set[str]:
    shutil.copytree(package, root, dirs_exist_ok=True)
    before = stamps(root)
    edit.apply(root)
    after = stamps(root)
    return {stage for stage in STAGES if before[stage] != after[stage]}


@pytest.fixture(autouse=True)
def _nothing_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "KEPT", tmp_path / "kept" / "code.txt")


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.what)
def test_an_edit_runs_again_what_it_feeds(edit: Edit, package: Path, tmp_path: Path) -> None:
    assert changed(edit, package, tmp_path / "edited", by_definition) == edit.stages


@pytest.mark.parametrize(("stamps", "runs"), [(too_narrow, True), (too_wide, False)])
def test_the_matrix_fails_on_stamps_that_are_too_narrow_or_too_wide(
    stamps: Callable[[Path], Mapping[str, str]], runs: bool, package: Path, tmp_path: Path
) -> None:
    half = [edit for edit in EDITS if bool(edit.stages) is runs]
    wrong = [edit for i, edit in enumerate(half) if changed(edit, package, tmp_path / str(i), stamps) != edit.stages]
    assert len(wrong) > len(half) / 2


def test_what_changed_is_named_with_its_place(package: Path, tmp_path: Path) -> None:
    shutil.copytree(package, tmp_path / "edited")
    before = Sources(Folder(package)).reachable("indm.stages.train.run")
    edit = next(edit for edit in EDITS if edit.what == "a formula")
    edit.apply(tmp_path / "edited")
    after = Sources(Folder(tmp_path / "edited"))
    found = after.reachable("indm.stages.train.run")
    # By itself, and not with all that refers to it.
    assert [place for place in found if before.get(place) != found[place]] == [Place("indm.maths.loss", "loss")]
    assert after.where(Place("indm.maths.loss", "loss")) == "indm/maths/loss.py:9"


def test_what_is_kept_of_an_earlier_execution_and_was_cut_off_is_made_again(package: Path) -> None:
    before, kept = by_definition(package), references.KEPT.read_text()
    references.KEPT.write_text(kept[: len(kept) // 2])
    assert by_definition(package) == before
    assert references.KEPT.read_text() == kept


def test_a_name_that_is_not_there_is_one_line(package: Path) -> None:
    with pytest.raises(
        ArtifactError, match=r"found no definition indm\.stages\.other\.run, expected one in the sources"
    ):
        Sources(Folder(package)).stamp("indm.stages.other.run")


def test_a_commit_has_the_stamps_of_its_files(package: Path, tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    shutil.copytree(package, root)
    before = by_definition(root)
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", "-C", str(root), *command], check=True)
    shutil.rmtree(root / "indm")
    sources = Sources(Commit(root, "HEAD"))
    assert {stage: sources.stamp(f"indm.stages.{stage}.run") for stage in STAGES} == before
