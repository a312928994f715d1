"""Restored results: engines take them as done, until their code or their parameters are edited after the restore.

Snakemake has recorded neither for files that it did not make, so it is told which restored results are void.
"""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indm.bench.pipeline.input_check import InputCheck
from indm.bench.pipeline.jobs import Job, job_names
from indm.bench.pipeline.stages import STAGES
from indm.bench.pipeline.stamps import job_stamp
from indm.errors import ArtifactError
from indm.store.provenance import RESTORED_FOR, read_provenance, record_names

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite


def record_of(suite: "Suite", results: Path, job: Job) -> dict[str, Any]:
    """Return the provenance of a job, empty if there is none that can be read, or its results are not kept."""
    if STAGES[job.stage].subject in ("", "shard"):
        return {}
    place = STAGES[job.stage].folder.format(**job_names(suite, job))
    for name in record_names(job.stage):
        path = results / Path(place).relative_to("results") / "provenance" / f"{name}.json"
        with contextlib.suppress(ArtifactError):
            return read_provenance(path, suite.suite, job.subject)
    return {}


def is_still_done(suite: "Suite", results: Path, job: Job) -> bool | None:
    """Return whether restored results of a job are those of its present code and parameters; ``None`` if they were not restored."""
    record = record_of(suite, results, job)
    if RESTORED_FOR not in record:
        return None
    checks = InputCheck(suite, results, Path("reports"))
    with contextlib.suppress(ArtifactError):
        is_same = not any(checks.other_parameters(job, checks.read(job)))
        return is_same and record[RESTORED_FOR] == job_stamp(suite, record["stage"], job.subject)
    # Without its manifest, a job has not ended.
    return None
