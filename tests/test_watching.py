"""Watching: what stages write while they work, and what is made of it: states of runs, curves, events of TensorBoard."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from click.testing import CliRunner

from indm import progress
from indm.bench.cli import main
from indm.bench.pipeline.input_check import InputCheck
from indm.bench.pipeline.jobs import Job
from indm.bench.pipeline.stages import STAGES
from indm.bench.suite.load import load_suite
from indm.bench.watching.lines import curves, read_lines
from indm.bench.watching.status import Board, duration
from indm.errors import DivergenceError, StoppedError
from indm.progress import bar, watched
from indm.store.layout import Layout
from tests.conftest import REPOSITORY

SUITE = load_suite(REPOSITORY / "params/smoke.yaml")
RUN, OTHER = "digits-vp-indm-nll-s0", "digits-vp-ddpmpp-nll-s0"
TRAIN = Job("train", RUN)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path, SUITE.suite)


def board(layout: Layout) -> Board:
    return Board(InputCheck(SUITE, layout.root, layout.root / "reports"))


def finish(layout: Layout, job: Job) -> None:
    """Let a job have a manifest: it has ended well."""
    path = board(layout).checks.manifest(job)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")


def write(path: Path, *lines: dict[str, Any], ago: float = 0.0) -> None:
    """Write lines a second apart, the last one so many seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first = time.time() - ago - len(lines) + 1
    path.write_text("".join(json.dumps({"time": first + i} | line) + "\n" for i, line in enumerate(lines)))


def training(done: int, total: int = 800) -> list[dict[str, Any]]:
    """The lines of a training that has come to a step: half a second each."""
    common = {"part": RUN, "total": total}
    numbers = {"seconds_each": 0.5, "score_loss": 0.25, "flow_loss": 2.5, "saved": 10, "saved_at": time.time() - 480}
    return [
        {"event": "start", "host": "h", "process": 1},
        {"event": "begin", "done": 0, **common},
        {"event": "progress", "done": done, **common, **numbers},
    ]


def states(layout: Layout) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for row in board(layout).rows(time.time()):
        found.setdefault(row.job.subject, []).append((row.job.stage, row.state))
    return found


def status(layout: Layout, *options: str) -> str:
    places = ["--out", str(layout.root), "--reports", str(layout.root / "reports")]
    done = CliRunner().invoke(main, ["status", "--suite", "smoke", *places, *options])
    assert done.exit_code == 0, done.output
    assert max(map(len, done.output.splitlines())) <= 100
    return done.output


def test_a_loop_says_how_far_it_is_and_its_stage_that_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SHORTEST", 0.0)
    monkeypatch.setattr(progress, "SHARE", 0.0)  # a machine that pauses between two steps leaves out no line
    path = tmp_path / "watch/sample/a.jsonl"
    with watched(path, goes_on=False):
        assert list(bar("a", lambda: {"loss": float("nan"), "rate": 1 / 3})(range(0, 10, 4))) == [0, 4, 8]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", "begin", "progress", "progress", "progress", "done"]
    assert [(line["done"], line["total"]) for line in lines[1:-1]] == [(0, 10), (4, 10), (8, 10), (10, 10)]
    assert lines[0]["process"] == os.getpid()
    assert lines[2]["loss"] is None  # JSON has no number for it
    assert lines[2]["rate"] == 0.333333
    assert lines[2]["memory_mib"] > 1
    assert progress.FILE not in os.environ


def test_without_a_file_a_loop_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert list(bar("a", Mock(side_effect=AssertionError))(range(3))) == [0, 1, 2]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("seconds", "most"), [(50, 50), (2400, 400)])
def test_lines_are_at_least_a_second_apart_and_facts_are_asked_for_them_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int, most: int
) -> None:
    """The cost, counted: of steps of 0.05 s, at most one in twenty does more than look at the clock."""
    now, facts = Mock(return_value=0.0), Mock(return_value={})
    monkeypatch.setattr(progress.time, "monotonic", now)
    with watched(tmp_path / "a.jsonl", goes_on=False):
        for _ in bar("a", facts)(range(20 * seconds)):
            now.return_value += 0.05
    lines = [line for line in read_lines(tmp_path / "a.jsonl") if line.event == "progress"]
    assert seconds / 10 <= len(lines) <= most
    assert facts.call_count == len(lines)
    assert lines[-1].done == 20 * seconds
    assert all(line.seconds_each == pytest.approx(0.05, rel=1e-3) for line in lines)


@pytest.mark.parametrize(
    ("error", "event", "words"),
    [
        (DivergenceError("loss nan\nmore"), "failed", "loss nan"),
        (StoppedError("by SIGTERM"), "stopped", "by SIGTERM"),
        (ZeroDivisionError("by zero"), "failed", "ZeroDivisionError: by zero"),
    ],
)
def test_an_error_is_the_last_line(tmp_path: Path, error: Exception, event: str, words: str) -> None:
    with pytest.raises(type(error)), watched(tmp_path / "a.jsonl", goes_on=False):
        raise error
    last = read_lines(tmp_path / "a.jsonl")[-1]
    assert (last.event, last.error) == (event, words)


def test_a_place_that_cannot_be_written_to_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "watch").write_text("a file, and no folder")
    with watched(tmp_path / "watch/train/a.jsonl", goes_on=True):
        assert list(bar("a")(range(2))) == [0, 1]


def test_one_curve_through_a_kill_a_torn_line_and_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SHORTEST", 0.0)
    monkeypatch.setattr(progress, "SHARE", 0.0)  # a machine that pauses between two steps leaves out no line
    path = tmp_path / "a.jsonl"
    value = 1.0

    def execution(steps: range, goes_on: bool) -> None:
        with watched(path, goes_on=goes_on):
            list(bar("a", lambda: {"loss": value})(steps))

    execution(range(6), goes_on=False)
    # As kill -9 leaves it, amid a line: what was saved last was step 3.
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b'"done": 6') + 4])
    value = 2.0
    execution(range(3, 8), goes_on=True)
    (curve,) = curves(read_lines(path)).values()
    assert [line.done for line in curve] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [line.numbers["loss"] for line in curve] == [1.0] * 3 + [2.0] * 5
    # Another one, which starts anew without removing the file, replaces all.
    value = 3.0
    execution(range(2), goes_on=True)
    (curve,) = curves(read_lines(path)).values()
    assert [line.numbers["loss"] for line in curve] == [3.0, 3.0]
    # And one that has nothing to go on from removes it.
    execution(range(1), goes_on=False)
    assert len(read_lines(path)) == 4


def test_what_is_no_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"time": 1, "event": "start"}\n\n[1]\n{"event": "begin"}\n{"time": 2, "event": "done"}\n{"time": 3, "ev'
    )
    assert [line.time for line in read_lines(path)] == [1, 2]
    assert [line.time for line in read_lines(path, tail=50)] == [2]
    assert read_lines(tmp_path / "absent") == []
    path.write_text("[" * 100_000)
    assert read_lines(path) == []


PROGRESS: dict[str, Any] = {"event": "progress", "part": RUN, "done": 1, "total": 3, "seconds_each": 1}
FOREIGN: list[dict[str, Any]] = [
    {"event": ["start"]},
    {"event": "failed", "error": 5},
    PROGRESS | {"total": None},
    *(PROGRESS | {"done": done} for done in ("0", True, 1.5, -1)),
    PROGRESS | {"seconds_each": -0.5},
    PROGRESS | {"time": "now"},
    *(PROGRESS | {key: value} for key in ("time", "score_loss") for value in (float("nan"), 1e308, 10**400)),
]


@pytest.mark.parametrize("line", FOREIGN)
def test_a_line_that_no_job_wrote_is_left_out(layout: Layout, line: dict[str, Any]) -> None:
    write(layout.watch(*TRAIN), line)
    rows = {row.job.subject: row for row in board(layout).rows(time.time())}
    assert rows[RUN].state == "waiting"


def test_a_suite_that_has_not_begun_waits(layout: Layout) -> None:
    assert set(states(layout)) == {*SUITE.datasets, *SUITE.runs, *SUITE.toy2d.datasets, ""}
    assert states(layout)[RUN] == [("train", "waiting")]


def test_states_of_a_run(layout: Layout) -> None:
    path = layout.watch(*TRAIN)
    write(path, *training(20))
    assert states(layout)[RUN] == [("train", "running")]
    write(path, *training(20), ago=12 * 60)
    assert states(layout)[RUN] == [("train", "no news")]
    assert "no news for 12 min" in status(layout)
    write(path, *training(20), {"event": "failed", "error": "loss nan"}, ago=12 * 60)
    assert states(layout)[RUN] == [("train", "failed")]
    finish(layout, TRAIN)
    assert states(layout)[RUN] == [("sample", "waiting")]
    # Two of its stages at once, and again by hand what was done.
    write(layout.watch("nll", RUN), {"event": "start"})
    write(layout.watch("sample", RUN), {"event": "start"})
    assert states(layout)[RUN] == [("sample", "running"), ("nll", "running")]
    write(path, *training(20))
    assert ("train", "running") in states(layout)[RUN]
    # That rerun fails: the old results still stand, and it is said.
    write(path, *training(20), {"event": "failed", "error": "loss nan"}, ago=-1)
    assert ("train", "failed") in states(layout)[RUN]


def test_a_job_whose_steps_take_minutes_may_be_silent_for_as_long(layout: Layout) -> None:
    lines = training(20)
    now = time.time()
    times = [now - 900, now - 800, now - 400]
    write(layout.watch(*TRAIN), *({**line, "time": at} for line, at in zip(lines, times, strict=True)))
    assert states(layout)[RUN] == [("train", "running")]


def test_the_table_has_step_loss_pace_time_left_and_last_saving(layout: Layout) -> None:
    write(layout.watch(*TRAIN), *training(20), training(40)[-1])
    write(layout.watch("train", OTHER), *training(20), {"event": "failed", "error": "loss nan at step 20"})
    log = layout.log("train", OTHER)
    log.parent.mkdir(parents=True)
    log.write_text("")
    lines = status(layout).splitlines()
    (row,) = [line for line in lines if line.startswith(RUN)]
    assert row.split() == [RUN, "train", "40/800", "0.250", "0.5", "6", "min", "8", "min", "running"]
    assert [line for line in lines if line.startswith(f"train {OTHER} failed: loss nan at step 20; log:")]
    # Long lines are folded.
    text = "".join(lines).replace(" ", "")
    assert f"log:{log}" in text
    assert f"{layout.suite_folder}:1failed,1running,9waiting" in text


def test_what_failed_is_last(layout: Layout) -> None:
    first, *others = SUITE.runs
    write(layout.watch("train", first), *training(20), {"event": "failed", "error": "loss nan"})
    for run in others:
        write(layout.watch("train", run), *training(20))
    listed = [line.split()[0] for line in status(layout).splitlines() if line.startswith("digits-")]
    assert listed == [*others, first]


def test_watching_ends_when_all_is_done(layout: Layout) -> None:
    for name, stage in STAGES.items():
        for subject in stage.subjects(SUITE):
            finish(layout, Job(name, subject))
    assert "11 done" in status(layout, "--watch")


def test_watching_ends_by_ctrl_c(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indm.bench.watching.status.time.sleep", Mock(side_effect=KeyboardInterrupt))
    assert "11 waiting" in status(layout, "--watch")


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.4, "12 s"), (150, "2 min"), (7500, "2 h 05"), (4 * 86400 + 7200, "4 d 2 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.fixture
def written(layout: Layout) -> Layout:
    """A training that was killed after step 40 and went on from step 20."""
    again = [{**training(done)[-1], "score_loss": 0.5} for done in (30, 40)]
    begin = {**training(20)[1], "done": 20}
    first = [training(done)[-1] for done in (20, 30, 40)]
    write(layout.watch(*TRAIN), *training(10), *first, {"event": "start"}, begin, *again)
    return layout


def test_tensorboard_has_one_curve_through_resumes(written: Layout) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):
        done = CliRunner().invoke(main, ["tensorboard", "--suite", "smoke", "--out", str(written.root)])
        assert done.exit_code == 0, done.output
    folder = written.suite_folder / "watch/events"
    assert done.output == f"1 curves; see them with: tensorboard --logdir {folder}\n"
    found = EventAccumulator(str(folder / RUN / "train")).Reload()
    curve = [(event.step, event.value) for event in found.Scalars("score_loss")]
    assert curve == [(10, 0.25), (20, 0.25), (30, 0.5), (40, 0.5)]


@pytest.mark.parametrize("installed", [True, False])
def test_tensorboard_that_cannot_write_says_why_in_one_line(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    if installed:
        pytest.importorskip("tensorboard")
    else:
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    done = CliRunner().invoke(main, ["tensorboard", "--suite", "smoke", "--out", str(layout.root)])
    assert done.exit_code == 1
    assert done.output.count("\n") == 1
    expected = "found no progress lines of any job" if installed else "install it with: pip install '.[tensorboard]'"
    assert expected in done.output


def test_a_stage_run_by_the_command_line_is_watched(tmp_path: Path) -> None:
    arguments = ["prepare", "--suite", "smoke", "--dataset", "digits", "--out", str(tmp_path)]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    layout = Layout(tmp_path, "smoke")
    assert [line.event for line in read_lines(layout.watch("prepare", "digits"))] == ["start", "done"]
    assert states(layout)["digits"] == [("reference", "waiting")]
