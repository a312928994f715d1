"""The smoke suite from nothing, by both engines: what they make, and what they make again after a change."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pandas as pd
import pytest

from indm.pipeline.code import OUTSIDE
from indm.pipeline.stages import STAGES
from indm.pipeline.stamps import job_modules, job_stamp
from indm.report.catalogue import SHOWN
from indm.store.provenance import provenance
from indm.suite.load import load_suite, suite_sha256
from tests.checkout import add_dvc_file, commands, copy_checkout, run, run_suite

pytestmark = [pytest.mark.e2e, pytest.mark.long]

RUN = "digits-vp-indm-fid-s0"
SNAKEMAKE, DVC = commands("smoke").values()
# The jobs of which ``indm why`` says that they would run.
WHY = """
from pathlib import Path
from indm.pipeline.identity import Identity
from indm.pipeline.why import why
from indm.suite.load import load_suite

identity = Identity(load_suite(Path("params/smoke.yaml")), Path("results"), Path("reports"))
for job in why(identity).again:
    print(*filter(None, job))
"""
RECORD = {"suite", "stage", "subject", "suite_sha256", "code_stamp", "seed", *provenance(0.0, threads=1)}


@pytest.fixture(scope="module")
def checkouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two copies of the checkout in which the smoke suite has been run, side by side, by an engine each."""
    copies = {engine: copy_checkout(tmp_path_factory.mktemp(engine)) for engine in ("snakemake", "dvc")}
    (copies["snakemake"] / "called").mkdir()
    run_suite(copies, "smoke", called=copies["snakemake"] / "called")
    return copies


def jobs(checkout: Path, engine: str) -> set[str]:
    """Ask an engine what it would run now: ``train digits-vp-indm-fid-s0``, ``table``, ...

    DVC computes nothing: its stage ``validate`` looks at the code and the suite, and is run before it is asked.
    """
    if engine == "snakemake":
        done = run(checkout, *SNAKEMAKE, "--dry-run")
        found = re.findall(r"^Job \d+: (.+)$", done.stdout + done.stderr, flags=re.MULTILINE)
        explained = set(run(checkout, "python", "-c", WHY).stdout.splitlines())
        assert explained == {job for job in found if not job.startswith("publish ")}
    else:
        looked = run(checkout, "dvc", "repro", f"{DVC[-1]}:validate")
        assert looked.returncode == 0, looked.stderr
        done = run(checkout, *DVC, "--dry")
        found = re.findall(r"^Running stage '.+:(.+)':$", done.stdout, flags=re.MULTILINE)
    assert done.returncode == 0, done.stderr
    return {job.replace("@", " ") for job in found}


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


def test_every_module_whose_functions_a_job_called_is_among_those_that_its_stamp_covers(
    checkouts: dict[str, Path],
) -> None:
    checkout = checkouts["snakemake"]
    suite = load_suite(checkout / "params/smoke.yaml")
    done = set()
    for record in map(json.loads, map(Path.read_text, (checkout / "called").glob("*.json"))):
        stage, *options = record["command"]
        if stage not in STAGES:
            continue
        given = dict(zip(options[::2], options[1::2], strict=True))
        subject = next((given[f"--{kind}"] for kind in ("dataset", "run", "toy") if f"--{kind}" in given), "")
        called = {f"indm.{name.removesuffix('.py').replace('/', '.')}" for name in record["files"]}
        counted = {module for module in called if module.split(".")[1] not in OUTSIDE}
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


@pytest.mark.parametrize("engine", ["snakemake", "dvc"])
def test_new_times_of_files_change_nothing(checkouts: dict[str, Path], engine: str) -> None:
    for folder in ("indm", "params", "results/smoke/data", "results/smoke/runs"):
        for file in (checkouts[engine] / folder).rglob("*"):
            file.touch()
    assert jobs(checkouts[engine], engine) == set()


def test_an_edit_of_the_layout_of_rules_changes_nothing(checkouts: dict[str, Path]) -> None:
    file = checkouts["snakemake"] / "workflow/rules/stages.smk"
    with edited(file, f"# A comment.\n\n{file.read_text()}"):
        assert jobs(checkouts["snakemake"], "snakemake") == set()


@pytest.mark.parametrize("engine", ["snakemake", "dvc"])
def test_an_edit_of_docstrings_and_comments_anywhere_runs_nothing(checkouts: dict[str, Path], engine: str) -> None:
    with ExitStack() as edits:
        for file in sorted((checkouts[engine] / "indm").rglob("*.py")):
            edits.enter_context(edited(file, file.read_text().replace('"""', '"""Edited. ', 1) + "\n# A comment.\n"))
        assert jobs(checkouts[engine], engine) == set()


NEW_FLOW = """
from indm.flows.registered.resflow import ResidualFlow

FLOW = ResidualFlow
"""
NEW_DATASET = """
from dataclasses import replace

from indm.data.registered.digits import DATASET as DIGITS

DATASET = replace(DIGITS, source="another")
"""


@pytest.mark.parametrize("engine", ["snakemake", "dvc"])
def test_a_new_flow_and_a_new_dataset_run_nothing(checkouts: dict[str, Path], engine: str) -> None:
    new = {"flows/registered/another_flow.py": NEW_FLOW, "data/registered/another_dataset.py": NEW_DATASET}
    files = {checkouts[engine] / "indm" / name: text for name, text in new.items()}
    for file, text in files.items():
        file.write_text(text)
    assert jobs(checkouts[engine], engine) == set()
    code = "from indm.suite.load import json_schema; print('another-flow' in json_schema(), 'another-dataset' in json_schema())"
    assert run(checkouts[engine], "python", "-c", code).stdout.split() == ["True", "True"]
    for file in files:
        file.unlink()


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


@pytest.mark.parametrize("engine", ["snakemake", "dvc"])
def test_an_edit_of_a_flow_trains_the_runs_that_have_it(checkouts: dict[str, Path], engine: str) -> None:
    file = checkouts[engine] / "indm/flows/registered/resflow.py"
    with edited(file, f"{file.read_text()}\nResidualFlow = ResidualFlow\n"):
        trained = {job for job in jobs(checkouts[engine], engine) if job.startswith("train ")}
    assert trained == {f"train digits-{run}-s0" for run in ("ve-indm-fid", "vp-indm-fid", "vp-indm-nll")}


OTHER, VE, LINEAR = "digits-vp-indm-nll-s0", "digits-ve-indm-fid-s0", "digits-vp-ddpmpp-fid-s0"
CHECKPOINT = "runs/{}/checkpoint.safetensors"
# A file, what is put in its place (another file, or what becomes of its bytes), and a stage that reads it.
FAULTS: dict[str, tuple[str, str | Callable[[bytes], bytes], str]] = {
    "another run's samples": (f"runs/{RUN}/samples.npy", f"runs/{OTHER}/samples.npy", "fid"),
    "VE in VP": (CHECKPOINT.format(RUN), CHECKPOINT.format(VE), "nll"),
    "DDPM++ in INDM": (CHECKPOINT.format(RUN), CHECKPOINT.format(LINEAR), "sample"),
    "another run's likelihood": (f"runs/{RUN}/nll.json", f"runs/{OTHER}/nll.json", "table"),
    "a flipped byte of the test images": ("data/digits/test.npy", lambda old: old[:-1] + bytes([old[-1] ^ 1]), "nll"),
    "other levels": ("data/digits/dataset.json", lambda old: old.replace(b'"levels": 17', b'"levels": 16'), "nll"),
    "a table that is cut off": (f"runs/{RUN}/sweep.csv", lambda old: old[: len(old) * 6 // 10], "table"),
    "an empty likelihood": (f"runs/{RUN}/nll.json", lambda old: b"{}", "table"),
    "a likelihood of NaN": (
        f"runs/{RUN}/nll.json",
        lambda old: re.sub(rb'"nll": [0-9.]+', b'"nll": NaN', old),
        "table",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_what_it_seems_gives_no_number(checkouts: dict[str, Path], fault: str) -> None:
    """By hand, a stage stops with one line and leaves all as it was; DVC makes the file again."""
    name, change, stage = FAULTS[fault]
    results = checkouts["dvc"] / "results/smoke"
    file, subject = results / name, [] if stage == "table" else ["--run", RUN]
    original = file.read_bytes()
    content = change(original) if callable(change) else (results / change).read_bytes()
    assert content != original
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file() and path != file}
    # Not written into: it may be a link into DVC's cache.
    file.unlink()
    file.write_bytes(content)
    done = run(checkouts["dvc"], "python", "-m", "indm", stage, "--suite", "params/smoke.yaml", *subject)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"indm {stage}: results/smoke/{name}: found SHA-256 ")
    assert {path: path.read_bytes() for path in before} == before
    assert run(checkouts["dvc"], *DVC).returncode == 0
    assert file.read_bytes() == original


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
    # It begins as the page does.
    page = (checkouts["snakemake"] / "reports/smoke/index.html").read_text()
    for question in re.findall(r'<a href="#answer-[^"]+">([^<]+)</a>', page):
        assert question in report
    assert "grade grade-undecided" in report
    assert len(report) < 20e6


def test_a_clone_pulls_what_was_pushed_and_computes_nothing(checkouts: dict[str, Path], tmp_path: Path) -> None:
    """The commands of docs/share.md."""
    clone, git = tmp_path / "clone", ["git", "-c", "user.name=reader", "-c", "user.email=reader@example.org"]
    for checkout, command in (
        (checkouts["dvc"], ["dvc", "remote", "add", "--default", "store", str(tmp_path / "store")]),
        (checkouts["dvc"], ["git", "add", "--all"]),
        (checkouts["dvc"], [*git, "commit", "--quiet", "--message", "Results"]),
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


def test_dvc_adopts_what_snakemake_made(checkouts: dict[str, Path]) -> None:
    """Last of all: it leaves a lock file in Snakemake's copy."""
    checkout = checkouts["snakemake"]
    add_dvc_file(checkout, "smoke")
    for command in (["dvc", "repro", f"{DVC[-1]}:validate"], ["dvc", "commit", "--force", DVC[-1]]):
        done: subprocess.CompletedProcess[str] = run(checkout, *command)
        assert done.returncode == 0, done.stderr
    assert jobs(checkout, "dvc") == set()
