"""Stages that are cut off and run again: the same bytes, and never from what belongs to something else."""

import errno
import fcntl
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import yaml
from click.testing import CliRunner

from indm.bench.cli import main
from indm.bench.pipeline.input_check import InputCheck
from indm.bench.pipeline.jobs import Job
from indm.bench.pipeline.runner import work_of
from indm.bench.stages import curve, nll, prepare, reference, sample, sweep, train
from indm.bench.suite.schema.suite import Suite
from indm.diffusion import evaluation
from indm.diffusion.path import nelbo
from indm.errors import ArtifactError, DivergenceError
from indm.store import files as artifacts
from indm.store import scratch as resume
from indm.store.files import read_json, read_weights
from indm.store.layout import Layout
from indm.store.scratch import Work, open_scratch
from indm.training.batches import Draws
from indm.training.loop import History
from indm.training.trainer import Trainer
from tests import kill
from tests.conftest import REPOSITORY
from tests.finished import run

RUN = "digits-vp-indm-fid-s0"
STEPS = 12
# In the training of the flow alone, and after the last snapshot and the start of a fresh score.
CUTS = (4, 9)
OUTPUTS = ("checkpoint.safetensors", "snapshots.safetensors", "train.csv", "train.json")
WOLF = {
    "latent_dim": 4,
    "encoder_widths": [4, 4],
    "encoder_channels_out": 2,
    "prior_steps": 1,
    "prior_width": 8,
    "frozen_prior_inverse": True,
}


def suite_of(changes: dict[str, Any] | None = None, **train: Any) -> Suite:
    """The smoke suite, its models smaller, its training short and saved after every step, with changes."""
    content = yaml.safe_load((REPOSITORY / "params/smoke.yaml").read_text()) | {"save_seconds": 0.0}
    content["train"]["score"] |= {"multipliers": [1], "attention_resolutions": []}
    content["train"]["flow"]["blocks"] = [1]
    content["train"] |= {"steps": STEPS, "snapshots": [3, 7], "flow_warmup_steps": 0, **train}
    content["sweep"] |= {"samplers": ["ancestral", "pc"], "steps": [3], "batch_size": 10}
    content["grading"] |= {"samplers": None, "images": {"simple": None, "scale": None}}
    content |= {"runs": {RUN: content["runs"][RUN]}, "tune": {}}
    return Suite.model_validate(content | (changes or {}))


SUITE = suite_of()


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A results folder with the dataset and its reference."""
    layout = Layout(tmp_path_factory.mktemp("results"), "smoke")
    prepare.run(SUITE, layout, "digits", data_root=None)
    record(layout, "prepare", "digits")
    reference.run(SUITE, layout, "digits")
    return layout


def record(layout: Layout, stage: str, subject: str) -> None:
    """Write the manifest of a stage that was not run by the command line."""
    checks, job = InputCheck(SUITE, layout.root, layout.root), Job(stage, subject)
    checks.record(job, checks.check(job))


@pytest.fixture
def scratch(layout: Layout) -> Iterator[Path]:
    """The folder of the training's unfinished work, empty before and after."""
    folder = layout.scratch(RUN, "train")
    yield folder
    for path in sorted(folder.parent.parent.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()


class PowerCutError(Exception):
    """What a test raises in the place of a kill."""


def cut_at(step: int) -> Callable[[str], Callable[[range], Iterable[int]]]:
    """Make a progress bar that ends everything before a step (or batch)."""

    def progress(steps: range) -> Iterator[int]:
        for i in steps:
            if i == step:
                raise PowerCutError
            yield i

    return lambda *_: progress


def outputs(folder: Path, names: Iterable[str] = OUTPUTS) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


def cut(suite: Suite, layout: Layout, before: int = 5, stage: Any = train) -> None:
    """Leave the unfinished work of a training that was cut off before a step, or of another stage before a batch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "bar", cut_at(before))
        with pytest.raises(PowerCutError):
            run(stage, suite, layout, RUN)


def train_with_cuts(suite: Suite, layout: Layout, cuts: Iterable[int]) -> dict[str, bytes]:
    for step in cuts:
        cut(suite, layout, step)
        assert layout.scratch(RUN, "train").exists()
    found = outputs(run(train, suite, layout, RUN).folder)
    assert not (layout.suite_folder / "scratch" / RUN).exists()
    return found


# Their state has what another variant has, too.
SLOW = {"wolf", "joint"}


@pytest.fixture(scope="module")
def undisturbed(layout: Layout) -> dict[str, bytes]:
    """What a training that nothing disturbs writes."""
    return train_with_cuts(SUITE, layout, [])


VARIANTS: dict[str, Suite] = {
    "fid": SUITE,
    "flow alone first, dropout, micro-batches": suite_of(
        flow_warmup_steps=5, micro_batches=2, score=SUITE.train.score.model_dump() | {"dropout": 0.2}
    ),
    "running deviation": suite_of(score=SUITE.train.score.model_dump() | {"normalise_input": "running"}),
    "wolf": suite_of(flow=SUITE.train.flow.model_dump() | {"name": "wolf", "wolf": WOLF}),
    "fresh score": suite_of(fresh_score_after=7, flow_warmup_steps=1),
    "share of the log-determinant": suite_of(log_det_share=0.125, micro_batches=2, flow_warmup_steps=3),
    "joint": suite_of({"runs": {RUN: SUITE.runs[RUN].model_dump(exclude_unset=True) | {"objective": "nll"}}}),
}


@pytest.mark.parametrize(
    "variant", [pytest.param(name, marks=[pytest.mark.long] if name in SLOW else []) for name in VARIANTS]
)
def test_a_training_that_was_cut_off_anywhere_has_the_same_bytes(layout: Layout, scratch: Path, variant: str) -> None:
    undisturbed = train_with_cuts(VARIANTS[variant], layout, [])
    assert train_with_cuts(VARIANTS[variant], layout, CUTS) == undisturbed


class SavesAfterFour(train.Saver):
    def __call__(self, history: History) -> None:
        self.seconds = 0 if history.done == 4 else math.inf
        super().__call__(history)


def test_what_was_saved_long_before_the_cut_is_enough(
    layout: Layout, scratch: Path, undisturbed: dict[str, bytes]
) -> None:
    """Steps since the last saving are done again, the snapshot of step 7 too; without any, all of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "Saver", SavesAfterFour)
        assert train_with_cuts(SUITE, layout, [9]) == undisturbed
    assert train_with_cuts(SUITE.model_copy(update={"save_seconds": 1e9}), layout, [9]) == undisturbed


def test_a_later_snapshot_does_not_stand_for_a_damaged_one(
    layout: Layout, scratch: Path, undisturbed: dict[str, bytes]
) -> None:
    """The state is of step 4; the snapshot of step 7 has been written since."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "Saver", SavesAfterFour)
        cut(SUITE, layout, 9)
    (scratch / "snapshot-3.safetensors").write_bytes(b"not safetensors")
    assert train_with_cuts(SUITE, layout, []) == undisturbed


@pytest.mark.parametrize(
    "other",
    [suite_of(lr=1e-3), suite_of({"runs": {RUN: SUITE.runs[RUN].model_dump(exclude_unset=True) | {"seed": 1}}})],
    ids=["learning rate", "seed"],
)
def test_the_state_of_something_else_is_ignored(
    layout: Layout, scratch: Path, undisturbed: dict[str, bytes], other: Suite, capsys: pytest.CaptureFixture[str]
) -> None:
    cut(other, layout)
    assert {path.name for path in scratch.iterdir()} == {"lock", "snapshot-3.safetensors", "state.safetensors"}
    capsys.readouterr()
    assert train_with_cuts(SUITE, layout, []) == undisturbed
    errors = capsys.readouterr().err
    assert f"{scratch}: removing 2 files of other parameters, data, code or versions" in errors
    assert "continues after" not in errors


def key(stage: str, suite: Suite = SUITE, subject: str = RUN, stamp: str = "a", inputs: str = "a") -> str:
    return work_of(suite, Layout(Path("results"), "smoke"), Job(stage, subject), stamp, {"input": inputs}).key


def test_other_code_inputs_instructions_and_versions_make_other_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last two change the order of sums, as another processor does."""
    keys = [key("train"), key("train", stamp="b"), key("train", inputs="b")]
    assert keys[0] == key("train")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    keys.append(key("train"))
    for package in ("numpy", "scipy", "torch", "torch-fidelity", "torchdiffeq", "optuna"):
        monkeypatch.setattr("indm.store.provenance.version", lambda name, other=package: str(name == other))
        keys.append(key("train"))
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("stage", "subject", "section", "change", "same"),
    [
        ("train", RUN, "train", {"lr": 1e-5}, False),
        ("sample", RUN, "sample", {"batch_size": 7}, False),
        ("sweep", RUN, "sweep", {"steps": [3, 5]}, True),
        ("sweep", RUN, "sweep", {"grid": "log_snr"}, False),
        ("sweep_shard", f"{RUN}-1", "sweep", {"steps": [3, 5]}, True),
        ("sweep_shard", f"{RUN}-1", "shards", {"sweep": 3}, True),
        ("sample_shard", f"{RUN}-1", "shards", {"sample": 3}, True),
    ],
)
def test_work_goes_on_if_a_job_grows(
    stage: str, subject: str, section: str, change: dict[str, Any], same: bool
) -> None:
    other = suite_of({section: getattr(SUITE, section).model_dump() | change})
    assert (key(stage, other, subject) == key(stage, subject=subject)) == same


@pytest.mark.parametrize(
    ("name", "damage"),
    [("state", b""), ("snapshot-3", b"not safetensors"), ("state", None)],
    ids=["empty", "foreign", "half"],
)
def test_a_damaged_state_is_no_state(
    layout: Layout, scratch: Path, undisturbed: dict[str, bytes], name: str, damage: bytes | None
) -> None:
    """Such as a file that something else left half-written, or a disk after a power cut."""
    cut(SUITE, layout)
    file = scratch / f"{name}.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2] if damage is None else damage)
    assert train_with_cuts(SUITE, layout, []) == undisturbed


def test_times_in_the_future_change_nothing(layout: Layout, scratch: Path, undisturbed: dict[str, bytes]) -> None:
    cut(SUITE, layout)
    for path in layout.suite_folder.rglob("*"):
        os.utime(path, (time.time() + 1e8, time.time() + 1e8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: 0.0)
        assert train_with_cuts(SUITE, layout, []) == undisturbed


def write_suite(folder: Path, suite: Suite) -> str:
    (folder / "smoke.yaml").write_text(yaml.safe_dump(suite.model_dump(exclude_unset=True)))
    return str(folder / "smoke.yaml")


@pytest.mark.parametrize("kept", [True, False])
def test_provenance_counts_the_seconds_of_the_state(layout: Layout, scratch: Path, tmp_path: Path, kept: bool) -> None:
    """Not those of a snapshot, after whose step the training continues, or not at all."""
    cut(SUITE, layout)
    for name, seconds in (("state", 1000.0), ("snapshot-3", 5000.0)):
        tensors, spec = read_weights(scratch / f"{name}.safetensors", resume.FORMAT)
        artifacts.write_weights(scratch / f"{name}.safetensors", tensors, spec | {"seconds": seconds}, resume.FORMAT)
    if not kept:
        (scratch / "state.safetensors").unlink()
    arguments = ["train", "--suite", write_suite(tmp_path, SUITE), "--out", str(layout.root), "--run", RUN]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert (f"continues after step 5, from {scratch}" in done.output) == kept
    earlier = 1000 if kept else 0
    assert earlier < read_json(layout.run(RUN) / "provenance" / "train.json")["seconds"] < earlier + 100


def test_a_loss_that_is_not_finite_keeps_the_last_state(
    layout: Layout, scratch: Path, undisturbed: dict[str, bytes]
) -> None:
    step = Trainer.step

    def diverge(self: Trainer, draws: Draws, lr_factor: float, *, flow_alone: bool = False) -> dict[str, float]:
        if self.averages["score"].updates == 6:
            draws = replace(draws, x=draws.x * math.nan)
        return step(self, draws, lr_factor, flow_alone=flow_alone)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", diverge)
        words = rf"training stopped at step 6: loss nan.*lower lr or flow_lr; the state after step 6 is saved in {scratch}/state"
        with pytest.raises(DivergenceError, match=words):
            run(train, SUITE, layout, RUN)
    state, _ = read_weights(scratch / "state.safetensors", resume.FORMAT)
    assert all(value.isfinite().all() for value in state.values())
    # Had it been the machine's fault, the same command would go on.
    assert train_with_cuts(SUITE, layout, []) == undisturbed


def test_divergence_before_anything_was_saved_says_so(layout: Layout, scratch: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("indm.bench.models.begin.step_flops", lambda *_, **__: 0)
        patch.setattr("indm.training.losses.nelbo", lambda *arguments: math.nan * nelbo(*arguments))
        with pytest.raises(DivergenceError, match="no state"):
            run(train, SUITE, layout, RUN)


@pytest.mark.parametrize("stage", ["train", "sample"])
def test_a_full_disk_is_one_line_and_what_was_kept_stays(
    layout: Layout, scratch: Path, stage: str, tmp_path: Path
) -> None:
    train_with_cuts(SUITE, layout, [])
    record(layout, "train", RUN)
    module: Any = {"train": train, "sample": sample}[stage]
    undisturbed = outputs(run(module, SUITE, layout, RUN).folder)
    writes = iter([*[False] * 3, *[True] * 99])
    sync = os.fsync

    def full(descriptor: int) -> None:
        if next(writes):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    arguments = [stage, "--suite", write_suite(tmp_path, SUITE), "--out", str(layout.root), "--run", RUN]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifacts.os, "fsync", full)
        done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    (line,) = [line for line in done.output.splitlines() if line.startswith("indm ")]
    assert "cannot be written: No space left on device; free disk space or get write access, then run again" in line
    assert not list(layout.suite_folder.rglob("*.tmp"))
    assert len(list(layout.scratch(RUN, stage).glob("*.safetensors"))) in (1, 2)
    assert outputs(run(module, SUITE, layout, RUN).folder) == undisturbed


def test_a_read_only_results_folder_is_one_line(layout: Layout, scratch: Path) -> None:
    layout.suite_folder.joinpath("scratch").mkdir(exist_ok=True)

    def refuse(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    # The rights of a file mean nothing to the superuser.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(ArtifactError) as caught:
            run(train, SUITE, layout, RUN)
    words = "cannot be written: Read-only file system; free disk space or get write access, then run again"
    assert str(caught.value) == f"{scratch}: {words}"


def test_a_full_disk_at_the_lock_is_one_line(scratch: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume.os, "write", full)
        with pytest.raises(ArtifactError) as caught:
            open_scratch(Work(scratch, "key", "")).__enter__()
    assert str(caught.value) == (
        f"{scratch}: cannot be written: No space left on device; free disk space or get write access, then run again"
    )


def test_a_link_in_the_place_of_scratch_is_refused_and_what_it_points_to_stays(scratch: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "mine.safetensors").write_bytes(b"another's")
    scratch.parent.mkdir(parents=True)
    scratch.symlink_to(foreign)
    with pytest.raises(ArtifactError, match=f"^{scratch}.*{foreign}"):
        open_scratch(Work(scratch, "key", "")).__enter__()
    assert (foreign / "mine.safetensors").read_bytes() == b"another's"
    scratch.unlink()


def test_two_at_the_same_work(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each opens the lock's file itself, as two processes do."""
    monkeypatch.setattr(resume, "LOCK_SECONDS", 0.1)
    with open_scratch(Work(scratch, "key", "")) as first:
        first.save("state", {}, {"history": 3})
        with pytest.raises(ArtifactError, match=rf"{scratch}.*process {os.getpid()}"):
            open_scratch(Work(scratch, "key", "")).__enter__()
        found = first.load("state")
        assert found is not None
        assert found[1]["history"] == 3
    assert not scratch.exists()


def test_a_job_that_is_killed_before_its_manifest_continues(
    layout: Layout, scratch: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    """Engines delete the files of a job without a manifest: what it had saved is still there."""
    arguments = ["train", "--suite", write_suite(tmp_path, SUITE), "--out", str(layout.root), "--run", RUN]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InputCheck, "record", Mock(side_effect=PowerCutError))
        assert isinstance(CliRunner().invoke(main, arguments).exception, PowerCutError)
    assert (scratch / "state.safetensors").is_file()
    for name in OUTPUTS:
        (layout.run(RUN) / name).unlink()
    done = CliRunner().invoke(main, arguments)
    assert (done.exit_code, "continues after step" in done.output) == (0, True), done.output
    assert outputs(layout.run(RUN)) == undisturbed
    assert not scratch.exists()


def test_the_work_of_another_process_at_the_same_job_stays(scratch: Path) -> None:
    with resume.removed_at_the_end():
        with open_scratch(Work(scratch, "key", "")) as first:
            first.save("state", {}, {"history": 3})
        second = open_scratch(Work(scratch, "key", ""))
        second.__enter__()
    assert (scratch / "state.safetensors").is_file()
    second.__exit__(None, None, None)
    assert not scratch.exists()


def test_a_job_whose_work_cannot_be_removed_does_not_fail(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network's file system, where an open file keeps its folder."""
    with resume.removed_at_the_end():
        with open_scratch(Work(scratch, "key", "")):
            pass
        monkeypatch.setattr(resume.shutil, "rmtree", Mock(side_effect=OSError(errno.ENOTEMPTY, "Directory not empty")))
    assert scratch.is_dir()


def test_a_lock_of_a_dead_process_is_no_lock(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "LOCK_SECONDS", 0.0)
    code = (
        "import os, sys; from pathlib import Path; from indm.store.scratch import Work, open_scratch\n"
        "with open_scratch(Work(Path(sys.argv[1]), 'key', '')): os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, scratch], cwd=REPOSITORY, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (scratch / "lock").exists()
    with open_scratch(Work(scratch, "key", "")):
        pass


def test_who_waits_goes_on_when_the_first_has_ended_well(scratch: Path) -> None:
    """The first removes the folder, and the lock's file with it: the lock of the second is that of a new file."""
    with open_scratch(Work(scratch, "key", "")):
        waiting = ThreadPoolExecutor().submit(_held_alone, scratch)
        time.sleep(0.5)
    assert waiting.result()
    assert not scratch.exists()


def _held_alone(folder: Path) -> bool:
    with open_scratch(Work(folder, "key", "")), (folder / "lock").open() as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_does_without(number: int, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with open_scratch(Work(scratch, "key", "")) as first:
        first.save("state", {}, {"history": 3})
        assert first.load("state") is not None
    assert not scratch.exists()


STAGES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "sample": (sample, ("samples.npy", "samples.json", "samples.png", "neighbours.png", "diffusion.png")),
    "nll": (nll, ("nll.csv", "nll.json")),
    "curve": (curve, ("curve.csv", "curve_images.csv")),
    "sweep": (sweep, ("sweep.csv",)),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_was_cut_off_goes_on_by_the_batch(layout: Layout, scratch: Path, stage: str) -> None:
    module, names = STAGES[stage]
    small = {"images": 4, "batch_size": 2, "tolerance": None, "ode_steps": 1}
    likelihoods = {"nll": SUITE.nll.model_dump() | small, "curve": SUITE.curve.model_dump() | small}
    suite = suite_of(likelihoods | {"sample": SUITE.sample.model_dump() | {"batch_size": 20}})
    train_with_cuts(suite, layout, [])
    undisturbed = outputs(run(module, suite, layout, RUN).folder, names)
    place = (
        "indm.diffusion.generate.draw_batch" if stage in ("sample", "sweep") else "indm.diffusion.evaluation._evaluate"
    )
    calls, total = [], {"sample": 4, "nll": 2, "curve": 4, "sweep": 4}[stage]
    module_name, _, function = place.rpartition(".")
    original = getattr(sys.modules[module_name], function)

    def count(*arguments: Any, **settings: Any) -> Any:
        calls.append(1)
        if len(calls) == total // 2 + 1:
            raise PowerCutError
        return original(*arguments, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, count)
        with pytest.raises(PowerCutError):
            run(module, suite, layout, RUN)
        assert any(layout.scratch(RUN, stage).glob("*.safetensors"))
        run(module, suite, layout, RUN)
    # Every batch was made once, and the one that was cut off again.
    assert len(calls) == total + 1
    assert outputs(layout.run(RUN), names) == undisturbed
    assert not layout.scratch(RUN, stage).exists()


def test_a_likelihood_that_is_not_finite_is_not_kept(layout: Layout, scratch: Path) -> None:
    train_with_cuts(SUITE, layout, [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "four_numbers", lambda *_, **__: {"nelbo": torch.tensor([1.0, math.inf])})
        with pytest.raises(DivergenceError, match=r"likelihood.*ode_steps"):
            run(nll, SUITE, layout, RUN)
    assert [path.name for path in layout.scratch(RUN, "nll").iterdir()] == ["lock"]


def test_samples_of_another_checkpoint_are_ignored(layout: Layout, scratch: Path) -> None:
    train_with_cuts(suite_of(lr=1e-3), layout, [])
    cut(SUITE, layout, 40, sample)
    run(train, SUITE, layout, RUN)
    found = outputs(run(sample, SUITE, layout, RUN).folder, ["samples.npy"])
    assert found == outputs(run(sample, SUITE, layout, RUN).folder, ["samples.npy"])


@pytest.mark.long
def test_sigterm_finishes_the_step_saves_and_asks_to_be_run_again(
    layout: Layout, scratch: Path, tmp_path: Path
) -> None:
    suite = suite_of({"save_seconds": 1e9}, steps=30)
    undisturbed = train_with_cuts(suite, layout, [])
    command = [sys.executable, "-m", "indm", "train", "--suite", write_suite(tmp_path, suite)]
    command += ["--out", str(layout.root), "--run", RUN]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as process:
        # A snapshot shows that it trains.
        while not (scratch / "snapshot-3.safetensors").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 75
        assert process.stderr is not None
        errors = process.stderr.read()
    step = read_weights(scratch / "state.safetensors", resume.FORMAT)[1]["history"]["done"]
    assert 3 <= step < 30
    (line,) = [line for line in errors.splitlines() if line.startswith("indm train: ")]
    assert line == (
        f"indm train: stopped by SIGTERM; the state after step {step} is saved in {scratch}/state.safetensors; "
        "run it again to continue"
    )
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"continues after step {step}, from " in done.stderr
    assert outputs(layout.run(RUN)) == undisturbed
    # Outside of a training, SIGTERM kills as ever.
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_scratch_is_ignored_by_git_and_dvc() -> None:
    place = "results/smoke/scratch/x/train/state.safetensors"
    assert subprocess.run(["git", "check-ignore", "--quiet", place], cwd=REPOSITORY, check=False).returncode == 0
    ignored = (REPOSITORY / ".dvcignore").read_text().splitlines()
    assert {"/results/*/scratch/", "/results/*/watch/"} <= set(ignored)


def test_every_fault_names_tests_that_there_are() -> None:
    rows = re.findall(r"^\| (?!---|fault).+$", (REPOSITORY / "tests/FAULTS.md").read_text(), flags=re.MULTILINE)
    assert len(rows) > 50
    for row in rows:
        file = ""
        for name, test in re.findall(r"`([\w/]*(?:\.py)?)::(test_\w+)`", row):
            file = name or file
            assert f"def {test}(" in (REPOSITORY / "tests" / file).read_text(), row


@pytest.mark.e2e
@pytest.mark.long
def test_kills_at_random_moments(tmp_path: Path) -> None:
    outcome = kill.train(tmp_path, kills=2, seed=0)
    assert (outcome.differing, outcome.compared) == ([], 4)
    # The last kill may come too late, because moments are of the time that the undisturbed job took.
    assert outcome.kills >= 1
    assert outcome.left >= 1
