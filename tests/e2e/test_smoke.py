"""The smoke suite, by both engines: what they make, and what they make again after a change."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pandas as pd
import pytest

from indm.bench.pipeline.code import counts
from indm.bench.pipeline.stages import STAGES
from indm.bench.pipeline.stamps import job_modules, job_stamp
from indm.bench.suite.load import load_suite, suite_sha256
from indm.report.catalogue import SHOWN
from indm.store.provenance import provenance
from tests.checkout import add_dvc_file, commands, commit, run

pytestmark = [pytest.mark.e2e, pytest.mark.long]

RUN = "digits-vp-indm-fid-s0"
# The subjects of the jobs that DVC does: of every stage one.
AGAIN = {"", "digits", "digits-vp-indm-nll-s0", "moons-tiny"}
SNAKEMAKE, DVC = commands("smoke").values()
# The jobs of which ``indm why`` says that they would run.
WHY = """
from pathlib import Path
from indm.bench.pipeline.input_check import InputCheck
from indm.bench.pipeline.why import why
from indm.bench.suite.load import load_suite

checks = InputCheck(load_suite(Path("params/smoke.yaml")), Path("results"), Path("reports"))
for job in why(checks).again:
    print(*filter(None, job))
"""
RECORD = {"suite", "stage", "subject", "suite_sha256", "code_stamp", "seed", *provenance(0.0, threads=1)}


@pytest.fixture(scope="module")
def checkouts(smoke: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two copies of the checkout in which Snakemake has run the suite; in one DVC has then done a job of each kind again."""
    folder = tmp_path_factory.mktemp("checkouts")
    copies = {engine: Path(shutil.copytree(smoke, folder / engine, symlinks=True)) for engine in ("snakemake", "dvc")}
    checkout = copies["dvc"]
    add_dvc_file(checkout, "smoke")
    for command in (["dvc", "repro", f"{DVC[-1]}:validate"], ["dvc", "commit", "--force", DVC[-1]]):
        done = run(checkout, *command)
        assert done.returncode == 0, done.stderr
    # DVC adopts what Snakemake made.
    assert jobs(checkout, "dvc") == set()
    suite = load_suite(checkout / "params/smoke.yaml")
    again = [
        f"{name}@{subject}".removesuffix("@")
        for name, stage in STAGES.items()
        for subject in stage.subjects(suite)
        if subject in AGAIN
    ]
    done = run(checkout, *DVC[:2], "--force", "--single-item", "--no-run-cache", *(f"{DVC[-1]}:{job}" for job in again))
    assert done.returncode == 0, done.stdout + done.stderr
    assert running(done.stdout) == {job.replace("@", " ") for job in again}
    return copies


def running(output: str) -> set[str]:
    """Name the jobs that DVC says it runs: ``train digits-vp-indm-fid-s0``, ``table``, ..."""
    return {job.replace("@", " ") for job in re.findall(r"^Running stage '.+:(.+)':$", output, flags=re.MULTILINE)}


def jobs(checkout: Path, engine: str) -> set[str]:
    """Ask an engine what it would run now: ``train digits-vp-indm-fid-s0``, ``table``, ...

    DVC computes nothing: its stage ``validate`` looks at the code and the suite, and is run before it is asked.
    """
    if engine == "snakemake":
        done = run(checkout, *SNAKEMAKE, "--dry-run")
        found = set(re.findall(r"^Job \d+: (.+)$", done.stdout + done.stderr, flags=re.MULTILINE))
        explained = set(run(checkout, "python", "-c", WHY).stdout.splitlines())
        assert explained == {job for job in found if not job.startswith("publish ")}
    else:
        looked = run(checkout, "dvc", "repro", f"{DVC[-1]}:validate")
        assert looked.returncode == 0, looked.stderr
        done = run(checkout, *DVC, "--dry")
        found = running(done.stdout)
    assert done.returncode == 0, done.stderr
    return found


def stages(found: set[str]) -> set[str]:
    """Drop the subjects of jobs."""
    return {job.split()[0] for job in found}


@contextmanager
def edited(file: Path, text: str) -> Iterator[None]:
    """Give a file another text for a while."""
    original = file.read_text()
    assert text != original
    file.write_text(text)
    yield
    file.write_text(original)


@contextmanager
def added(file: Path, text: str) -> Iterator[None]:
    """Add a file for a while."""
    file.write_text(text)
    yield
    file.unlink()


def test_the_tables_are_complete(checkouts: dict[str, Path]) -> None:
    tables = {kind: pd.read_csv(checkouts["snakemake"] / f"results/smoke/tables/{kind}.csv") for kind in ("fid", "nll")}
    floors = tables["fid"]["model"].str.startswith("real")
    assert (len(tables["fid"]), floors.sum(), len(tables["nll"])) == (9, 2, 7)
    # Of generated images alone.
    assert tables["fid"]["fid_infinity"].isna().equals(floors)
    names = ("fid", "kid", "is", "confidence", "precision", "recall")
    metrics = [f"{metric}{end}" for metric in names for end in ("", "_image_se")]
    assert tables["fid"][[*metrics, "num_samples"]].notna().all(axis=None)
    assert tables["fid"][["clean_fid", "legacy_fid", "published_fid", "published_is"]].isna().all(axis=None)
    values = ["nll", "nll_image_se", "nll_uncorrected", "nelbo", "nelbo_image_se", "gap"]
    values += ["nelbo_fixed", "nelbo_fixed_image_se", "nll_fixed", "nll_median", "nll_fixed_trimmed", "nll_beyond"]
    assert tables["nll"][values].notna().all(axis=None)
    assert (tables["fid"]["suite"] == "smoke").all()
    for name in SHOWN:
        published = checkouts["snakemake"] / f"results/table_{name}.csv"
        assert published.read_bytes() == (checkouts["snakemake"] / f"results/smoke/tables/{name}.csv").read_bytes()
    # One seed decides nothing.
    claims = pd.read_csv(checkouts["snakemake"] / "results/table_claims.csv")
    assert set(claims["verdict"]) == {"undecided"}


def test_values_lead_to_the_files_that_they_come_from(checkouts: dict[str, Path]) -> None:
    values = pd.read_csv(checkouts["snakemake"] / "results/smoke/tables/values.csv", keep_default_na=False)
    for source in values["source"].unique():
        assert (checkouts["snakemake"] / "results/smoke" / source).is_file(), source


@pytest.mark.parametrize("engine", ["snakemake", "dvc"])
def test_every_stage_says_what_it_was_made_by(checkouts: dict[str, Path], engine: str) -> None:
    suite = load_suite(checkouts[engine] / "params/smoke.yaml")
    records = {
        path: json.loads(path.read_text())
        for folder in ("results/smoke", "reports/smoke")
        for path in (checkouts[engine] / folder).rglob("provenance/*.json")
    }
    assert {path.stem for path in records} == {name for name, stage in STAGES.items() if stage.subjects(suite)}
    for path, record in records.items():
        assert set(record) == RECORD, path
        assert record["suite_sha256"] == suite_sha256(suite), path
        subject = path.parent.parent.name if STAGES[path.stem].subject else ""
        assert record["code_stamp"] == job_stamp(suite, path.stem, subject), path
        assert (record["seed"] is None) == (path.parent.parent.parent.name not in ("runs", "data", "protocol")), path


def test_every_module_whose_functions_a_job_called_is_among_those_that_its_stamp_covers(smoke: Path) -> None:
    suite = load_suite(smoke / "params/smoke.yaml")
    done = set()
    for record in map(json.loads, map(Path.read_text, smoke.with_name("called").glob("*.json"))):
        stage, *options = record["command"]
        if stage not in STAGES:
            continue
        given = dict(zip(options[::2], options[1::2], strict=True))
        subject = next((given[f"--{kind}"] for kind in ("dataset", "run", "toy") if f"--{kind}" in given), "")
        called = {f"indm.{name.removesuffix('.py').replace('/', '.')}" for name in record["files"]}
        # Every job asks for facts of members when it checks its suite. A stamp counts by value what they decide of a model.
        counted = {module for module in called - {"indm.facts"} if counts(module)}
        assert counted <= job_modules(suite, stage, subject).keys(), f"{stage} {subject}"
        done.add((stage, subject))
    assert done == {(name, subject) for name, stage in STAGES.items() for subject in stage.subjects(suite)}


def test_the_curve_has_a_row_for_each_snapshot(checkouts: dict[str, Path]) -> None:
    for file in (checkouts["dvc"] / "results/smoke/runs").glob("*/curve.csv"):
        curve = pd.read_csv(file)
        assert curve["step"].tolist() == [10, 20]
        assert (curve["split"] == "valid").all()
        assert curve.notna().all(axis=None)


def test_both_engines_make_the_same_tables(checkouts: dict[str, Path]) -> None:
    # Times differ.
    for kind in ["values", *(name for name in SHOWN if name != "compute")]:
        first, second = (checkouts[engine] / f"results/smoke/tables/{kind}.csv" for engine in ("snakemake", "dvc"))
        assert first.read_bytes() == second.read_bytes()


def test_a_second_run_does_nothing(checkouts: dict[str, Path]) -> None:
    assert "Nothing to be done" in run(checkouts["snakemake"], *SNAKEMAKE).stderr
    assert "Data and pipelines are up to date." in run(checkouts["dvc"], *DVC).stdout
    assert jobs(checkouts["dvc"], "dvc") == set()


NEW_FLOW = """
from indm.flows.registered.resflow import ResidualFlow

FLOW = ResidualFlow
"""
NEW_DATASET = """
from dataclasses import replace

from indm.data.registered.digits import DATASET as DIGITS

DATASET = replace(DIGITS, source="another")
"""
NEW = {"flows/registered/another_flow.py": NEW_FLOW, "data/registered/another_dataset.py": NEW_DATASET}


@pytest.mark.parametrize("engine", ["snakemake", "dvc"])
def test_what_changes_no_number_runs_nothing(checkouts: dict[str, Path], engine: str) -> None:
    """New times of files, the layout of rules, docstrings and comments anywhere, a new flow and a new dataset."""
    checkout = checkouts[engine]
    with ExitStack() as edits:
        for file in sorted((checkout / "indm").rglob("*.py")):
            edits.enter_context(edited(file, file.read_text().replace('"""', '"""Edited. ', 1) + "\n# A comment.\n"))
        rules = checkout / "workflow/rules/stages.smk"
        edits.enter_context(edited(rules, f"# A comment.\n\n{rules.read_text()}"))
        for name, text in NEW.items():
            edits.enter_context(added(checkout / "indm" / name, text))
        for folder in ("params", "results/smoke/data", "results/smoke/runs"):
            for file in (checkout / folder).rglob("*"):
                file.touch()
        assert jobs(checkout, engine) == set()
        known = run(
            checkout, "python", "-c", "from indm.bench.suite.load import json_schema; print(json_schema())"
        ).stdout
        assert "another-flow" in known
        assert "another-dataset" in known


@pytest.mark.parametrize("engine", ["snakemake", "dvc"])
def test_an_edit_of_the_sampler_samples_again_and_trains_nothing(checkouts: dict[str, Path], engine: str) -> None:
    file = checkouts[engine] / "indm/diffusion/steps.py"
    with edited(file, f"{file.read_text()}\ntweedie = tweedie\n"):
        found = jobs(checkouts[engine], engine)
    assert sum(job.startswith("sample ") for job in found) == 7
    # DVC looks at what comes after only once it has new samples.
    later = (
        {"fid", "sweep", "protocol", "table", "compute", "claims", "publish", "figure", "report"}
        if engine == "snakemake"
        else {"sweep", "protocol"}
    )
    # The studies of 2-D data draw samples in the same job as they train.
    assert stages(found) == {"sample", "tune", "toy2d"} | later


OTHER = "digits-vp-indm-nll-s0"
# A file, what is put in its place (another file, or what becomes of its bytes), and a stage that reads it.
FAULTS: dict[str, tuple[str, str | Callable[[bytes], bytes], str]] = {
    "another run's samples": (f"runs/{RUN}/samples.npy", f"runs/{OTHER}/samples.npy", "fid"),
    "a flipped byte of the test images": ("data/digits/test.npy", lambda old: old[:-1] + bytes([old[-1] ^ 1]), "nll"),
    "a table that is cut off": (f"runs/{RUN}/sweep.csv", lambda old: old[: len(old) * 6 // 10], "table"),
}


@contextmanager
def replaced(results: Path, fault: str) -> Iterator[Path]:
    """Put another content into the place of a file for a while."""
    name, change, _ = FAULTS[fault]
    file = results / name
    original = file.read_bytes()
    content = change(original) if callable(change) else (results / change).read_bytes()
    assert content != original
    # Not written into: it may be a link into DVC's cache.
    file.unlink()
    file.write_bytes(content)
    yield file
    file.unlink()
    file.write_bytes(original)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_what_it_seems_gives_no_number(checkouts: dict[str, Path], fault: str) -> None:
    """A stage stops with one line, and leaves all as it was."""
    name, _, stage = FAULTS[fault]
    subject = [] if stage == "table" else ["--run", RUN]
    with replaced(checkouts["dvc"] / "results/smoke", fault):
        before = contents(checkouts["dvc"])
        done = run(checkouts["dvc"], "python", "-m", "indm", stage, "--suite", "params/smoke.yaml", *subject)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith(f"indm {stage}: results/smoke/{name}: found SHA-256 ")
        assert contents(checkouts["dvc"]) == before


def contents(checkout: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (checkout / "results/smoke").rglob("*") if path.is_file()}


def test_dvc_makes_a_file_again_that_is_not_what_it_seems(checkouts: dict[str, Path]) -> None:
    before = contents(checkouts["dvc"])
    with replaced(checkouts["dvc"] / "results/smoke", "a table that is cut off") as file:
        assert run(checkouts["dvc"], *DVC).returncode == 0
        assert file.read_bytes() == before[file]


def test_dvc_says_in_one_line_that_it_needs_another_file(checkouts: dict[str, Path]) -> None:
    """A suite with other runs: DVC's file lists what the tables collect."""
    file = checkouts["dvc"] / "params/smoke.yaml"
    with edited(
        file, re.sub(rf"^  {RUN}: .+\n", "", file.read_text(), flags=re.MULTILINE).replace(RUN, "digits-ve-indm-fid-s0")
    ):
        done = run(checkouts["dvc"], *DVC)
        assert done.returncode != 0
        lines = [line for line in done.stderr.splitlines() if "found other runs or datasets" in line]
        assert lines == [
            "indm validate: params/smoke.yaml: found other runs or datasets than in dvc.yaml; "
            "run python workflow/generate.py, then repeat this command"
        ]
        assert done.stdout.count("Running stage") == 1


@pytest.mark.parametrize("engine", ["snakemake", "dvc"])
def test_another_learning_rate_of_a_run_trains_it_alone(checkouts: dict[str, Path], engine: str) -> None:
    file = checkouts[engine] / "params/smoke.yaml"
    before, line, after = re.split(rf"^(  {RUN}: .+)$", file.read_text(), flags=re.MULTILINE)
    with edited(file, before + line.replace("train: {}", "train: {lr: 1.0e-3}") + after):
        found = jobs(checkouts[engine], engine)
    if engine == "snakemake":
        later = {f"{stage} {RUN}" for stage in ("sample", "fid", "nll", "curve", "flow", "sweep")} | {"protocol digits"}
        publish = {f"publish results/table_{name}.csv" for name in SHOWN}
        assert found == {f"train {RUN}", "table", "compute", "claims", "figure", "report"} | publish | later
    else:
        # The page shows the checksum of the suite's file.
        assert found == {f"train {RUN}", "table", "compute", "report"}


@pytest.mark.parametrize("engine", ["snakemake", "dvc"])
def test_other_sampling_settings_train_nothing(checkouts: dict[str, Path], engine: str) -> None:
    file = checkouts[engine] / "params/smoke.yaml"
    with edited(file, file.read_text().replace("temperature: 1.0", "temperature: 0.9")):
        found = jobs(checkouts[engine], engine)
    assert sum(job.startswith("sample ") for job in found) == 7
    later = (
        {"fid", "sweep", "protocol", "table", "compute", "claims", "publish", "figure", "report"}
        if engine == "snakemake"
        else {"sweep", "protocol", "report"}
    )
    # Objective nll draws none, and goes on from its study.
    assert stages(found) == {"sample", "tune"} | later


@pytest.mark.parametrize("engine", ["snakemake", "dvc"])
def test_the_page_has_the_tables_and_the_pictures(checkouts: dict[str, Path], engine: str) -> None:
    page = (checkouts[engine] / "reports/smoke/index.html").read_text()
    for part in ('id="table-fid"', 'id="table-nll"', "seed 0", "data:image/png", "its numbers mean nothing"):
        assert part in page


def test_snakemake_makes_its_own_report_of_page_and_tables(checkouts: dict[str, Path]) -> None:
    done = run(checkouts["snakemake"], *SNAKEMAKE, "--report", "report.html")
    assert done.returncode == 0, done.stderr
    report = (checkouts["snakemake"] / "report.html").read_text()
    assert "index.html" in report
    assert "table_fid.csv" in report
    assert len(report) < 20e6


def test_a_clone_pulls_what_was_pushed_and_computes_nothing(checkouts: dict[str, Path], tmp_path: Path) -> None:
    """The commands of docs/share.md."""
    clone = tmp_path / "clone"
    assert run(checkouts["dvc"], "dvc", "remote", "add", "--default", "store", str(tmp_path / "store")).returncode == 0
    commit(checkouts["dvc"], "Results")
    for checkout, command in (
        (checkouts["dvc"], ["dvc", "push", DVC[-1]]),
        (tmp_path, ["git", "clone", "--quiet", str(checkouts["dvc"]), str(clone)]),
        (clone, ["dvc", "pull", DVC[-1]]),
    ):
        done = run(checkout, *command)
        assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    assert jobs(clone, "dvc") == set()
    assert run(clone, *SNAKEMAKE, "--touch").returncode == 0
    # Copies of the tables, which only the default suite's dvc.yaml makes.
    assert stages(jobs(clone, "snakemake")) == {"publish"}
    page, pulled = ((checkout / "reports/smoke/index.html").read_bytes() for checkout in (checkouts["dvc"], clone))
    assert page == pulled
