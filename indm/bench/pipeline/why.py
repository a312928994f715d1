"""Why jobs of a suite would run again: the changes since their results were made, root causes first.

A manifest holds the parameters, the inputs and the modules by which a job was made (:mod:`indm.store.manifest`). These are compared
with the present ones. As in Snakemake, a job also runs if another job makes one of its inputs again, a missing file is made again
only if it is a target or a job that runs reads it, and a folder is not searched for changes. Shards are not listed, because they
run with the stage that gathers them.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from indm.bench.pipeline.code import counts
from indm.bench.pipeline.input_check import InputCheck
from indm.bench.pipeline.jobs import Job, job_names, job_outputs, jobs_of, lasting_inputs
from indm.bench.pipeline.restored import record_of
from indm.bench.pipeline.stages import STAGES
from indm.bench.pipeline.stamps import changes, job_stamp, members
from indm.errors import ArtifactError, ParamsError
from indm.store.manifest import Manifest, content_sha256, damage
from indm.store.provenance import CHANGED, RESTORED_FOR

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite

# For a module that a job has begun, or stopped, to import, or that had no statements.
WORDS = {"changed": "changed", "new": "counts now", "gone": "no longer counts"}
Reads = dict[Job, dict[str, Job]]


class Answer(NamedTuple):
    """The causes of each job that would run again, of a total of jobs: the ones in the question, and all behind them."""

    chosen: str
    total: int
    again: dict[Job, list[str]]


def why(checks: InputCheck, stage: str = "", **names: str | None) -> Answer:
    """Find out which jobs would run, and why: all, or the jobs of a stage, a run, a dataset or a known density (``toy``).

    Raises:
        ParamsError: if the suite has no such job.
    """
    given = {kind: name for kind, name in {"stage": stage, **names}.items() if name}
    suite, seen = checks.suite, _Seen(checks)
    reads: Reads = {}
    for job in jobs_of(suite, "shard"):
        reads[job] = {path: maker for path, maker in lasting_inputs(suite, job).items() if maker}
    targets = _targets(suite, reads, given)
    needed = set(targets)
    for job in reversed(reads):
        needed |= set(reads[job].values()) if job in needed else set()
    reads = {job: inputs for job, inputs in reads.items() if job in needed}
    causes = {job: seen.causes(job) for job in reads}
    again = _spread({job for job in reads if causes[job] or (job in targets and seen.absent(job))}, reads, seen)
    found: dict[Job, list[str]] = {}
    for job in (job for job in reads if job in again):
        makers = dict.fromkeys(maker.stage for maker in reads[job].values() if maker in again)
        follows = [f"follows {', '.join(makers)}"] if makers and seen.is_there(job) else []
        found[job] = causes[job] or follows or seen.absent(job)
    return Answer(", ".join(filter(None, (suite.suite, " ".join(given.values())))), len(reads), found)


def _targets(suite: "Suite", reads: Reads, given: Mapping[str, str]) -> set[Job]:
    """Find the jobs in the question; for the whole suite, the jobs that make reports or files that no other job reads."""
    if not given:
        read = {maker for inputs in reads.values() for maker in inputs.values()}
        return {job for job in reads if job not in read or STAGES[job.stage].reports}
    jobs = list(reads)
    for kind, value in given.items():
        names = {job: {"stage": job.stage, **job_names(suite, job)}.get(kind) for job in jobs}
        jobs = [job for job in jobs if names[job] == value]
        if not jobs:
            stage = f" of stage {given['stage']}" if kind != "stage" and "stage" in given else ""
            expected = ", ".join(dict.fromkeys(filter(None, names.values()))) or "none"
            raise ParamsError(f"suite {suite.suite}: found no {kind} {value!r}{stage}, expected one of: {expected}")
    return set(jobs)


def _spread(first: set[Job], reads: Reads, seen: "_Seen") -> set[Job]:
    """Find the jobs that run if some do: readers of files that are made again, and makers of files that are missing then."""
    again: set[Job] = set()
    grown = set(first)
    while again != grown:
        again = set(grown)
        grown |= {job for job, inputs in reads.items() if not again.isdisjoint(inputs.values())}
        grown |= {maker for job in again for path, maker in reads[job].items() if not seen.is_there(maker, path)}
    return again


class _Seen:
    """The files of a suite's jobs, compared with the suite and the code."""

    def __init__(self, checks: InputCheck) -> None:
        self._checks, self._suite = checks, checks.suite
        self._read: dict[Job, Manifest] = {}

    def causes(self, job: Job) -> list[str]:
        """List the changes since a job was done: modules, keys of the suite, inputs, content of its files."""
        if not self.is_there(job):
            return []
        try:
            made = self._read[job] = self._checks.read(job)
        except ArtifactError as error:
            # Without the place and the remedy, the text is the same for all jobs.
            return [str(error).removeprefix(f"{self._checks.manifest(job)}: ").rpartition("; ")[0]]
        keys = [f"{key}: {was} → {now}" for key, was, now in self._checks.other_parameters(job, made)]
        found = [*self._code(job, made, bool(keys)), *keys, *self._inputs(job, made), *self._damage(job, made)]
        return list(dict.fromkeys(found))

    def absent(self, job: Job) -> list[str]:
        """Name the missing files of a job in one reason; empty if all are there."""
        files = self._files(job).values()
        missing = [path.name for path in files if not path.exists()]
        if self.is_there(job):
            return [f"missing: {', '.join(missing)}"] if missing else []
        if len(missing) == len(files):
            return ["not made yet"]
        return [f"missing: manifest/{job.stage}.json, without which the origin of its files is unknown"]

    def is_there(self, job: Job, path: str = "") -> bool:
        """Return whether the manifest of a job, and one of its files, are there."""
        return self._checks.manifest(job).is_file() and (not path or self._checks.place(path).exists())

    def _files(self, job: Job) -> dict[str, Path]:
        return {path: self._checks.place(path) for path in job_outputs(self._suite, job)}

    def _code(self, job: Job, made: Manifest, other_keys: bool) -> Iterator[str]:
        """Yield the modules that differ, if the stamp differs."""
        stage = "import_checkpoint" if self._checks.is_imported(job, made) else job.stage
        found = changes(self._suite, stage, job.subject, made.stamp, made.modules)
        record = record_of(self._suite, self._checks.results, job)
        if not found or record.get(RESTORED_FOR) == job_stamp(self._suite, stage, job.subject):
            return
        # Neither what had changed when the results were restored, nor what counted by an earlier rule, makes the job run again.
        stated = record.get(CHANGED, ())
        causes = [each for each in found if each.what != "gone" or counts(each.name)]
        found = [each for each in causes if " ".join(each) not in stated] or found
        if not made.modules:
            yield "made by code that is not recorded: its manifest lists no modules"
            return
        chosen = [
            each for each in found if each.what == "new" and each.name in members(self._suite, stage, job.subject)
        ]
        if chosen or other_keys:
            # Modules that come and go with a choice of the suite are not a cause.
            found = [each for each in found if each.what == "changed" and each.name in made.modules]
        yield from (f"{each.where} {WORDS[each.what]}" for each in found)
        if not other_keys:
            yield from (f"the suite chooses {each.where} now" for each in chosen)

    def _inputs(self, job: Job, made: Manifest) -> Iterator[str]:
        """Yield the inputs of a job that have changed since."""
        makers = self._checks.sources(job, made)
        yield from (f"input {_name(path, makers[path])} is read now" for path in makers if path not in made.inputs)
        yield from (f"input {Path(path).name} is not read any more" for path in made.inputs if path not in makers)
        for path, sha256 in made.inputs.items():
            if path in makers and self._now(path, makers[path]) not in (None, sha256):
                yield f"input {_name(path, makers[path])} changed after it was read"

    def _now(self, path: str, maker: Job | None) -> str | None:
        """Return the SHA-256 of an input; ``None`` if its manifest is missing or belongs to another job."""
        if maker is None:
            return content_sha256(self._checks.place(path))
        made = self._read.get(maker)
        return made.outputs.get(path) if made else None

    def _damage(self, job: Job, made: Manifest) -> Iterator[str]:
        """Yield the files of a job that have changed since it wrote them; files older than the manifest are not read."""
        written = self._checks.manifest(job).stat().st_mtime_ns
        for path, place in self._files(job).items():
            if not place.is_file() or place.stat().st_mtime_ns < written:
                continue
            if words := damage(place, made.outputs.get(path, "none"), self._checks.manifest(job)):
                yield f"{words}; delete it"


def _name(path: str, maker: Job | None) -> str:
    return f"{Path(path).name} of {maker.stage}" if maker else path


def lines(answer: Answer) -> list[str]:
    """Write an answer: a line for each cause and each stage whose jobs have it, in the order of the pipeline."""
    jobs = f"{answer.total} job{'s' * (answer.total != 1)}"
    if not answer.again:
        return [f"{answer.chosen}: up to date ({jobs} checked)"]
    subjects: dict[tuple[str, str], list[str]] = {}
    for job, causes in answer.again.items():
        for cause in causes:
            subjects.setdefault((job.stage, cause), []).append(job.subject)
    found = [f"{answer.chosen}: {len(answer.again)} of {jobs} would run"]
    for (stage, cause), (first, *more) in subjects.items():
        found.append(f"{' '.join(filter(None, (stage, first)))}{f' and {len(more)} more' if more else ''}: {cause}")
    return found
