"""The progress lines of jobs as events of TensorBoard: a curve for each number, across kills and resumes."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from indm.bench.pipeline.jobs import jobs_of
from indm.bench.watching.lines import Line, curves, read_lines
from indm.errors import IndmError
from indm.store.files import refuse_link
from indm.store.layout import Layout

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite


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
    for job in jobs_of(suite):
        parts, folder = curves(read_lines(layout.watch(*job))), f"{job.subject or 'suite'}/{job.stage}"
        # TensorBoard shows a folder as a run.
        found |= {folder if len(parts) == 1 else f"{folder}/{part.replace('/', '-')}": parts[part] for part in parts}
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
