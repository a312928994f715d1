"""Restored results in DVC's lock file, so that DVC takes them as done until their code or their parameters are edited.

Archives lack large files, such as checkpoints. The lock file names these without a hash, so that ``dvc status`` lists them as
deleted, and ``dvc repro --allow-missing`` does not make them again.
"""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indm.bench.kept.folders import kept_folders
from indm.bench.pipeline.jobs import Job, job_names, jobs_of
from indm.bench.pipeline.stages import STAGES
from indm.bench.pipeline.track import track
from indm.errors import ArtifactError
from indm.shipped import DEFAULT_SUITE

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite

# The stage that tracks the suite and the code.
TRACKING = "validate"


def dvc_file(root: Path, suite: str) -> Path:
    """Return the path of a suite's dvc.yaml; the one of the default suite is at the top of the checkout."""
    return root / ("dvc.yaml" if suite == DEFAULT_SUITE else f"workflow/dvc/{suite}/dvc.yaml")


def pipeline_of(suite: "Suite") -> Path:
    """Return the path of a suite's dvc.yaml.

    Raises:
        ArtifactError: if it is missing.
    """
    pipeline = dvc_file(Path(), suite.suite)
    if not pipeline.is_file():
        raise ArtifactError(f"{pipeline}: missing; python workflow/generate.py --suite {suite.suite} makes it")
    return pipeline


def adopt(suite: "Suite", pipeline: Path, places: Collection[str]) -> None:
    """Write the present files of restored folders into DVC's lock file.

    Arguments:
        suite: the suite, whose results are in ``results/``.
        pipeline: its dvc.yaml.
        places: the folders, by their places below ``results/<suite>/``.
    """
    # Slow to import.
    from dvc.repo import Repo

    track(Path(f"params/{suite.suite}.yaml"), Path("results"))
    adopted = {TRACKING, *(f"{job.stage}@{job.subject}" for job in _jobs(suite, places))}
    with Repo() as repo, repo.lock:
        stages: list[Any] = [stage for stage in repo.stage.collect(str(pipeline)) if stage.name in adopted]
        for stage in stages:
            # Without all inputs, DVC's cache of runs has no key for it.
            stage.save(allow_missing=True, run_cache=False)
            stage.commit(allow_missing=True)
        stages[0].dvcfile.dump_stages(stages, update_pipeline=False)


def _jobs(suite: "Suite", places: Collection[str]) -> list[Job]:
    """List the jobs of restored folders, and the shards of restored runs."""
    jobs = [job for folder in kept_folders(suite) if folder.place in places for job in folder.jobs]
    shards = [job for job in jobs_of(suite) if STAGES[job.stage].subject == "shard"]
    return [*jobs, *(job for job in shards if f"runs/{job_names(suite, job)['run']}" in places)]
