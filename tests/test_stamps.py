"""Stamps of code: what changes them, and what does not."""

import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from indm.bench.pipeline import code, stamps
from indm.bench.pipeline.code import Sources
from indm.bench.pipeline.jobs import job_inputs, job_outputs, job_parameters, jobs_of
from indm.bench.pipeline.stages import STAGES
from indm.bench.pipeline.stamps import Difference, changes, differences, job_modules, job_stamp, suite_stamps
from indm.bench.pipeline.track import STARTED, check_unedited, remember_start
from indm.bench.suite.load import load_suite
from indm.bench.suite.schema.suite import Suite
from indm.errors import ParamsError
from indm.store.files import TABLE_FORMAT
from tests.conftest import REPOSITORY

SUITE = load_suite(REPOSITORY / "params/smoke.yaml")
JOBS = [(name, subject) for name, stage in STAGES.items() for subject in stage.subjects(SUITE)]
RUN = "digits-vp-indm-nll-s0"
INDM = {f"digits-{run}-s0" for run in ("ve-indm-fid", "vp-indm-fid", "vp-indm-nll")}
FILES = [path for path in (REPOSITORY / "indm").rglob("*.*") if path.is_file() and "__pycache__" not in path.parts]
PACKAGE = {str(path.relative_to(REPOSITORY)): path.read_bytes() for path in FILES}


@functools.cache
def present() -> dict[tuple[str, str], str]:
    return {job: job_stamp(SUITE, *job) for job in JOBS}


def changed(files: Mapping[str, str]) -> set[tuple[str, str]]:
    """Name the jobs whose stamps edited files change."""
    sources = Sources(PACKAGE | {f"indm/{path}": text.encode() for path, text in files.items()})
    return {job for job, stamp in present().items() if job_stamp(SUITE, *job, code=sources) != stamp}


def test_every_job_has_a_stamp() -> None:
    named = {"/".join(filter(None, job)): stamp for job, stamp in present().items()}
    assert dict(suite_stamps(SUITE)) == named
    assert changed({}) == set()


def calls_of_plan(seeds: int) -> int:
    """Count the calls of functions for what an engine asks of all jobs of a suite with many seeds of a run."""
    run, calls = SUITE.runs[RUN], 0
    runs = {RUN.replace("-s0", f"-s{seed}"): run.model_copy(update={"seed": seed}) for seed in range(seeds)}
    suite = SUITE.model_copy(update={"runs": runs, "tune": {}, "protocol": {}})

    def count(_frame: object, event: str, _of: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    earlier = sys.getprofile()
    sys.setprofile(count)
    try:
        remember_start(suite)
        for job in jobs_of(suite):
            (dict(job_inputs(suite, job)), job_outputs(suite, job), job_parameters(suite, job))
    finally:
        sys.setprofile(earlier)
    return calls


def test_plans_of_more_runs_take_as_many_calls_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run costs the same, however many others there are: counted, because the clock tells little of short plans."""
    monkeypatch.setenv(STARTED, "")
    # Files are read once.
    calls_of_plan(1)
    few, more, most = map(calls_of_plan, (20, 40, 60))
    assert most - more == pytest.approx(more - few, rel=0.02)
    assert more - few > 10_000


def test_docstrings_comments_and_new_members_change_no_stamp() -> None:
    files = {}
    for path, content in PACKAGE.items():
        if path.endswith(".py"):
            text = re.sub(r'^(\s*r?""")(?=\w)', r"\1Edited. ", content.decode(), flags=re.MULTILINE)
            files[path.removeprefix("indm/")] = f"{text}\n\n\n# A comment.\n"
    for folder in ("data", "flows", "networks", "diffusion", "diffusion/families", "diffusion/samplers"):
        files[f"{folder}/registered/another.py"] = "MEMBER = 1\n"
    assert changed(files) == set()


BUILD = {"train", "sample", "nll", "curve", "flow", "sweep", "tune", "protocol"}
DRAW = {"sample", "sweep", "tune", "protocol"}
ALL = {stage for stage, _ in JOBS}
READ = {*BUILD, "reference", "fid"}
# A file, and a constant of it that is given another value; without one, something is added to the file.
EDITED = {
    ("diffusion/families/registered/indm.py", "FAMILY"): BUILD,
    # What readers see, and what is known of all members: the stages that are made of all results.
    ("report/names.py", "TREATMENT"): {"table", "compute", "claims", "figure", "report"},
    ("report/plotting.py", "DASHES"): {"figure"},
    ("facts.py", "CLUSTERED"): {"table", "compute", "claims", "figure", "report"},
    # Of smoke, every run is drawn by ancestral sampling, and swept by it too.
    ("diffusion/samplers/registered/ancestral.py", "SAMPLER"): DRAW,
    ("diffusion/samplers/registered/ode_heun.py", "SAMPLER"): {"sweep", "toy2d"},
    # As pc.
    ("diffusion/samplers/registered/reverse_diffusion.py", "SAMPLER"): {"sweep"},
    ("diffusion/samplers/registered/ode.py", "SAMPLER"): set(),
    ("diffusion/steps.py", ""): {*DRAW, "toy2d"},
    # What comes after depends on the arrays.
    ("data/registered/digits.py", "DATASET"): {"prepare"},
    ("report/catalogue.py", ""): {"table", "compute", "claims", "figure", "report"},
    ("report/page/templates/style.css", ""): {"report"},
    ("bench/stages/nll.py", ""): {"nll"},
    ("process.py", ""): ALL,
    ("__init__.py", ""): set(),
    ("errors.py", ""): set(),
    ("bench/pipeline/stages.py", ""): set(),
    ("store/files.py", ""): set(),
    # The keys that a job reads count by their values.
    ("bench/suite/schema/train.py", ""): set(),
}


@pytest.mark.parametrize(("path", "constant"), EDITED)
def test_an_edit_runs_again_the_stages_that_it_feeds(path: str, constant: str) -> None:
    text = PACKAGE[f"indm/{path}"].decode()
    edited = (
        re.sub(f"^{constant} = ", f"{constant} = 0 or ", text, flags=re.MULTILINE)
        if constant
        else f"{text}\nADDED = 1\n"
    )
    assert edited != text
    jobs = changed({path: edited})
    assert {stage for stage, _ in jobs} == EDITED[path, constant]
    if "families" in path:
        assert not any("ddpmpp" in subject for _, subject in jobs)


TABLES = {"claims", "figure", "report"}
# Code that decides a number far from the formula: an edit, and the stages whose numbers it changes.
DECIDING = {
    "hyper-parameters of a trial": ("bench/trials.py", "exclude_unset=True) | train", "exclude_unset=True)", {"tune"}),
    "variant of equal compute": ("variants.py", '"same-compute"', '"same-parameters"', {"table", "compute", *TABLES}),
    # params/claims.yaml is short by its defaults.
    "what claims leave unsaid": (
        "report/claims.py",
        'default="lower"',
        'default="higher"',
        {"table", "compute", *TABLES},
    ),
    "images that are read": (
        "arrays.py",
        "allow_pickle=False)\n    except",
        "allow_pickle=False)[::-1]\n    except",
        READ,
    ),
    "images that are written": ("arrays.py", "np.save(file, array,", "np.save(file, 0 * array,", READ),
    "float32 products": ("process.py", "    unset_fpmath()\n", "", ALL),
}


@pytest.mark.parametrize("kind", DECIDING)
def test_code_that_decides_a_number_far_from_its_formula_counts(kind: str) -> None:
    path, old, new, stages = DECIDING[kind]
    text = PACKAGE[f"indm/{path}"].decode()
    assert text.count(old) == 1
    assert {stage for stage, _ in changed({path: text.replace(old, new)})} == stages


def test_an_edited_flow_runs_again_the_models_that_have_it() -> None:
    path = "flows/registered/resflow.py"
    jobs = changed({path: f"{PACKAGE[f'indm/{path}'].decode()}\nADDED = 1\n"})
    assert {subject for stage, subject in jobs if stage != "protocol"} == INDM
    assert {stage for stage, _ in jobs} == BUILD


def test_what_a_suite_derives_and_formats_count_by_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {stage: job_stamp(SUITE, stage, RUN) for stage in ("train", "nll")}
    monkeypatch.setattr(type(SUITE), "weights_of", lambda suite, run: {"score": "ema", "flow": "other"})
    # A training has no choice of weights.
    assert {stage: job_stamp(SUITE, stage, RUN) == stamp for stage, stamp in before.items()} == {
        "train": True,
        "nll": False,
    }
    assert changes(SUITE, "train", RUN, before["train"], {}) == []
    now = job_stamp(SUITE, "nll", RUN)
    found = changes(SUITE, "nll", RUN, before["nll"], job_modules(SUITE, "nll", RUN))
    assert found == [Difference("stamp/nll", before["nll"][:10], now[:10])]
    monkeypatch.setattr(stamps, "FORMATS", [])
    assert job_stamp(SUITE, "train", RUN) != before["train"]


def test_differences_are_of_files_and_leave_renamed_modules_out() -> None:
    then = {"indm.a": "1", "indm.b.__init__": "2", "indm.c": "3", "indm.d": "4", "indm/e/style.css": "5"}
    now = {"indm.a": "1", "indm.b.__init__": "0", "indm.f": "3", "indm.g": "1", "indm/e/style.css": "6"}
    found = {each.where: each.what for each in differences(then, now)}
    assert found == {
        "indm/b/__init__.py": "changed",
        "indm/d.py": "gone",
        "indm/g.py": "new",
        "indm/e/style.css": "changed",
    }


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
    with pytest.raises(ParamsError, match="indm/"):
        check(SUITE, "unknown")
    edited = SUITE.model_copy(update={"save_seconds": 7.0})
    with pytest.raises(ParamsError, match=f"suite {SUITE.suite}"):
        check(edited, job_stamp(SUITE, "table"))


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_another_python_finds_the_same_stamps(version: str) -> None:
    """Else results that were pulled would be made again."""
    python, names = shutil.which(f"python{version}") or "", [f"indm.bench.stages.{stage}" for stage in STAGES]
    program = f"from indm.bench.pipeline.code import sources; print(sources().stamp(*{names}))"
    if not python or subprocess.run([python, "-c", ""], check=False).returncode:
        pytest.skip(f"there is no Python {version} here")
    done = subprocess.run([python, "-B", "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [code.sources().stamp(*names)], done.stderr


def test_the_format_of_numbers_in_tables_counts() -> None:
    assert TABLE_FORMAT in stamps.FORMATS
