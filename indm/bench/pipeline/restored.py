"""Restored results: engines take them as done, until their code is edited after the restore.

Snakemake has recorded no code for files that it did not make, so it is told which restored results are void.
"""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def is_void(suite: "Suite", results: Path, job: Job) -> bool:
    """Return whether results of a job were restored, and its code has been edited since."""
    record = record_of(suite, results, job)
    return RESTORED_FOR in record and record[RESTORED_FOR] != job_stamp(suite, record["stage"], job.subject)
