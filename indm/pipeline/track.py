"""What an engine knows of a suite and of the code behind its jobs, and whether a job finds them as the engine knows them.

DVC reads files and computes nothing. So its first stage, ``validate``, looks at the suite and the code whenever a file of either
has changed, and writes the suite in full and the stamp of each job's code; every other stage depends on these. Snakemake tells its
jobs by the environment.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from indm.errors import ParamsError
from indm.pipeline.stages import STAGES
from indm.pipeline.stamps import suite_stamps
from indm.progress import say
from indm.store.files import atomic_write, file_sha256
from indm.store.layout import Layout
from indm.store.provenance import older_results
from indm.suite.load import expanded_path, expanded_text, load_suite
from indm.suite.schema.suite import Suite

STARTED = "INDM_STAMPS"
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


def remember_start(suite: Suite) -> None:
    """Tell the processes that this one starts which suite and code it knows; see :func:`check_unedited`."""
    known = {expanded_text(suite), *(f"{stamp}\n" for _, stamp in suite_stamps(suite))}
    os.environ[STARTED] = " ".join(sorted(map(_sha256, known)))


def check_unedited(suite: Suite, suite_file: Path, tracked: Path, stamp: str) -> None:
    """Stop a job whose suite or code was edited after an engine had looked at them, since it would record the earlier ones.

    Arguments:
        suite: the suite.
        suite_file: its file.
        tracked: where the stamp of the job lies for DVC.
        stamp: of the job's code as it is.

    Raises:
        ParamsError: if Snakemake, or DVC, knows another suite or another stamp.
    """
    engine, known = "Snakemake", [os.environ.get(STARTED, "").split()] * 2
    if STARTED not in os.environ and "DVC_STAGE" in os.environ:
        files = (expanded_path(suite_file), tracked)
        engine, known = "DVC", [[file_sha256(path)] if path.is_file() else [] for path in files]
    if not any(known):
        return
    now = {f"suite {suite.suite}": expanded_text(suite), "indm/": f"{stamp}\n"}
    for (what, text), expected in zip(now.items(), known, strict=True):
        if expected and _sha256(text) not in expected:
            raise ParamsError(f"{what} was edited after {engine} had started; run it again")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


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
