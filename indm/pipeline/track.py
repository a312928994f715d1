"""What DVC tracks of a suite and of the code: the suite in full, and the stamp of each job's code.

DVC reads files and computes nothing. So its first stage, ``validate``, looks at the suite and the code whenever a file of either
has changed, and writes these; every other stage depends on what they say.
"""

import os
import shutil
from pathlib import Path
from typing import Any

from indm.errors import ParamsError
from indm.pipeline.stages import STAGES
from indm.pipeline.stamps import suite_stamps
from indm.progress import say
from indm.store.files import atomic_write
from indm.store.layout import Layout
from indm.store.provenance import older_results
from indm.suite.load import expanded_path, expanded_text, load_suite
from indm.suite.schema.suite import Suite

REMEDY = "run python workflow/generate.py, then repeat this command"


def track(suite_file: Path, out: Path) -> None:
    """Write the expanded file of a suite, and the stamps of its jobs below ``<out>/<suite>/code``.

    Raises:
        ParamsError: if the suite has other jobs than its dvc.yaml was generated for.
    """
    suite, expanded = load_suite(suite_file), expanded_path(suite_file)
    text = expanded_text(suite)
    if not expanded.is_file():
        raise ParamsError(f"{expanded}: missing; {REMEDY}")
    if expanded.read_bytes() != text.encode():
        if _jobs(_read(expanded)) != _jobs(suite):
            raise ParamsError(f"{suite_file}: found other runs or datasets than DVC's file was generated for; {REMEDY}")
        with atomic_write(expanded) as file:
            file.write(text.encode())
    layout = Layout(out, suite.suite)
    if older := older_results(layout.suite_folder):
        say(older)
    folder = layout.code
    shutil.rmtree(folder, ignore_errors=True)
    for place, stamp in suite_stamps(suite):
        with atomic_write(folder / place) as file:
            file.write(f"{stamp}\n".encode())


def check_tracked(suite: Suite, suite_file: Path, layout: Layout, stage: str, subject: str, stamp: str) -> None:
    """Stop a stage that DVC runs on another suite or other code than it will record, edited since ``validate`` looked at them.

    Arguments:
        suite: the suite.
        suite_file: its file.
        layout: where its files lie.
        stage: the stage.
        subject: what it works on; empty where there is one job.
        stamp: of the job's code as it is.

    Raises:
        ParamsError: if DVC has another suite or another stamp.
    """
    if "DVC_STAGE" not in os.environ:
        return
    expected = {layout.code / stage / subject: f"{stamp}\n", expanded_path(suite_file): expanded_text(suite)}
    for path, text in expected.items():
        if path.is_file() and path.read_bytes() != text.encode():
            raise ParamsError(
                f"{path}: found the state before an edit of {suite_file} or indm/, expected that after it; run dvc repro again"
            )


def _read(expanded: Path) -> Suite | None:
    """Read an expanded file; one with a mistake has no jobs."""
    try:
        return load_suite(expanded)
    except ParamsError:
        return None


def _jobs(suite: Suite | None) -> Any:
    """List what a dvc.yaml lists: the jobs of every stage, and whose files each of them reads."""
    if suite is None:
        return None
    datasets = {name: run.dataset for name, run in suite.runs.items()}
    runs = {dataset: study.run for dataset, study in suite.protocol.items()}
    return {name: stage.subjects(suite) for name, stage in STAGES.items()}, datasets, runs
