"""The progress lines of jobs as events of TensorBoard: a curve for each number, across kills and resumes."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indm.errors import IndmError
from indm.pipeline.jobs import Job
from indm.pipeline.stages import STAGES
from indm.store.files import refuse_link
from indm.store.layout import Layout
from indm.watching.lines import Line, curves, read_lines

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite

# The keys of a line that are not curves.
NO_CURVES = {"time", "event", "part", "done", "total", "saved_at"}


def write_events(suite: "Suite", layout: Layout) -> tuple[Path, int]:
    """Write the events of all jobs of a suite, replacing earlier ones.

    Arguments:
        suite: the suite.
        layout: layout of its files.

    Returns:
        The folder to give to ``tensorboard --logdir``, and the number of curves' folders in it.

    Raises:
        IndmError: if TensorBoard is not installed, or no job has written lines yet.
    """
    _require()
    # Only this function writes to the folder, so it may be replaced.
    target = layout.suite_folder / "watch" / "events"
    written: dict[str, list[Line]] = {}
    for name, stage in STAGES.items():
        for subject in stage.subjects(suite):
            found = curves(read_lines(layout.watch(name, subject)))
            written |= {_place(Job(name, subject), part, len(found)): curve for part, curve in found.items()}
    if not written:
        raise IndmError(
            f"{layout.suite_folder}/watch: found no progress lines of any job, expected some; run the suite first"
        )
    refuse_link(target)
    if target.exists():
        shutil.rmtree(target)
    for place, curve in written.items():
        _write(target / place, curve)
    return target, len(written)


def _require() -> None:
    """Check at once that TensorBoard is installed, instead of failing later."""
    try:
        import tensorboard.summary.writer.event_file_writer  # noqa: F401
    except ImportError:
        raise IndmError("TensorBoard is not installed; install it with: pip install '.[tensorboard]'") from None


def _place(job: Job, part: str, parts: int) -> str:
    """Name the folder of a curve: TensorBoard shows it as a run."""
    folder = f"{job.subject or 'suite'}/{job.stage}"
    return folder if parts == 1 else f"{folder}/{part.replace('/', '-')}"


def _write(folder: Path, curve: list[Line]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder))
    # If TensorBoard has read an earlier file of this folder, it discards that content.
    writer.add_event(Event(step=0, file_version="brain.Event:2"))
    writer.add_event(Event(step=0, session_log=SessionLog(status=SessionLog.START)))
    for line in curve:
        writer.add_event(_event(line))
    writer.close()


def _event(line: Line) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    numbers = {key: line[key] for key in line.keys() - NO_CURVES if isinstance(line[key], int | float)}
    values = [Summary.Value(tag=key, simple_value=value) for key, value in sorted(numbers.items())]
    return Event(wall_time=line["time"], step=line["done"], summary=Summary(value=values))
