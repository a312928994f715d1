"""The jobs of a suite: inputs, outputs, parameters and manifest of each, from :mod:`indm.bench.pipeline.stages`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from indm.bench.pipeline.stages import DESCRIPTION, STAGES, gathering, run_of

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite

IMPORTED = (DESCRIPTION,)
"""The inputs of an imported training."""
MAKERS = {pattern: name for name, stage in STAGES.items() for pattern in stage.written}
"""The stage that writes a file."""


class Job(NamedTuple):
    """A stage and its subject, which is empty if the stage has one job."""

    stage: str
    subject: str

    @property
    def path(self) -> str:
        """The path of its stamp: ``stage`` or ``stage/subject``."""
        return "/".join(filter(None, self))


def jobs_of(suite: "Suite", *without: str) -> list[Job]:
    """List the jobs of a suite, in the order of its stages, without the stages of some kinds of subjects."""
    stages = {name: stage for name, stage in STAGES.items() if stage.subject not in without}
    return [Job(name, subject) for name, stage in stages.items() for subject in stage.subjects(suite)]


def no_such_job(suite: "Suite", job: Job) -> str:
    """Say that a stage has no job for a subject, and for which subjects it has one."""
    stage = STAGES[job.stage]
    expected = ", ".join(stage.subjects(suite)) or "none"
    return f"found no job of stage {job.stage} for {stage.subject} {job.subject!r}, expected one of: {expected}"


def manifest(stage: str) -> str:
    """Return the path of the manifest of a stage's job; see :mod:`indm.store.manifest`.

    In Snakemake, a job's inputs include the manifests of the jobs that wrote them, since it copies inputs to the machine where a
    job runs. DVC does not need them in addition to the files.
    """
    return f"{STAGES[stage].folder}/manifest/{stage}.json"


def tracked_outputs(stage: str) -> tuple[str, ...]:
    """List the files that a stage writes, except metrics and plots of DVC, its manifest last."""
    return (*STAGES[stage].outputs, manifest(stage))


def job_names(suite: "Suite", job: Job) -> dict[str, str]:
    """Return the values of the names in a job's paths and keys."""
    kind = STAGES[job.stage].subject
    names = {"suite": suite.suite} | ({kind: job.subject} if kind else {})
    if kind == "shard":
        run, shard = run_of(job.subject)
        names |= {"run": run, "shard": str(shard)}
    if kind in ("run", "shard"):
        names["dataset"] = suite.runs[names["run"]].dataset
    elif job.stage == "protocol":
        names["run"] = suite.protocol[job.subject].run
    return names


def job_outputs(suite: "Suite", job: Job) -> list[str]:
    """List the files that a job writes, except its manifest."""
    names = job_names(suite, job)
    return [pattern.format(**names) for pattern in STAGES[job.stage].written]


def job_inputs(suite: "Suite", job: Job, patterns: tuple[str, ...] | None = None) -> Iterator[tuple[str, Job | None]]:
    """Yield each file that a job reads, with the job that wrote it, or ``None`` for a file of the repository."""
    names = job_names(suite, job)
    for pattern in STAGES[job.stage].reads(suite) if patterns is None else patterns:
        if pattern not in MAKERS:
            yield pattern.format(**names), None
            continue
        maker = MAKERS[pattern]
        for subject in _subjects_read(suite, job, maker, names):
            made = Job(maker, subject)
            yield pattern.format(**job_names(suite, made)), made


def _subjects_read(suite: "Suite", job: Job, maker: str, names: dict[str, str]) -> list[str]:
    """List the subjects of a stage whose files a job reads: its own, or if the job collects results, all."""
    kind = STAGES[maker].subject
    if not job.subject:
        return STAGES[maker].subjects(suite)
    if kind == "shard":
        return [f"{names['run']}-{shard}" for shard in suite.shards.numbers(gathering(maker))]
    return [names.get(kind, "")]


def lasting_inputs(suite: "Suite", job: Job, patterns: tuple[str, ...] | None = None) -> dict[str, Job | None]:
    """Return the files from which a job is made: the files of :func:`job_inputs` without shards.

    Shards are made from these files and are removed once they are gathered; results do not depend on their number.
    """
    found = job_inputs(suite, job, patterns)
    return {path: maker for path, maker in found if maker is None or STAGES[maker.stage].subject != "shard"}


def job_parameters(suite: "Suite", job: Job) -> dict[str, Any]:
    """Return the parameters of a job in its suite, by the keys that its stage reads, with a run's overrides merged in."""
    names = job_names(suite, job)
    run = names.get("run", "")
    found: dict[str, Any] = {}
    for key in (key.format(**names) for key in STAGES[job.stage].keys):
        if key == "runs":
            # From the runs, tables only read the keys that identify them.
            found[key] = {name: run.model_dump(exclude={"train", "sample"}) for name, run in suite.runs.items()}
        elif key in ("train", "sample") and run:
            found[key] = getattr(suite, f"{key}_params")(run).model_dump(exclude_unset=True)
        elif key not in (f"runs.{run}.train", f"runs.{run}.sample"):
            found[key] = _look_up(suite, key.split("."))
    return found


def _look_up(section: Any, path: list[str]) -> Any:
    """Return the value below a key of a suite, as in JSON."""
    for name in path:
        section = section[name] if isinstance(section, dict) else getattr(section, name)
    if isinstance(section, dict):
        return {name: _look_up(section, [name]) for name in section}
    return section.model_dump(exclude_unset=True) if hasattr(section, "model_dump") else section


def expand(pattern: str, suite: "Suite") -> Iterator[str]:
    """Yield the files of a suite that a path pattern names: one for each job that writes it, or the path itself."""
    makers = MAKERS | {manifest(name): name for name in STAGES}
    if pattern not in makers:
        yield pattern.format(suite=suite.suite)
        return
    for subject in STAGES[makers[pattern]].subjects(suite):
        yield pattern.format(**job_names(suite, Job(makers[pattern], subject)))
