"""The progress lines of jobs as events of TensorBoard: a curve for each number, across kills and resumes."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from indm.errors import IndmError
from indm.pipeline.stages import STAGES
from indm.store.files import refuse_link
from indm.store.layout import Layout
from indm.watching.lines import Line, curves, read_lines

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite


def write_events(suite: "Suite", layout: Layout) -> tuple[Path, int]:
    """Write the events of all jobs of a suite, replacing earlier ones; return their folder and the number of curves.

    Raises:
        IndmError: if TensorBoard is not installed, or no job has written lines yet.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise IndmError("TensorBoard is not installed; install it with: pip install '.[tensorboard]'") from None

    found: dict[str, list[Line]] = {}
    for job in ((name, subject) for name, stage in STAGES.items() for subject in stage.subjects(suite)):
        parts = curves(read_lines(layout.watch(*job)))
        found |= {_place(*job, part, len(parts)): curve for part, curve in parts.items()}
    if not found:
        raise IndmError(
            f"{layout.suite_folder}/watch: found no progress lines of any job, expected some; run the suite first"
        )
    # Only this function writes to the folder, so it may be replaced.
    target = layout.suite_folder / "watch" / "events"
    refuse_link(target)
    if target.exists():
        shutil.rmtree(target)
    for place, curve in found.items():
        # With purge_step, a TensorBoard that has read an earlier file of this folder discards its content.
        with SummaryWriter(str(target / place), purge_step=0) as writer:
            for line in curve:
                for key, value in line.numbers.items():
                    writer.add_scalar(key, value, line.done, line.time)
    return target, len(found)


def _place(stage: str, subject: str, part: str, parts: int) -> str:
    """Name the folder of a job's curve, or of one part of several; TensorBoard shows it as a run."""
    folder = f"{subject or 'suite'}/{stage}"
    return folder if parts == 1 else f"{folder}/{part.replace('/', '-')}"
