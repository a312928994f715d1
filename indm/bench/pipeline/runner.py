"""Run a stage: check the suite, the code and the inputs before it, and write manifest and provenance after it."""

import contextlib
import hashlib
import importlib
import json
import time
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indm.bench.pipeline.jobs import IMPORTED, Job, job_parameters, no_such_job
from indm.bench.pipeline.stages import STAGES, gathering
from indm.bench.suite.load import load_suite, suite_sha256
from indm.errors import ParamsError
from indm.process import is_first, set_environment
from indm.progress import watched

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite
    from indm.store.layout import Layout
    from indm.store.provenance import Finished
    from indm.store.scratch import Work


def run_stage(name: str, suite_file: Path, out: Path, subject: dict[str, Any], **options: Any) -> None:
    """Run a stage of a suite, or ``import_checkpoint``, and write manifest and provenance next to its files.

    Raises:
        ParamsError: if the suite has a mistake or no such job, or was edited after an engine had started.
        ArtifactError: if an input is missing, damaged or made from something else.
    """
    suite = load_suite(suite_file)
    # An imported checkpoint replaces a training, but is not made from the training images.
    imported = name == "import_checkpoint"
    job = Job("train" if imported else name, "-".join(map(str, subject.values())))
    _check_subject(suite, suite_file, job)
    set_environment(suite.threads)

    # Imported afterwards, because they import NumPy and torch, which read the environment once.
    from indm.bench.pipeline.input_check import InputCheck
    from indm.bench.pipeline.stamps import job_stamp
    from indm.bench.pipeline.track import check_unedited
    from indm.store.layout import Layout
    from indm.store.scratch import removed_at_the_end

    layout, stamp = Layout(out, suite.suite), job_stamp(suite, name, job.subject)
    check_unedited(suite, suite_file, layout.code / name / job.subject, stamp)
    checks = InputCheck(suite, out, options.get("reports", Path("reports")))
    inputs = checks.check(job, IMPORTED if imported else None)
    # Before the work, because someone may edit the files while it runs.
    source = {
        "suite": suite.suite,
        "stage": name,
        "subject": job.subject,
        "suite_sha256": suite_sha256(suite),
        "code_stamp": stamp,
        "seed": _seed(suite, **subject),
    }
    started = time.monotonic()
    # If torchrun has started several processes, only the first one writes.
    news = watched(layout.watch(*job), goes_on=layout.scratch(job.subject, job.stage).exists())
    with news if is_first() else contextlib.nullcontext(), removed_at_the_end():
        stage = importlib.import_module(f"indm.bench.stages.{gathering(name)}")
        if name in STAGES and STAGES[name].grows is not None:
            options["work"] = work_of(suite, layout, job, stamp, inputs)
        finished: Finished = stage.run(suite, layout, *subject.values(), **options)
        if not is_first():
            return
        _record_provenance(finished, source, time.monotonic() - started, suite.threads)
        # Results without a manifest do not count.
        checks.record(job, inputs, name)


def work_of(suite: "Suite", layout: "Layout", job: Job, stamp: str, inputs: dict[str, str]) -> "Work":
    """Return where a job keeps its unfinished work, and the key of this work.

    The key is a hash of the stamp of the job's code, its parameters and inputs (but for those that ``grows`` of its stage names),
    and the settings that may change the order of sums. The precision of products is not one of these, since
    :func:`~indm.process.set_up` fixes it.
    """
    import torch

    from indm.store.provenance import COMPUTING, restrictions, version
    from indm.store.scratch import FORMAT, Work

    stage = STAGES[job.stage]
    assert stage.grows is not None
    known = [
        FORMAT,
        stamp,
        _without(job_parameters(suite, job) | inputs, stage.grows(suite, job.subject)),
        [version(package) for package in COMPUTING],
        suite.device != "cpu" and torch.cuda.is_available(),
        [suite.threads, suite.processes if stage.distributed else 1, suite.compile, restrictions()],
    ]
    key = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    return Work(layout.scratch(job.subject, job.stage), key, stamp)


def _without(content: Any, names: Container[str], place: str = "") -> Any:
    """Leave out the entries of nested mappings that have these names, each with the names of the mappings around it."""
    if not isinstance(content, dict):
        return content
    kept = {name: value for name, value in content.items() if f"{place}{name}" not in names}
    return {name: _without(value, names, f"{place}{name}.") for name, value in kept.items()}


def _check_subject(suite: "Suite", suite_file: Path, job: Job) -> None:
    """Refuse a subject that is not in the suite, or for which the stage does not have a job."""
    if job.subject not in STAGES[job.stage].subjects(suite):
        raise ParamsError(f"{suite_file}: {no_such_job(suite, job)}")


def _seed(suite: "Suite", dataset: str | None = None, run: str | None = None, **_: Any) -> int | None:
    """Return the seed of a job's run or dataset; ``None`` for tables, and for ``toy2d``, which has many."""
    if run is not None:
        return int(suite.runs[run].seed)
    return int(suite.datasets[dataset].split_seed) if dataset is not None else None


def _record_provenance(finished: "Finished", source: dict[str, Any], seconds: float, threads: int) -> None:
    """Write the record of a job, and remove the records that it replaces."""
    from indm.store.files import write_json
    from indm.store.provenance import STANDS_FOR, provenance, record_names

    folder, name = finished.folder / "provenance", source["stage"]
    for other in record_names(STANDS_FOR.get(name, name)):
        (folder / f"{other}.json").unlink(missing_ok=True)
    record = source | provenance(seconds + finished.earlier, threads) | dict(finished.computed_on)
    if finished.earlier:
        # The processor time of the executions that did the other part of the work is unknown.
        record["processor_seconds"] = None
    write_json(folder / f"{name}.json", record)
