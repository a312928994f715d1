"""Stages in shards: the same bytes whatever their number, after a kill too, and never from another's shard."""

import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from indm.bench.cli import main
from indm.bench.pipeline.input_check import InputCheck
from indm.bench.pipeline.jobs import Job, job_inputs, job_parameters
from indm.bench.pipeline.stages import STAGES
from indm.bench.stages import sample
from indm.bench.suite.load import load_suite
from indm.bench.suite.schema.suite import Suite
from indm.bench.watching.status import Board
from indm.diffusion import generate
from indm.errors import DivergenceError, ParamsError
from indm.store.files import read_json, read_weights, write_weights
from indm.store.layout import Layout
from indm.store.shards import FORMAT, share
from tests.conftest import REPOSITORY
from tests.finished import do, run

RUN = "digits-vp-indm-fid-s0"
FILES = {
    "sample": ("samples.npy", "samples.json", "samples.png", "neighbours.png", "diffusion.png"),
    "nll": ("nll.csv", "nll.json"),
    "sweep": ("sweep.csv",),
}
MAKES = {"sample": "generate.draw_batch", "nll": "evaluation._evaluate", "sweep": "generate.draw_batch"}


def content(**changes: Any) -> dict[str, Any]:
    """The smoke suite with one run, its model smaller and its evaluation of five batches and more, with changes."""
    found = yaml.safe_load((REPOSITORY / "params/smoke.yaml").read_text())
    found["train"]["score"] |= {"multipliers": [1], "attention_resolutions": []}
    found["train"]["flow"]["blocks"] = [1]
    found["train"] |= {"steps": 3, "snapshots": [], "warmup_steps": 0}
    found["sample"] |= {"steps": 3, "batch_size": 16}
    # The last batch is a smaller one.
    found["nll"] |= {"images": 10, "batch_size": 2, "tolerance": None, "ode_steps": 2, "time_draws": 2}
    found["nll"]["uncorrected"] = False
    found["sweep"] |= {"samplers": ["pc", "ancestral", "ode_euler"], "steps": [2, 3], "batch_size": 15}
    found["grading"] |= {"samplers": None, "images": {"simple": None, "scale": None}}
    return found | {"runs": {RUN: found["runs"][RUN]}, "tune": {}} | changes


def write_suite(folder: Path, **changes: Any) -> Path:
    path = folder / "smoke.yaml"
    path.write_text(yaml.safe_dump(content(**changes), sort_keys=False))
    return path


def call(stage: str, folder: Path, *options: str, **changes: Any) -> Result:
    """Run a job on the results of a folder by a suite with changes."""
    words = options or ("--run", RUN)
    arguments = [stage, "--suite", str(write_suite(folder, **changes)), "--out", str(folder / "results"), *words]
    return CliRunner().invoke(main, arguments)


def done(stage: str, folder: Path, *options: str, **changes: Any) -> Result:
    result = call(stage, folder, *options, **changes)
    assert result.exit_code == 0, result.output
    return result


def run_of(folder: Path) -> Path:
    return Layout(folder / "results", "smoke").run(RUN)


def shard(stage: str, folder: Path, number: int, count: int, **changes: Any) -> Result:
    options = ("--run", RUN, "--shard", str(number))
    return call(f"{stage}-shard", folder, *options, shards={stage: count}, **changes)


def outputs(stage: str, folder: Path) -> dict[str, bytes]:
    """All that a stage has written, its manifest too."""
    return {name: (run_of(folder) / name).read_bytes() for name in (*FILES[stage], f"manifest/{stage}.json")}


def gathered(stage: str, folder: Path, count: int, **changes: Any) -> dict[str, bytes]:
    """What a stage writes in shards, the last of which comes first."""
    for number in range(count, 0, -1) if count > 1 else ():
        result = shard(stage, folder, number, count, **changes)
        assert result.exit_code == 0, result.output
    done(stage, folder, shards={stage: count}, **changes)
    return outputs(stage, folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a trained run."""
    folder = tmp_path_factory.mktemp("trained")
    for stage in ("prepare", "reference"):
        done(stage, folder, "--dataset", "digits")
    done("train", folder)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture(scope="module")
def whole(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, dict[str, bytes]]:
    """What the stages write without shards."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    for stage in FILES:
        done(stage, folder)
    return {stage: outputs(stage, folder) for stage in FILES}


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("stage", FILES)
def test_the_number_of_shards_changes_no_byte(
    folder: Path, whole: Mapping[str, dict[str, bytes]], stage: str, count: int
) -> None:
    assert gathered(stage, folder, count) == whole[stage]
    files = sorted(run_of(folder).glob(f"shards/*/{stage}.safetensors"))
    assert [path.parent.name for path in files] == [str(number) for number in range(1, count + 1) if count > 1]
    # Each batch is in one shard, and no shard is empty.
    made = [set(read_weights(path, FORMAT)[1]["batches"]) for path in files]
    assert all(made)
    assert sum(map(len, made)) == len(set().union(*made))
    assert not (folder / "results/smoke/scratch").exists() or not list((folder / "results/smoke/scratch").rglob("*.*"))


@pytest.mark.parametrize("stage", FILES)
def test_no_batch_is_made_where_shards_are_gathered(folder: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("indm.store.provenance._device", lambda: "cuda (elsewhere)")
        for number in (1, 2):
            assert shard(stage, folder, number, 2).exit_code == 0

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("made")

    monkeypatch.setattr(f"indm.diffusion.{MAKES[stage]}", fail)
    done(stage, folder, shards={stage: 2})
    # It counts the time of its shards, and names where they were computed.
    record = read_json(run_of(folder) / f"provenance/{stage}.json")
    assert record["device"] == "cuda (elsewhere)"
    seconds = record["seconds"]
    files = run_of(folder).glob(f"shards/*/{stage}.safetensors")
    assert seconds > sum(read_weights(path, FORMAT)[1]["seconds"] for path in files)


class KillError(BaseException):
    """What a test raises in the place of a kill."""


@pytest.mark.parametrize("stage", FILES)
def test_a_shard_that_was_killed_goes_on_by_the_batch(
    folder: Path, whole: Mapping[str, dict[str, bytes]], stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _, function = f"indm.diffusion.{MAKES[stage]}".rpartition(".")
    original, calls = getattr(sys.modules[module], function), []

    def make(*arguments: Any, **settings: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KillError
        return original(*arguments, **settings)

    monkeypatch.setattr(sys.modules[module], function, make)
    with pytest.raises(KillError):
        call(f"{stage}-shard", folder, "--run", RUN, "--shard", "1", shards={stage: 2})
    layout = Layout(folder / "results", "smoke")
    assert len(list(layout.scratch(f"{RUN}-1", f"{stage}_shard").glob("*.safetensors"))) == 1
    assert gathered(stage, folder, 2) == whole[stage]
    batches = {"sample": 5, "nll": 5, "sweep": 4 * 3}
    # Every batch was made once, and the one that was cut off again.
    assert len(calls) == batches[stage] + 1


def test_a_sampler_that_fails_is_skipped_in_the_words_of_its_first_batch(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = generate.draw_batch

    def draw(model: Any, start: int, count: int, **settings: Any) -> Any:
        if settings["steps"] == 3 and start >= 15:
            raise DivergenceError(f"batch {start} is not finite")
        return original(model, start, count, **settings)

    monkeypatch.setattr(generate, "draw_batch", draw)
    done("sweep", folder)
    expected = outputs("sweep", folder)
    assert expected["sweep.csv"].count(b"batch 15 is not finite") == 2
    assert b"batch 30" not in expected["sweep.csv"]
    for count in (2, 5):
        assert gathered("sweep", folder, count) == expected


def test_the_batches_of_every_row_are_dealt_out_evenly(folder: Path) -> None:
    for number in (1, 2, 3):
        assert shard("sweep", folder, number, 3).exit_code == 0
    for number in (1, 2, 3):
        names = read_weights(run_of(folder) / f"shards/{number}/sweep.safetensors", FORMAT)[1]["batches"]
        rows = ["ancestral-2", "ancestral-3", "ode_euler-2", "ode_euler-3"]
        assert sorted(name.rpartition("-")[0] for name in names) == rows
    for count in (2, 3, 7):
        dealt = [(row, batch) for row in range(4) for batch in range(3)]
        hands = [
            [(row, batch) for row in range(4) for batch in range(3)[share(number, count, before=3 * row)]]
            for number in range(1, count + 1)
        ]
        assert sorted(item for hand in hands for item in hand) == dealt
        assert max(map(len, hands)) - min(map(len, hands)) <= 1


def test_a_shard_of_another_training_is_refused(folder: Path) -> None:
    for number in (1, 2):
        assert shard("nll", folder, number, 2).exit_code == 0
    train = content()["train"] | {"lr": 1e-3}
    done("train", folder, train=train)
    result = call("nll", folder, shards={"nll": 2}, train=train)
    assert result.exit_code == 1
    assert (
        f"shards/1/manifest/nll_shard.json: made from another {run_of(folder)}/checkpoint.safetensors" in result.output
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"code": "0" * 64}, "shards/2/sample.safetensors: found code stamp 000000000000, expected "),
        ({"batches": {}}, "shards/1/sample.safetensors: found no batch 16 in this shard or another one, expected it"),
    ],
)
def test_a_shard_of_other_code_or_without_a_batch_is_refused(folder: Path, change: dict[str, Any], words: str) -> None:
    for number in (1, 2):
        assert shard("sample", folder, number, 2).exit_code == 0
    path = run_of(folder) / "shards/2/sample.safetensors"
    tensors, spec = read_weights(path, FORMAT)
    write_weights(path, tensors, spec | change, FORMAT)
    suite = load_suite(write_suite(folder, shards={"sample": 2}))
    with pytest.raises(Exception, match=words):
        run(sample, suite, Layout(folder / "results", "smoke"), RUN)
    # And before that, since it is not what its manifest says.
    assert "shards/2/sample.safetensors: found SHA-256 " in call("sample", folder, shards={"sample": 2}).output


@pytest.mark.parametrize(("number", "count"), [(3, 2), (0, 2), (1, 1)])
def test_a_shard_that_there_is_not_is_refused(folder: Path, number: int, count: int) -> None:
    result = shard("sample", folder, number, count)
    expected = "none" if count == 1 else f"{RUN}-1, {RUN}-2"
    assert (
        f"found no job of stage sample_shard for shard '{RUN}-{number}', expected one of: {expected}" in result.output
    )


MISTAKES = {
    "sample": ({"shards": {"sample": 6}}, "key shards.sample: found 6; allowed: up to 5, the batches of 80 images"),
    "a run's own batches": (
        {"runs": {RUN: content()["runs"][RUN] | {"sample": {"batch_size": 40}}}, "shards": {"sample": 3}},
        f"run {RUN}, key shards.sample: found 3; allowed: up to 2, the batches of 80 images",
    ),
    "nll": (
        {"shards": {"nll": 6}},
        "key shards.nll: found 6; allowed: up to 5, the batches of 10 images (nll.images) by 2",
    ),
    "all images": (
        {"shards": {"nll": 200}, "nll": content()["nll"] | {"images": None}},
        "key shards.nll: found 200; allowed: up to 180, the batches of 360 images (digits, split test) by 2",
    ),
    # Of pc, which the run has no corrector for, there are none.
    "sweep": (
        {"shards": {"sweep": 13}},
        "key shards.sweep: found 13; allowed: up to 12, the batches of 4 times 40 images",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_number_is_one_line_that_names_the_key(tmp_path: Path, mistake: str) -> None:
    changes, words = MISTAKES[mistake]
    with pytest.raises(ParamsError) as error:
        load_suite(write_suite(tmp_path, **changes), with_data=True)
    (line,) = str(error.value).splitlines()
    assert words in line


def test_a_run_of_which_no_row_is_drawn_may_have_shards_of_none(tmp_path: Path) -> None:
    changes = {"shards": {"sweep": 9}, "sweep": content()["sweep"] | {"objectives": []}}
    suite = load_suite(write_suite(tmp_path, **changes), with_data=True)
    assert STAGES["sweep_shard"].subjects(suite) == []


def test_status_shows_shards_in_the_rows_of_their_run(folder: Path) -> None:
    assert shard("sample", folder, 1, 2).exit_code == 0
    suite = load_suite(write_suite(folder, shards={"sample": 2}))
    board = Board(InputCheck(suite, folder / "results", folder / "reports"))

    def found() -> list[tuple[str, str, str]]:
        rows = [row for row in board.rows(time.time()) if row.job.subject.startswith(RUN)]
        return [(*row.job, row.state) for row in rows]

    assert found() == [("sample_shard", f"{RUN}-2", "waiting")]
    for number in (1, 2):
        watch = board.checks.layout.watch("sample_shard", f"{RUN}-{number}")
        watch.write_text(json.dumps({"time": time.time(), "event": "start"}) + "\n")
    assert found() == [("sample_shard", f"{RUN}-{number}", "running") for number in (1, 2)]


def test_finished_runs_are_kept_and_restored_without_their_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(REPOSITORY / "params", tmp_path / "params")
    suite = load_suite(write_suite(tmp_path / "params", shards={"sample": 2, "sweep": 2, "nll": 2}))
    monkeypatch.chdir(tmp_path)
    for name, stage in STAGES.items():
        for subject in stage.subjects(suite) if stage.subject else ():
            do(suite, tmp_path, Job(name, subject))
    files = list(tmp_path.glob("results/smoke/runs/*/shards/*/*.safetensors"))
    assert len(files) == 6
    # As Snakemake does.
    for path in files:
        path.unlink()
    for command in ("keep", "restore"):
        result = CliRunner().invoke(main, [command, "--suite", "params/smoke.yaml"])
        assert "0 skipped, 0 refused" in result.output
        if command == "keep":
            shutil.rmtree(tmp_path / "results")
    InputCheck(suite, Path("results"), Path("reports")).check(Job("table", ""))
    assert not list(tmp_path.glob("results/smoke/runs/*/shards"))


def test_results_know_nothing_of_the_number_and_shards_do() -> None:
    suites = [Suite.model_validate(content(shards=dict.fromkeys(FILES, count))) for count in (2, 5)]
    for stage in FILES:
        first, second = (job_parameters(suite, Job(stage, RUN)) for suite in suites)
        assert first == second
        found = [job_parameters(suite, Job(f"{stage}_shard", f"{RUN}-1"))[f"shards.{stage}"] for suite in suites]
        assert found == [2, 5]
        assert (
            len([1 for _, maker in job_inputs(suites[1], Job(stage, RUN)) if maker and maker.stage == f"{stage}_shard"])
            == 5
        )
