"""Checks that a job reads the right files, so that a result is never computed from a wrong file.

Each job writes a manifest of its files (:mod:`indm.store.manifest`). Before a job starts, the contents of its inputs are compared
with the manifests of the jobs that wrote them. These manifests are compared with the present suite and, back to the datasets,
with one another. A job stops with one line if a file is damaged, belongs to another run, was made with other parameters, or was
made from a file that has since been replaced.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indm.bench.pipeline.jobs import (
    IMPORTED,
    Job,
    job_inputs,
    job_names,
    job_outputs,
    job_parameters,
    lasting_inputs,
    manifest,
)
from indm.bench.pipeline.stamps import job_modules, job_stamp
from indm.bench.suite.removed import without_removed
from indm.errors import ArtifactError
from indm.store.files import AGAIN, FIRST
from indm.store.layout import Layout
from indm.store.manifest import Manifest, content_sha256, damage, read_manifest, write_manifest

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite

SHOWN_DIFFERENCES = 3
ABSENT = object()


class InputCheck:
    """The checks of the files that the jobs of a suite read."""

    def __init__(self, suite: "Suite", results: Path, reports: Path) -> None:
        self.suite, self.results, self.reports = suite, results, reports
        self.layout = Layout(results, suite.suite)
        self._trusted: dict[Job, Manifest] = {}

    def check(self, job: Job, patterns: tuple[str, ...] | None = None) -> dict[str, str]:
        """Check the files that a job is about to read, and return the SHA-256 of each that lasts (:func:`lasting_inputs`), by path.

        Raises:
            ArtifactError: if an input is missing, damaged or made from something else.
        """
        found = {}
        for path, maker in job_inputs(self.suite, job, patterns):
            place = self.place(path)
            if not place.exists():
                raise ArtifactError(
                    f"{place}: missing; {FIRST if maker else 'run from the top of a checkout, which has it'}"
                )
            if maker is None:
                found[path] = content_sha256(place)
                continue
            found[path] = self.trust(maker).outputs.get(path, "none")
            if words := damage(place, found[path], self.manifest(maker)):
                raise ArtifactError(f"{words}; {AGAIN}")
        return {path: found[path] for path in lasting_inputs(self.suite, job, patterns)}

    def record(self, job: Job, inputs: dict[str, str], made_by: str | None = None) -> None:
        """Write the manifest of a job that has ended; ``made_by`` is the stage that did it, if not its own."""
        parameters = job_parameters(self.suite, job)
        hashes = {path: content_sha256(self.place(path)) for path in job_outputs(self.suite, job)}
        job_of_code = (self.suite, made_by or job.stage, job.subject)
        stamp, modules = job_stamp(*job_of_code), job_modules(*job_of_code)
        made = Manifest(job.stage, self.suite.suite, job.subject, parameters, inputs, hashes, stamp, modules)
        write_manifest(self.manifest(job), made)

    def trust(self, job: Job) -> Manifest:
        """Read a job's manifest, and check that it belongs to this job, the present suite and the present files.

        Raises:
            ArtifactError: if it does not.
        """
        if job in self._trusted:
            return self._trusted[job]
        path, found = self.manifest(job), self.read(job)
        if differences := list(self.other_parameters(job, found)):
            more = len(differences) - SHOWN_DIFFERENCES
            listed = [f"{key}: found {was}, expected {now}" for key, was, now in differences[:SHOWN_DIFFERENCES]]
            shown = ", ".join(listed) + (f" and {more} more" if more > 0 else "")
            raise ArtifactError(f"{path}: made with other parameters than the suite has now: {shown}; {AGAIN}")
        self._check_sources(job, found, path)
        self._trusted[job] = found
        return found

    def read(self, job: Job) -> Manifest:
        """Read a job's manifest, and check that it belongs to this job.

        Raises:
            ArtifactError: if it does not, is missing or cannot be read.
        """
        path = self.manifest(job)
        found = read_manifest(path)
        if (found.suite, found.stage, found.subject) != (self.suite.suite, *job):
            raise ArtifactError(
                f"{path}: found the manifest of {_name(found.suite, found.stage, found.subject)}, expected the manifest of "
                f"{_name(self.suite.suite, *job)}; {AGAIN}"
            )
        return found

    def other_parameters(self, job: Job, found: Manifest) -> Iterator[tuple[str, str, str]]:
        """Yield each key that differs between a manifest and the present suite, with both values."""
        return _differences(without_removed(found.parameters), _plain(job_parameters(self.suite, job)))

    def is_imported(self, job: Job, found: Manifest) -> bool:
        """Return whether a training is an imported checkpoint, by its manifest."""
        return job.stage == "train" and set(found.inputs) == set(lasting_inputs(self.suite, job, IMPORTED))

    def sources(self, job: Job, found: Manifest) -> dict[str, Job | None]:
        """Return the files from which a job that has this manifest should be made, with the jobs that write them."""
        return lasting_inputs(self.suite, job, IMPORTED if self.is_imported(job, found) else None)

    def _check_sources(self, job: Job, found: Manifest, path: Path) -> None:
        """Check that a job was made from exactly its inputs, as they are now."""
        sources = self.sources(job, found)
        if set(found.inputs) != set(sources):
            odd = ", ".join(sorted(set(found.inputs) ^ set(sources))[:SHOWN_DIFFERENCES])
            raise ArtifactError(f"{path}: made from other files than the suite has now: {odd}; {AGAIN}")
        for name in found.inputs:
            if self._now(name, sources[name]) not in (None, found.inputs[name]):
                raise ArtifactError(f"{path}: made from another {self.place(name)} than there is now; {AGAIN}")

    def _now(self, name: str, maker: Job | None) -> str | None:
        """Return the SHA-256 of a file; ``None`` if it was not copied along with the files that were made from it."""
        if maker is None:
            return content_sha256(self.place(name))
        if not self.manifest(maker).is_file():
            return None
        return self.trust(maker).outputs.get(name, "none")

    def manifest(self, job: Job) -> Path:
        """Return the path of a job's manifest."""
        return self.place(manifest(job.stage).format(**job_names(self.suite, job)))

    def place(self, path: str) -> Path:
        """Return the path of a file that the pipeline's description names."""
        top, _, rest = path.partition("/")
        return {"results": self.results, "reports": self.reports}.get(top, Path(top)) / rest


def _name(suite: str, stage: str, subject: str) -> str:
    return " ".join(filter(None, (f"suite {suite},", "stage", stage, subject)))


def _plain(content: Any) -> Any:
    """Return content as it is after a round trip through JSON."""
    return json.loads(json.dumps(content))


def _differences(found: Any, expected: Any, key: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield each key whose value differs, with both values."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for name in dict.fromkeys([*found, *expected]):
            place = f"{key}.{name}" if key else name
            yield from _differences(found.get(name, ABSENT), expected.get(name, ABSENT), place)
    elif found != expected:
        yield key, _shown(found), _shown(expected)


def _shown(value: Any) -> str:
    return "nothing" if value is ABSENT else "a section" if isinstance(value, dict) else json.dumps(value)
