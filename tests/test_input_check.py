"""Files that are not what they seem: every kind of file that a stage reads, with every fault, stops the stage by its name."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner, Result

from indm.bench.cli import main
from indm.bench.pipeline.input_check import InputCheck
from indm.bench.pipeline.jobs import (
    IMPORTED,
    MAKERS,
    Job,
    job_inputs,
    job_names,
    job_parameters,
    lasting_inputs,
    manifest,
)
from indm.bench.pipeline.stages import STAGES
from indm.bench.suite.load import load_suite
from indm.bench.suite.schema.suite import Suite
from indm.errors import ArtifactError
from tests.conftest import REPOSITORY
from tests.finished import do

# With every kind of job.
SMOKE = Suite.model_validate(
    load_suite(REPOSITORY / "params/smoke.yaml").model_dump(exclude_unset=True)
    | {"shards": {"sample": 2, "sweep": 2, "nll": 2}}
)
JOBS = [Job(name, subject) for name, stage in STAGES.items() for subject in stage.subjects(SMOKE)]


def checks(root: Path, suite: Suite = SMOKE) -> InputCheck:
    return InputCheck(suite, root / "results", root / "reports")


def test_a_key_that_a_suite_leaves_out_is_no_parameter_of_a_job() -> None:
    """Or results that were made before the schema had the key would belong to another suite."""
    fashion = load_suite(REPOSITORY / "params/fashion-full.yaml")
    parameters = job_parameters(fashion, Job("prepare", "fashion-mnist"))
    assert parameters == {"datasets.fashion-mnist": {"split_seed": 0}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite whose jobs have all run, after a fashion: each file holds its own name."""
    root = tmp_path_factory.mktemp("finished")
    (root / "params").symlink_to(REPOSITORY / "params")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for job in JOBS:
            do(SMOKE, root, job)
    return root


@pytest.fixture
def copied(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in which the test runs."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Read(NamedTuple):
    """A file that a stage reads."""

    reader: Job
    path: str
    maker: Job


def kinds() -> Iterator[Read]:
    """Yield each kind of file that a stage reads once, with the first job that reads it."""
    known = set()
    for reader in JOBS:
        for path, maker in job_inputs(SMOKE, reader):
            if maker is not None:
                kind = (reader.stage, maker.stage, Path(path).name)
                if kind not in known:
                    known.add(kind)
                    yield Read(reader, path, maker)


def _file(root: Path, read: Read) -> Path:
    path = root / read.path
    return path / "figure.svg" if path.is_dir() else path


def _manifest(root: Path, read: Read) -> Path:
    return root / manifest(read.maker.stage).format(**job_names(SMOKE, read.maker))


def flip(root: Path, read: Read) -> None:
    path = _file(root, read)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def swap_with_manifest(root: Path, read: Read) -> None:
    """Put another job's file and manifest in its place."""
    _file(root, read).write_text("another job's")
    path = _manifest(root, read)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"subject": "another"}))


def another_suite(root: Path, read: Read) -> None:
    path = _manifest(root, read)
    path.write_text(path.read_text().replace('"suite": "smoke"', '"suite": "digits"'))


def older_format(root: Path, read: Read) -> None:
    path = _manifest(root, read)
    path.write_text(path.read_text().replace("indm-manifest-", "indm-manifest-0-"))


def no_manifest(root: Path, read: Read) -> None:
    _manifest(root, read).unlink()


def damaged_manifest(root: Path, read: Read) -> None:
    _manifest(root, read).write_text("{}")


def missing(root: Path, read: Read) -> None:
    path = root / read.path
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


FAULTS: list[tuple[Callable[[Path, Read], None], str]] = [
    (flip, "expected .* by .*: damaged, or another file"),
    (swap_with_manifest, "found the manifest of suite smoke, stage .* another, expected the manifest of suite smoke, "),
    (another_suite, "found the manifest of suite digits, stage .*, expected the manifest of suite smoke, stage "),
    (older_format, "found format 'indm-manifest-0-1', expected 'indm-manifest-1'"),
    (no_manifest, "missing, so the origin of the files of stage"),
    (damaged_manifest, "found format None, expected"),
    (missing, "missing; run the stage that writes it"),
]


def test_all_that_stages_write_for_others_is_looked_at() -> None:
    read = {pattern for stage in STAGES.values() for pattern in stage.inputs if pattern in MAKERS}
    assert {(MAKERS[pattern], Path(pattern).name) for pattern in read} == {
        (
            read.maker.stage,
            Path(read.path).name.replace(read.maker.subject or "\0", "{" + STAGES[read.maker.stage].subject + "}"),
        )
        for read in kinds()
    }


def refusal(root: Path, read: Read, fault: Callable[[Path, Read], None]) -> str:
    """Return the words with which a stage refuses a file with a fault, which is undone."""
    before = {path: path.read_bytes() for path in (_file(root, read), _manifest(root, read))}
    fault(root, read)
    try:
        checks(root).check(read.reader)
    except ArtifactError as error:
        return str(error)
    finally:
        for path, content in before.items():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
    return ""


@pytest.mark.parametrize(("fault", "message"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_a_file_that_is_not_what_it_seems_is_refused(
    finished: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[Path, Read], None], message: str
) -> None:
    """A file and a folder with each fault; whatever a stage reads, with another content and with another's manifest."""
    monkeypatch.chdir(finished)
    reads = list(kinds())
    if fault not in (flip, swap_with_manifest):
        reads = [next(read for read in reads if (finished / read.path).is_dir() == folder) for folder in (False, True)]
    for read in reads:
        # The fault alone is refused.
        checks(finished).check(read.reader)
        found = refusal(finished, read, fault)
        assert re.search(message, found), (read, found)
        # By the file's name, or its manifest's.
        assert found.startswith((str(_manifest(finished, read)), str(finished / read.path)))
        assert "again" in found or "first" in found


def changed(**sections: object) -> Suite:
    return Suite.model_validate(SMOKE.model_dump(exclude_unset=True) | sections)


def test_what_other_parameters_made_is_refused_with_their_values(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    suite = changed(train=SMOKE.train.model_dump(exclude_unset=True) | {"lr": 0.125})
    run = next(iter(SMOKE.runs))
    expected = (
        rf"manifest/train.json: made with other parameters .*: train\.lr: found {SMOKE.train.lr}, expected 0\.125"
    )
    # By the stage that reads it, and by those that read what was made from it.
    for stage in ("nll", "fid"):
        with pytest.raises(ArtifactError, match=expected):
            checks(finished, suite).check(Job(stage, run))
    # What did not depend on it is as good as before.
    checks(finished, suite).check(Job("reference", "digits"))


def test_what_was_made_from_something_since_replaced_is_refused(copied: Path) -> None:
    """Trained again, and not sampled again."""
    run = next(iter(SMOKE.runs))
    inputs = checks(copied).check(Job("train", run))
    checkpoint = copied / f"results/smoke/runs/{run}/checkpoint.safetensors"
    checkpoint.write_text("other weights")
    checks(copied).record(Job("train", run), inputs)
    with pytest.raises(ArtifactError, match=r"manifest/sample\.json.*checkpoint\.safetensors"):
        checks(copied).check(Job("fid", run))
    with pytest.raises(ArtifactError, match=r"manifest/\w+\.json"):
        checks(copied).check(Job("table", ""))


def test_a_table_that_was_made_without_a_run_is_refused(copied: Path) -> None:
    path = copied / "results/smoke/tables/manifest/table.json"
    manifest = json.loads(path.read_text())
    manifest["inputs"].popitem()
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"manifest/table\.json: made from other files than the suite has now"):
        checks(copied).check(Job("claims", ""))


def test_a_table_of_runs_that_are_swept_no_more_is_refused(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    suite = changed(sweep=SMOKE.sweep.model_dump() | {"objectives": []})
    with pytest.raises(ArtifactError, match=r"manifest/table\.json.*sweep"):
        checks(finished, suite).check(Job("claims", ""))


def test_verdicts_by_claims_that_were_edited_since_are_refused(copied: Path) -> None:
    checks(copied).check(Job("report", ""))
    with (copied / "params/claims.yaml").open("a") as file:
        file.write("# edited\n")
    with pytest.raises(ArtifactError, match=r"manifest/claims\.json.*params/claims\.yaml"):
        checks(copied).check(Job("report", ""))


def test_a_stage_outside_of_a_checkout_says_so(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError, match=r"params/published\.csv: missing"):
        checks(finished).check(Job("table", ""))


def test_an_imported_checkpoint_is_made_from_the_description_alone(copied: Path) -> None:
    job = Job("train", next(iter(SMOKE.runs)))
    checks(copied).record(job, checks(copied).check(job, IMPORTED))
    checks(copied).check(Job("nll", job.subject))


def test_results_that_were_copied_without_what_they_were_made_from_are_read(copied: Path) -> None:
    shutil.rmtree(copied / "results/smoke/data")
    shutil.rmtree(copied / "results/smoke/runs")
    checks(copied).check(Job("claims", ""))


def test_every_job_says_what_it_was_made_by(finished: Path) -> None:
    for job in JOBS:
        content = json.loads((finished / manifest(job.stage).format(**job_names(SMOKE, job))).read_text())
        assert (content["stage"], content["subject"], content["suite"]) == (*job, "smoke")
        assert content["parameters"] == json.loads(json.dumps(job_parameters(SMOKE, job)))
        assert set(content["inputs"]) == set(lasting_inputs(SMOKE, job))


def call(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--suite", "params/smoke.yaml", "--out", str(root / "results")])


def test_the_command_line_stops_with_one_line_and_leaves_everything(tmp_path: Path) -> None:
    """A byte of the test images flipped; a training of other data would have the same name."""
    assert call(tmp_path, "prepare", "--dataset", "digits").exit_code == 0
    test = tmp_path / "results/smoke/data/digits/test.npy"
    content = bytearray(test.read_bytes())
    content[-1] ^= 1
    test.write_bytes(content)
    before = sorted(path.name for path in test.parent.rglob("*"))
    done = call(tmp_path, "reference", "--dataset", "digits")
    assert done.exit_code == 1
    assert done.output.count("\n") == 1
    assert done.output.startswith(f"indm reference: {test}: found SHA-256 ")
    assert sorted(path.name for path in test.parent.rglob("*")) == before
