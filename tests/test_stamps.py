"""Stamps of code: what changes them, and what does not."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from indm.errors import ArtifactError, ParamsError
from indm.pipeline import STAGES, gathering
from indm.stamps import STARTED, check_started, job_stamp, members, remember_start, suite_stamps
from indm.store import code
from indm.store.code import EXCLUDED, modules
from indm.suite.load import load_suite
from tests.conftest import REPOSITORY

SUITE = load_suite(REPOSITORY / "params/smoke.yaml")
INDM = {f"digits-{run}-s0" for run in ("ve-indm-fid", "vp-indm-fid", "vp-indm-nll")}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for folder in ("indm", "params"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=ignored)
    return tmp_path


def stamps(checkout: Path) -> dict[str, str]:
    """Compute the stamp of each job from the sources of a checkout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code, "ROOT", checkout)
        patch.setattr(code, "KEPT", checkout / "indm/__pycache__/code.json")
        code._sources.cache_clear()
        try:
            return dict(suite_stamps(SUITE))
        finally:
            code._sources.cache_clear()


def changed(checkout: Path, edit: Callable[[], object]) -> set[str]:
    """Name the jobs whose stamps an edit changes."""
    before = stamps(checkout)
    edit()
    after = stamps(checkout)
    assert before.keys() == after.keys()
    return {job for job in before if before[job] != after[job]}


def append(file: Path, text: str) -> Callable[[], object]:
    return lambda: file.write_text(file.read_text() + text)


def test_every_job_has_a_stamp(checkout: Path) -> None:
    jobs = {
        "/".join(filter(None, (name, subject))) for name, stage in STAGES.items() for subject in stage.subjects(SUITE)
    }
    assert stamps(checkout).keys() == jobs
    # What is kept in __pycache__ changes nothing.
    assert (checkout / "indm/__pycache__").is_dir()
    first = stamps(checkout)
    shutil.rmtree(checkout / "indm/__pycache__")
    assert stamps(checkout) == first


def test_docstrings_comments_and_layout_change_no_stamp(checkout: Path) -> None:
    def edit() -> None:
        for file in (checkout / "indm").rglob("*.py"):
            text = re.sub(r'^(\s*r?""")(?=\w)', r"\1Edited. ", file.read_text(), flags=re.MULTILINE)
            file.write_text(f"{text}\n\n\n# A comment.\n")

    assert changed(checkout, edit) == set()


def test_a_new_member_of_a_registry_changes_no_stamp(checkout: Path) -> None:
    def edit() -> None:
        for folder, attribute in (
            ("data", "DATASET"),
            ("flows", "FLOW"),
            ("networks", "NETWORK"),
            ("diffusion", "DIFFUSION"),
        ):
            (checkout / f"indm/{folder}/registered/another.py").write_text(f"{attribute} = None\n")

    assert changed(checkout, edit) == set()


def test_an_edited_sampler_is_of_the_jobs_that_draw(checkout: Path) -> None:
    jobs = changed(checkout, append(checkout / "indm/diffusion/samplers.py", "\nEDITED = True\n"))
    assert {job.split("/")[0] for job in jobs} == {"sample", "sweep", "tune", "protocol", "toy2d"}


def test_an_edited_flow_is_of_the_models_that_have_it(checkout: Path) -> None:
    jobs = changed(checkout, append(checkout / "indm/flows/registered/resflow.py", "\nEDITED = True\n"))
    runs = {job.split("/")[1] for job in jobs if job != "protocol/digits"}
    assert runs == INDM
    assert {job.split("/")[0] for job in jobs} == {"train", "sample", "nll", "curve", "sweep", "tune", "protocol"}


def test_an_edited_dataset_is_of_its_preparation(checkout: Path) -> None:
    """What comes after depends on the arrays."""
    jobs = changed(checkout, append(checkout / "indm/data/registered/digits.py", "\nEDITED = True\n"))
    assert jobs == {"prepare/digits"}


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("indm/report/page/templates/style.css", {"report"}),
        ("indm/__init__.py", set()),
        ("indm/errors.py", set()),
        ("indm/pipeline.py", set()),
        ("indm/stages/nll.py", {"nll"}),
        # The page reads the suite as its registered commit has it.
        ("indm/suite/schema/train.py", {"report"}),
    ],
)
def test_an_edited_file_is_of_the_stages_that_it_makes(checkout: Path, file: str, stages: set[str]) -> None:
    jobs = changed(checkout, append(checkout / file, "\nEDITED = 1\n"))
    assert {job.split("/")[0] for job in jobs} == stages


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("    from torchdiffeq import odeint\n", "    from torchdiffeq import odeint  # late\n", True),
        ("    from torchdiffeq import odeint\n", "    from torchdiffeq import odeint_adjoint as odeint\n", False),
        ("2 * step", "3 * step", False),
    ],
)
def test_an_edited_line(checkout: Path, old: str, new: str, same: bool) -> None:
    folder = checkout / "indm/diffusion"
    (file,) = [path for path in (folder / "adaptive.py", folder / "steps.py") if old in path.read_text()]
    assert bool(changed(checkout, lambda: file.write_text(file.read_text().replace(old, new)))) is not same


def test_a_module_imported_in_a_function_counts_and_one_for_type_checkers_does_not(checkout: Path) -> None:
    (checkout / "indm/late.py").write_text("X = 1\n")
    file = checkout / "indm/stages/compute.py"
    append(file, "\n\ndef late() -> None:\n    import indm.late\n")()
    assert changed(checkout, append(checkout / "indm/late.py", "X = 2\n")) == {"compute"}
    file.write_text(file.read_text().replace("def late() -> None:", "if TYPE_CHECKING:"))
    assert changed(checkout, append(checkout / "indm/late.py", "X = 3\n")) == set()
    append(file, "else:\n    import indm.late\n")()
    assert changed(checkout, append(checkout / "indm/late.py", "X = 4\n")) == {"compute"}


def test_what_editors_leave_and_an_unfinished_module_change_nothing(checkout: Path) -> None:
    def edit() -> None:
        folder = checkout / "indm/training"
        for name in (".trainer.py.swp", "trainer.py~", "trainer.py.orig", "#trainer.py#"):
            (folder / name).write_text("x")
        (folder / ".#trainer.py").symlink_to("nowhere")
        (checkout / "indm/flows/registered/unfinished.py").write_text("def (")

    assert changed(checkout, edit) == set()


def test_a_module_that_is_needed_and_no_python_is_one_line(checkout: Path) -> None:
    append(checkout / "indm/stages/compute.py", "\ndef (")()
    with pytest.raises(ArtifactError, match=r"compute\.py: found invalid syntax .*; expected a module of Python"):
        stamps(checkout)


def test_a_job_whose_code_was_edited_after_snakemake_had_started_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    check_started(SUITE, "unknown")
    monkeypatch.setenv(STARTED, "")
    remember_start(SUITE)
    check_started(SUITE, job_stamp(SUITE, "table"))
    with pytest.raises(ParamsError, match="indm/ was edited after Snakemake had started; run it again"):
        check_started(SUITE, "unknown")
    edited = SUITE.model_copy(update={"save_seconds": 7.0})
    with pytest.raises(ParamsError, match=f"suite {SUITE.suite} was edited after Snakemake had started; run it again"):
        check_started(edited, job_stamp(SUITE, "table"))


def test_a_relative_import_is_refused(checkout: Path) -> None:
    append(checkout / "indm/stages/compute.py", "\nfrom . import claims\n")()
    with pytest.raises(ArtifactError, match="relative imports are not followed; write the full name"):
        stamps(checkout)


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_another_python_finds_the_same_stamps(checkout: Path, version: str) -> None:
    """Else results that were pulled would be made again."""
    python = shutil.which(f"python{version}")
    command = [
        python or "",
        "-B",
        "-c",
        "from indm.store.code import stamp; print(stamp('indm.stages.train', 'indm.cli'))",
    ]
    if python is None or subprocess.run([python, "-c", ""], check=False).returncode:
        pytest.skip(f"there is no Python {version} here")
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [code.stamp("indm.stages.train", "indm.cli")], done.stderr


# Imports what the stages share with other packages once, and each job's stage and registered members in a fork of its own.
IMPORTED = """
import importlib, json, os, sys
import numpy, pandas, sklearn, torch, torch_fidelity, torchdiffeq
for stage, members in json.loads(sys.argv[1]).items():
    child = os.fork()
    if child == 0:
        for module in [f"indm.stages.{stage}", *members]:
            importlib.import_module(module)
        print(stage, *(name for name in sys.modules if name.split(".")[0] == "indm"), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


def test_a_stamp_is_of_all_modules_that_python_imports() -> None:
    """They are found in the sources; here they are compared with what importing a stage loads."""
    # A stage of shards is that which gathers them.
    stages = {name: stage for name, stage in STAGES.items() if gathering(name) == name}
    used = {name: members(SUITE, name, stage.subjects(SUITE)[-1]) for name, stage in stages.items()}
    command = [sys.executable, "-c", IMPORTED, json.dumps(used)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = {stage: set(names) for stage, *names in map(str.split, done.stdout.splitlines())}
    assert loaded.keys() == stages.keys()
    for stage, names in loaded.items():
        # It has more where a function imports.
        known = modules(f"indm.stages.{stage}", *used[stage])
        # Beside a job's own modules: what computes its stamp.
        assert names - EXCLUDED - {"indm.registry", "indm.store.code"} <= known, stage
