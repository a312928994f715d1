"""The suite and code that an engine has tracked, and checks that they are unchanged when a job starts.

DVC tracks files and does not compute. Therefore its first stage, ``validate``, runs whenever a file of the suite or of the code
has changed, and writes the suite in full and the stamp of each job's code, on which every other stage depends. Snakemake passes
them to its jobs in the environment.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from indm.bench.pipeline.stages import STAGES
from indm.bench.pipeline.stamps import suite_stamps
from indm.bench.suite.load import expanded_path, expanded_text, load_suite
from indm.bench.suite.schema.suite import Suite
from indm.errors import ParamsError
from indm.store.files import atomic_write, file_sha256
from indm.store.layout import Layout

STARTED = "INDM_STAMPS"
REMEDY = "run python workflow/generate.py, then repeat this command"


def track(suite_file: Path, out: Path) -> None:
    """Write the expanded file of a suite, and the stamps of its jobs below ``<out>/<suite>/code``.

    Raises:
        ParamsError: if the jobs of the suite differ from the jobs in its dvc.yaml.
    """
    suite, expanded = load_suite(suite_file), expanded_path(suite_file)
    text = expanded_text(suite)
    if not expanded.is_file():
        raise ParamsError(f"{expanded}: missing; {REMEDY}")
    if expanded.read_bytes() != text.encode():
        if _jobs(_read(expanded)) != _jobs(suite):
            raise ParamsError(f"{suite_file}: found other runs or datasets than in dvc.yaml; {REMEDY}")
        with atomic_write(expanded) as file:
            file.write(text.encode())
    folder = Layout(out, suite.suite).code
    shutil.rmtree(folder, ignore_errors=True)
    for place, stamp in suite_stamps(suite):
        with atomic_write(folder / place) as file:
            file.write(f"{stamp}\n".encode())


def remember_start(suite: Suite) -> dict[str, str]:
    """Pass the present suite and code to child processes, by the environment; see :func:`check_unedited`.

    Returns:
        the stamp of each job by its path (:func:`~indm.bench.pipeline.stamps.suite_stamps`).
    """
    stamps = dict(suite_stamps(suite))
    known = {expanded_text(suite), *(f"{stamp}\n" for stamp in stamps.values())}
    os.environ[STARTED] = " ".join(sorted(map(_sha256, known)))
    return stamps


def check_unedited(suite: Suite, suite_file: Path, tracked: Path, stamp: str) -> None:
    """Stop a job whose suite or code was edited after an engine had read them, since the engine would record the earlier ones.

    Raises:
        ParamsError: if Snakemake or DVC has read another suite or another stamp.
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
    """Read an expanded file; ``None`` if it is invalid."""
    try:
        return load_suite(expanded)
    except ParamsError:
        return None


def _jobs(suite: Suite | None) -> Any:
    """List the content of a dvc.yaml: the jobs of every stage, and the subjects whose files each job reads."""
    if suite is None:
        return None
    datasets = {name: run.dataset for name, run in suite.runs.items()}
    runs = {dataset: study.run for dataset, study in suite.protocol.items()}
    return {name: stage.subjects(suite) for name, stage in STAGES.items()}, datasets, runs
