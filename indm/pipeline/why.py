"""Why jobs of a suite would run again: the changes since their results were made, root causes first.

A manifest holds the parameters, the inputs and the modules by which a job was made (:mod:`indm.store.manifest`). These are
compared with the present ones. As in Snakemake, a job also runs if another job makes one of its inputs again, and a missing file
is made again only if a job that runs reads it. Shards are not listed, because they run with the stage that gathers them.
"""

import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from indm.errors import ArtifactError, ParamsError
from indm.pipeline.identity import Identity
from indm.pipeline.jobs import Job, job_names, lasting_inputs
from indm.pipeline.stages import STAGES
from indm.pipeline.stamps import Difference, differences, job_modules, job_stamp, members
from indm.store.manifest import Manifest, content_sha256, damage
from indm.store.provenance import RESTORED_FOR, read_provenance, record_names

if TYPE_CHECKING:
    from rich.text import Text

    from indm.suite.schema.suite import Suite

# Causes that the overview shows in a paragraph.
MOST_CAUSES, MOST_NAMES = 8, 3

Reads = dict[Job, dict[str, Job]]


class Again(NamedTuple):
    """A job that would run.

    Arguments:
        job: the job.
        causes: changes and missing files of the job itself; empty if it only follows from other jobs.
        follows: the inputs that are made again.
    """

    job: Job
    causes: tuple[str, ...]
    follows: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """Which jobs would run, and why.

    Arguments:
        suite: name of the suite.
        chosen: the stage and the names in the question; empty for the whole suite.
        total: number of these jobs and of all jobs on which they depend.
        again: the jobs that would run, in the order of the pipeline.
    """

    suite: str
    chosen: str
    total: int
    again: list[Again]


def why(identity: Identity, stage: str = "", **names: str | None) -> Answer:
    """Find out which jobs would run, and why.

    Arguments:
        identity: the suite and its manifests.
        stage: a stage, to ask about its jobs only.
        names: a run, a dataset or a two-dimensional dataset (``toy``), to ask about its jobs only.

    Raises:
        ParamsError: if the suite has no such job.
    """
    given = {kind: name for kind, name in {"stage": stage, **names}.items() if name}
    reads = {job: _inputs(identity.suite, job) for job in _jobs(identity.suite)}
    targets = _targets(identity.suite, reads, given)
    reads = _behind(targets, reads)
    changes = Changes(identity)
    causes = {job: tuple(changes.of(job)) for job in reads}
    first = {job for job in reads if causes[job] or (job in targets and changes.absent(job))}
    again = _spread(first, reads, changes)
    found = []
    for job in (job for job in reads if job in again):
        follows = tuple(_follows(reads[job], again)) if changes.is_there(job) else ()
        found.append(Again(job, causes[job] or (() if follows else changes.absent(job)), follows))
    return Answer(identity.suite.suite, " ".join(given.values()), len(reads), found)


def _jobs(suite: "Suite") -> Iterator[Job]:
    for name, stage in STAGES.items():
        if stage.subject != "shard":
            yield from (Job(name, subject) for subject in stage.subjects(suite))


def _inputs(suite: "Suite", job: Job) -> dict[str, Job]:
    return {path: maker for path, maker in lasting_inputs(suite, job).items() if maker}


def _targets(suite: "Suite", reads: Reads, given: Mapping[str, str]) -> set[Job]:
    """Find the jobs in the question; for the whole suite, the jobs whose results no other job reads."""
    if not given:
        return set(reads) - {maker for inputs in reads.values() for maker in inputs.values()}
    jobs = list(reads)
    for kind, value in given.items():
        names = {job: {"stage": job.stage, **job_names(suite, job)}.get(kind) for job in jobs}
        jobs = [job for job in jobs if names[job] == value]
        if not jobs:
            stage = f" of stage {given['stage']}" if kind != "stage" and "stage" in given else ""
            expected = ", ".join(dict.fromkeys(filter(None, names.values()))) or "none"
            raise ParamsError(f"suite {suite.suite}: found no {kind} {value!r}{stage}, expected one of: {expected}")
    return set(jobs)


def _behind(targets: Collection[Job], reads: Reads) -> Reads:
    """Return jobs and all on which they depend, in the order of the pipeline."""
    found, queue = set(targets), list(targets)
    while queue:
        more = set(reads[queue.pop()].values()) - found
        found |= more
        queue += more
    return {job: inputs for job, inputs in reads.items() if job in found}


def _spread(first: set[Job], reads: Reads, changes: "Changes") -> set[Job]:
    """Find the jobs that run if some do: readers of files that are made again, and makers of files that are missing then."""
    again: set[Job] = set()
    grown = set(first)
    while again != grown:
        again = set(grown)
        for job, inputs in reads.items():
            if not grown.isdisjoint(inputs.values()):
                grown.add(job)
        for job in reversed(reads):
            if job in grown:
                grown |= {maker for path, maker in reads[job].items() if not changes.is_there(maker, path)}
    return again


def _follows(inputs: Mapping[str, Job], again: Collection[Job]) -> Iterator[str]:
    """Yield the inputs of a job that are made again, by the stages that make them."""
    files: dict[str, list[str]] = {}
    for path, maker in inputs.items():
        if maker in again:
            files.setdefault(maker.stage, []).append(Path(path).name)
    for stage, names in files.items():
        yield f"{stage} makes its input again: {', '.join(dict.fromkeys(names))}"


class Changes:
    """The changes since the jobs of a suite were done.

    Arguments:
        identity: the suite and its manifests.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity, self._suite = identity, identity.suite
        self._read: dict[Job, Manifest] = {}

    def of(self, job: Job) -> Iterator[str]:
        """Yield the changes since a job was done: modules, keys of the suite, inputs, content of its files."""
        if not self.is_there(job):
            return
        try:
            made = self._read[job] = self._identity.read(job)
        except ArtifactError as error:
            # Without the place and the remedy, the text is the same for all jobs.
            yield str(error).removeprefix(f"{self._identity.manifest(job)}: ").rpartition("; ")[0]
            return
        keys = [f"{key}: {was} → {now}" for key, was, now in self._identity.other_parameters(job, made)]
        yield from self._code(job, made, bool(keys))
        yield from keys
        yield from self._sources(job, made)
        yield from self._damage(job, made)

    def absent(self, job: Job) -> tuple[str, ...]:
        """Name the missing files of a job in one reason; empty if all are there."""
        files = [*self._files(job).values()]
        missing = [path.name for path in files if not path.exists()]
        if self.is_there(job):
            return (f"missing: {', '.join(missing)}",) if missing else ()
        if len(missing) == len(files):
            return ("not made yet",)
        return (f"missing: manifest/{job.stage}.json, without which the origin of its files is unknown",)

    def is_there(self, job: Job, path: str = "") -> bool:
        """Return whether the manifest of a job, and one of its files, are there."""
        return self._identity.manifest(job).is_file() and (not path or self._identity.place(path).exists())

    def _files(self, job: Job) -> dict[str, Path]:
        names = job_names(self._suite, job)
        paths = (pattern.format(**names) for pattern in STAGES[job.stage].written)
        return {path: self._identity.place(path) for path in paths}

    def _code(self, job: Job, made: Manifest, other_keys: bool) -> Iterator[str]:
        """Yield the modules that differ, if the stamp differs."""
        stage = "import_checkpoint" if self._identity.is_imported(job, made) else job.stage
        recorded, restored_for = self._recorded_stamps(job)
        stamps = {made.stamp or recorded, restored_for} - {""}
        if job_stamp(self._suite, stage, job.subject) in stamps:
            return
        if not made.modules:
            known = "with another stamp than now" if stamps else "that is not recorded"
            yield f"made by code {known}; which modules changed is unknown, because its manifest lists none"
            return
        now = job_modules(self._suite, stage, job.subject)
        found, chosen = (
            sorted(differences(made.modules, now), key=lambda each: each.name),
            self._chosen(job, made.modules, now),
        )
        if other_keys or chosen:
            # Definitions that come and go with a choice of the suite are not a cause.
            found = [each for each in found if each.name in made.modules and each.name in now]
        yield from map(_shown, found)
        if not other_keys:
            yield from (f"the suite chooses {name.replace('.', '/')}.py now" for name in chosen)
        if not (found or chosen or other_keys):
            yield "other weights of the model, derived from the suite by indm"

    def _chosen(self, job: Job, made: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
        """Name the registered members that a job uses now and did not use then, in any module."""
        hashes = set(made.values())
        return [name for name in members(self._suite, *job) if name not in made and now.get(name) not in hashes]

    def _recorded_stamps(self, job: Job) -> tuple[str, str]:
        """Return the stamps in a job's provenance: of the code that did the job, and of the code for which it was restored."""
        folder = self._identity.manifest(job).parent.parent / "provenance"
        for name in record_names(job.stage):
            with contextlib.suppress(ArtifactError):
                record = read_provenance(folder / f"{name}.json", self._suite.suite, job.subject)
                return str(record.get("code_stamp", "")), str(record.get(RESTORED_FOR, ""))
        return "", ""

    def _sources(self, job: Job, made: Manifest) -> Iterator[str]:
        """Yield the inputs of a job that have changed since, counted by name and stage."""
        makers = self._identity.sources(job, made)
        found = Counter(f"{_name(path, makers[path])} is read now" for path in makers if path not in made.inputs)
        found += Counter(f"{Path(path).name} is not read any more" for path in made.inputs if path not in makers)
        for path, sha256 in made.inputs.items():
            if path in makers and self._now(path, makers[path]) not in (None, sha256):
                found[f"{_name(path, makers[path])} changed after it was read"] += 1
        for text, count in found.items():
            yield f"input {text}" + (f" ({count} files)" if count > 1 else "")

    def _now(self, path: str, maker: Job | None) -> str | None:
        """Return the SHA-256 of an input; ``None`` if its manifest is missing or belongs to another job."""
        if maker is None:
            return content_sha256(self._identity.place(path))
        made = self._read.get(maker)
        return made.outputs.get(path) if made else None

    def _damage(self, job: Job, made: Manifest) -> Iterator[str]:
        """Yield the files of a job that have changed since it wrote them; files older than the manifest are not read."""
        written = self._identity.manifest(job).stat().st_mtime_ns
        for path, place in self._files(job).items():
            if not place.exists() or _changed_at(place) < written:
                continue
            if words := damage(place, made.outputs.get(path, "none"), self._identity.manifest(job)):
                yield f"{words}; delete it"


def _shown(difference: Difference) -> str:
    return f"{difference.where} {difference.what if difference.what == 'changed' else f'is {difference.what}'}"


def _name(path: str, maker: Job | None) -> str:
    return f"{Path(path).name} of {maker.stage}" if maker else path


def _changed_at(place: Path) -> int:
    return max(path.stat().st_mtime_ns for path in (place, *(place.iterdir() if place.is_dir() else ())))


def page(answer: Answer) -> "Text":
    """Write an answer: a paragraph for all jobs with the same causes, in the order of the pipeline; then the jobs that follow.

    If the question was about some jobs only, each job that follows is shown with its reasons.
    """
    from rich.text import Text

    what = ", ".join(filter(None, (answer.suite, answer.chosen)))
    if not answer.again:
        return Text(f"{what}: up to date ({_count(answer.total)} checked)")
    found = Text(f"{what}: {len(answer.again)} of {_count(answer.total)} would run", style="bold")
    groups: dict[tuple[str, ...], list[Job]] = {}
    for each in answer.again:
        groups.setdefault(each.causes + (each.follows if answer.chosen else ()), []).append(each.job)
    following = groups.pop((), [])
    for causes, jobs in groups.items():
        found.append(f"\n\n{_heading(jobs)}")
        shown = causes if answer.chosen else causes[:MOST_CAUSES]
        found.append("".join(f"\n  {cause}" for cause in shown), style="not bold")
        if more := len(causes) - len(shown):
            command = f"indm why {jobs[0].stage} --suite {answer.suite}"
            found.append(f"\n  and {more} more, which {command} lists", style="not bold")
    if following:
        found.append(f"\n\n{_count(len(following))} would follow, because these make their inputs again: ")
        found.append(_by_stage(following), style="not bold")
    return found


def _heading(jobs: list[Job]) -> str:
    """Count jobs by stage; a few jobs of a single stage are named."""
    if len({job.stage for job in jobs}) > 1:
        return f"{_count(len(jobs))}: {_by_stage(jobs)}"
    names = [job.subject for job in jobs if job.subject]
    named = f": {', '.join(names)}" if names and len(names) <= MOST_NAMES else ""
    return f"{_count(len(jobs))} of {jobs[0].stage}{named}"


def _by_stage(jobs: Iterable[Job]) -> str:
    return ", ".join(f"{count} of {stage}" for stage, count in Counter(job.stage for job in jobs).items())


def _count(jobs: int) -> str:
    return f"{jobs} job" + ("s" if jobs != 1 else "")
