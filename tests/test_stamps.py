"""Stamps of code: what changes them, and what does not."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from indm.errors import ArtifactError, ParamsError
from indm.pipeline import code, references
from indm.pipeline.references import is_outside
from indm.pipeline.stages import STAGES
from indm.pipeline.stamps import (
    differences,
    job_definitions,
    job_stamp,
    suite_stamps,
)
from indm.pipeline.track import STARTED, check_unedited, remember_start
from indm.pipeline.trees import Folder
from indm.suite.claims import Claim
from indm.suite.load import load_suite
from indm.suite.schema.suite import Suite
from tests.conftest import REPOSITORY

SUITE = load_suite(REPOSITORY / "params/smoke.yaml")
INDM = {f"digits-{run}-s0" for run in ("ve-indm-fid", "vp-indm-fid", "vp-indm-nll")}


def name(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)


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
        patch.setattr(references, "KEPT", checkout / "indm/__pycache__/code.txt")
        code._sources.cache_clear()
        return dict(suite_stamps(SUITE))


def changed(checkout: Path, edit: Callable[[], object]) -> set[str]:
    """Name the jobs whose stamps an edit changes."""
    before = stamps(checkout)
    edit()
    after = stamps(checkout)
    assert before.keys() == after.keys()
    return {job for job in before if before[job] != after[job]}


def append(file: Path, text: str) -> Callable[[], object]:
    return lambda: file.write_text(file.read_text() + text)


def redefine(file: Path, name: str) -> Callable[[], object]:
    """Edit a definition, whatever it is now."""
    assert re.search(rf"^(def |class )?{name}\b", file.read_text(), flags=re.MULTILINE)
    return append(file, f"\n{name} = {name}\n")


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
            ("diffusion/families", "FAMILY"),
            ("diffusion/samplers", "SAMPLER"),
        ):
            (checkout / f"indm/{folder}/registered/another.py").write_text(f"{attribute} = None\n")

    assert changed(checkout, edit) == set()


def test_an_edited_denoising_runs_again_the_jobs_that_sample(checkout: Path) -> None:
    jobs = changed(checkout, redefine(checkout / "indm/diffusion/steps.py", "tweedie"))
    assert {job.split("/")[0] for job in jobs} == {"sample", "sweep", "tune", "protocol", "toy2d"}


FAMILY_JOBS = {
    "FAMILY": {"train", "sample", "nll", "curve", "sweep", "tune", "protocol"},
    "LABEL": {"figure", "report"},
    "ONLY": set(),
    "REFERENCE": {"table", "figure", "report"},
    "STYLE": {"figure", "report"},
}


@pytest.mark.parametrize("definition", FAMILY_JOBS)
def test_an_edited_family_runs_again_the_jobs_that_use_it(checkout: Path, definition: str) -> None:
    """Those of its own runs, and, of what readers see, those that are made of all results."""
    file = checkout / "indm/diffusion/families/registered/indm.py"

    def edit() -> None:
        file.write_text(re.sub(rf"^{definition} = ", rf"{definition} = 0 or ", file.read_text(), flags=re.MULTILINE))

    jobs = changed(checkout, edit)
    assert {job.split("/")[0] for job in jobs} == FAMILY_JOBS[definition]
    assert not any("ddpmpp" in job for job in jobs)


SAMPLER_JOBS = {
    # Of smoke, every run is drawn by ancestral sampling, and swept by it too.
    ("ancestral", "ancestral"): {"sample", "sweep", "tune", "protocol"},
    ("ancestral", "CORRECTOR"): {"sample", "table", "claims"},
    ("ancestral", "LABEL"): {"figure", "report"},
    ("ode_heun", "heun"): {"sweep", "toy2d"},
    # As pc.
    ("reverse_diffusion", "reverse_diffusion"): {"sweep"},
    ("ode", "sample_ode"): set(),
    ("ddim", "ddim"): {"sweep", "toy2d"},
    ("ddim", "SOUND"): {"table"},
}


@pytest.mark.parametrize(("sampler", "definition"), SAMPLER_JOBS)
def test_an_edited_sampler_runs_again_the_jobs_that_use_it(checkout: Path, sampler: str, definition: str) -> None:
    jobs = changed(checkout, redefine(checkout / f"indm/diffusion/samplers/registered/{sampler}.py", definition))
    assert {job.split("/")[0] for job in jobs} == SAMPLER_JOBS[sampler, definition]


def test_an_edited_flow_runs_again_the_models_that_have_it(checkout: Path) -> None:
    jobs = changed(checkout, redefine(checkout / "indm/flows/registered/resflow.py", "ResidualFlow"))
    runs = {job.split("/")[1] for job in jobs if job != "protocol/digits"}
    assert runs == INDM
    assert {job.split("/")[0] for job in jobs} == {"train", "sample", "nll", "curve", "sweep", "tune", "protocol"}


def test_an_edited_dataset_prepares_it_again(checkout: Path) -> None:
    """What comes after depends on the arrays."""
    jobs = changed(checkout, redefine(checkout / "indm/data/registered/digits.py", "load_digits"))
    assert jobs == {"prepare/digits"}


ALL = set(STAGES) - {"sample_shard", "nll_shard", "sweep_shard"}


@pytest.mark.parametrize(
    ("file", "edit", "stages"),
    [
        ("indm/report/page/templates/style.css", "\nEDITED = 1\n", {"report"}),
        ("indm/report/catalogue.py", "CATALOGUE", {"report"}),
        ("indm/__init__.py", "__version__", set()),
        ("indm/errors.py", "ArtifactError", set()),
        ("indm/pipeline/stages.py", "STAGES", set()),
        ("indm/store/files.py", "read_json", set()),
        ("indm/store/files.py", "CHECKPOINT_FORMAT", {"train", "sample", "nll", "curve", "sweep", "protocol"}),
        ("indm/store/manifest.py", "FORMAT", ALL),
        ("indm/process.py", "limit_threads", ALL),
        ("indm/stages/nll.py", "run", {"nll"}),
        # The keys that a job reads count by their values.
        ("indm/suite/schema/train.py", "TrainParams", set()),
    ],
)
def test_an_edited_file_is_of_the_stages_that_it_makes(checkout: Path, file: str, edit: str, stages: set[str]) -> None:
    edited = append(checkout / file, edit) if edit.startswith("\n") else redefine(checkout / file, edit)
    jobs = changed(checkout, edited)
    assert {job.split("/")[0] for job in jobs} == stages


def test_earlier_sources_begin_with_what_they_have(checkout: Path) -> None:
    """Else no archive could be compared with the code of a commit that is older than something with which every job begins."""
    file = checkout / "indm/process.py"
    file.write_text(file.read_text().replace("def unset_fpmath(", "def unset("))
    earlier = code.Sources(Folder(checkout))
    with pytest.raises(ArtifactError, match=r"found no definition indm\.process\.unset_fpmath"):
        earlier.stamp("indm.process.unset_fpmath")
    assert job_stamp(SUITE, "table", code=earlier) != job_stamp(SUITE, "table")
    assert {
        each.what
        for each in differences(job_definitions(SUITE, "table", code=earlier), job_definitions(SUITE, "table"))
    } == {"new"}


def test_what_a_suite_derives_counts_by_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    run = "digits-vp-indm-nll-s0"
    before = {stage: job_stamp(SUITE, stage, run) for stage in ("train", "nll")}
    monkeypatch.setattr(type(SUITE), "weights_of", lambda suite, run: {"score": "ema", "flow": "other"})
    assert job_stamp(SUITE, "nll", run) != before["nll"]
    # A training has no choice of weights.
    assert job_stamp(SUITE, "train", run) == before["train"]


def test_what_claims_leave_unsaid_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """params/claims.yaml is short by its defaults, which decide verdicts."""
    before, other = (job_stamp(SUITE, stage) for stage in ("claims", "compute"))
    monkeypatch.setattr(Claim.model_fields["direction"], "default", "higher")
    assert job_stamp(SUITE, "claims") != before
    assert job_stamp(SUITE, "compute") == other


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
    (file,) = [path for path in (folder / "ode.py", folder / "steps.py") if old in path.read_text()]
    assert bool(changed(checkout, lambda: file.write_text(file.read_text().replace(old, new)))) is not same


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
    with pytest.raises(ArtifactError, match=r"compute\.py: found invalid syntax .*, expected a Python module"):
        stamps(checkout)


def test_a_job_whose_code_was_edited_after_snakemake_had_started_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(suite: Suite, stamp: str) -> None:
        check_unedited(suite, REPOSITORY / "params/smoke.yaml", tmp_path, stamp)

    check(SUITE, "unknown")
    monkeypatch.setenv(STARTED, "")
    remember_start(SUITE)
    # Snakemake may itself be a stage of DVC.
    monkeypatch.setenv("DVC_STAGE", "another")
    check(SUITE, job_stamp(SUITE, "table"))
    with pytest.raises(ParamsError, match="indm/ was edited after Snakemake had started; run it again"):
        check(SUITE, "unknown")
    edited = SUITE.model_copy(update={"save_seconds": 7.0})
    with pytest.raises(ParamsError, match=f"suite {SUITE.suite} was edited after Snakemake had started; run it again"):
        check(edited, job_stamp(SUITE, "table"))


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
        "from indm.pipeline.code import sources; print(sources().stamp('indm.stages.train.run', 'indm.stages.report.run'))",
    ]
    if python is None or subprocess.run([python, "-c", ""], check=False).returncode:
        pytest.skip(f"there is no Python {version} here")
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [code.sources().stamp("indm.stages.train.run", "indm.stages.report.run")], done.stderr


COUNTED = [path for path in sorted((REPOSITORY / "indm").rglob("*.py")) if not is_outside(name(path))]
LOOK_UPS = {"__import__", "eval", "exec", "globals", "import_module", "vars"}


@pytest.mark.parametrize("path", COUNTED, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_name_is_looked_up_where_stamps_cannot_see_it(path: Path) -> None:
    """Registries alone import by a name in a variable: stamps know their members."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    imported = (alias for node in nodes if isinstance(node, ast.Import) for alias in node.names)
    modules = {alias.asname or alias.name.partition(".")[0] for alias in imported}
    for call in (node for node in nodes if isinstance(node, ast.Call)):
        called = ast.unparse(call.func)
        assert called.removeprefix("importlib.") not in LOOK_UPS, ast.unparse(call)
        assert called != "getattr" or ast.unparse(call.args[0]) not in modules, ast.unparse(call)


STAMPS = """
from pathlib import Path
from indm.pipeline.stamps import suite_stamps
from indm.suite.load import load_suite
for job, stamp in suite_stamps(load_suite(Path("params/smoke.yaml"))):
    print(job, stamp)
"""


@pytest.mark.parametrize(
    ("file", "old", "new", "stages"),
    [
        ("indm/measured.py", '"nll_uncorrected", "nelbo"', '"nelbo"', {"table"}),
        ("indm/measured.py", '("nll", "fid", "is")', '("nll", "fid")', {"claims"}),
        ("indm/store/files.py", '"%.6g"', '"%.3g"', {"train", "nll", "curve", "sweep", "toy2d", "table", "claims"}),
        ("indm/stages/nll.py", '"test.npy"', '"train.npy"', {"nll"}),
    ],
)
def test_what_decides_a_number_or_a_column_counts(
    checkout: Path, file: str, old: str, new: str, stages: set[str]
) -> None:
    """By the stamps of a checkout's own package, because some values count as they are after the import."""

    def found() -> set[str]:
        command = [sys.executable, "-c", STAMPS]
        return set(subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True).stdout.split("\n"))

    before, path = found(), checkout / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert {line.split("/")[0].split(" ")[0] for line in found() - before} >= stages
