"""The changes of the code since kept results were made, and which of them were accepted.

A manifest has the stamp and the definitions of the code that made it. For older manifests, the stamp is computed in today's format
for the sources of the commit that the provenance names.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from indm.errors import ParamsError
from indm.kept.check import record
from indm.kept.folders import Folder
from indm.pipeline.code import sources_of
from indm.pipeline.identity import Identity
from indm.pipeline.stamps import SHORT, Difference, differences, job_modules, job_stamp
from indm.store.files import atomic_write
from indm.store.manifest import Manifest, read_manifest
from indm.store.provenance import read_provenance
from indm.suite.accepted import Acceptance, Accepted, load_accepted
from indm.suite.strict_yaml import yaml_text

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite

FILE = "accepted.yaml"
UNCOMMITTED = "uncommitted changes"
HEAD = "# Accepted changes of the code since kept results were made: written by indm restore --accept.\n"


def described(difference: Difference) -> str:
    """Describe the change of a definition, with its place."""
    if difference.name.startswith(UNCOMMITTED):
        return f"unknown {difference.name}"
    return f"{difference.what} {difference.name}" + (f" ({difference.where})" if difference.where else "")


class Changes:
    """The changes since the jobs of a suite were done.

    Arguments:
        suite: the suite.
        accepted: the file of accepted changes.
    """

    def __init__(self, suite: "Suite", accepted: Path) -> None:
        self.suite, self.path = suite, accepted
        self.accepted = load_accepted(accepted)
        self._known: dict[tuple[str, str], list[Difference]] = {}

    def since(self, results: Path, folder: Folder) -> dict[str, list[Difference]]:
        """List the changes since each job of a folder was done, by the path of its record.

        Arguments:
            results: the results folder.
            folder: a folder that :func:`~indm.kept.check.check_folder` accepts.

        Raises:
            ArtifactError: if git lacks the sources that a record names.
        """
        here, found = results / self.suite.suite, {}
        for job in folder.jobs:
            path = record(here, folder, job)
            made = read_manifest(Identity(self.suite, results, Path("reports")).manifest(job))
            found[str(path.relative_to(here))] = self.of(path, made)
        return found

    def open(self, found: Iterable[Difference]) -> list[Difference]:
        """Leave out accepted differences."""
        return [each for each in found if not any(_covers(one, each) for one in self.accepted.accepted)]

    def acceptances(self, found: Iterable[Difference]) -> list[Acceptance]:
        """Return the acceptances of these differences, each from the latest entry that covers it."""
        by: dict[int, list[Difference]] = {}
        for each in found:
            covering = [i for i, one in enumerate(self.accepted.accepted) if _covers(one, each)]
            by.setdefault(covering[-1], []).append(each)
        entries = self.accepted.accepted
        return [_acceptance(entries[i].date, entries[i].why, these) for i, these in sorted(by.items())]

    def accept(self, found: Iterable[Difference], why: str) -> None:
        """Record that these differences are accepted, if they were not before.

        Raises:
            ParamsError: if the reason is empty.
        """
        if not why.strip():
            raise ParamsError("--accept: found an empty reason, expected one in words, for readers of the results")
        found, before = set(found), self.accepted
        # An entry has one change of a definition, which may have been removed from one stage and changed in another.
        while left := self.open(found):
            entry = _acceptance(datetime.now(UTC).date().isoformat(), " ".join(why.split()), left)
            self.accepted = Accepted(accepted=[*self.accepted.accepted, entry])
        if self.accepted is not before:
            with atomic_write(self.path) as file:
                file.write((HEAD + yaml_text(self.accepted.model_dump())).encode())

    def are_accepted(self, made: Manifest, path: Path) -> bool:
        """Return whether there are changes since a job was done, and all were accepted; ``path`` is the job's record."""
        found = self.of(path, made)
        return bool(found) and not self.open(found)

    def of(self, path: Path, made: Manifest) -> list[Difference]:
        """List the changes since a job was done, by its manifest and its record, which is at ``path``."""
        stage, subject = path.stem, made.subject
        if made.stamp:
            return self._compared(stage, subject, made.stamp, lambda: made.modules)
        record = read_provenance(path, self.suite.suite, subject, needed=("code_stamp",))
        said, commit = record["code_stamp"], record.get("commit")
        found = []
        if commit is None or record.get("uncommitted_changes") is not False:
            now = job_stamp(self.suite, stage, subject)
            found = [Difference(f"{UNCOMMITTED} of stage {stage}", said[:SHORT], now[:SHORT])]
        if commit is None:
            return found
        then = sources_of(str(commit))
        job = (self.suite, stage, subject, then)
        return found + self._compared(stage, subject, job_stamp(*job), lambda: job_modules(*job))

    def _compared(
        self, stage: str, subject: str, then: str, definitions: Callable[[], Mapping[str, str]]
    ) -> list[Difference]:
        now = job_stamp(self.suite, stage, subject)
        if (then, now) not in self._known:
            # If no definition has changed, a name now refers to another definition with the same name.
            other = [Difference(f"references of stage {stage}", then[:SHORT], now[:SHORT])]
            changed = list(differences(definitions(), job_modules(self.suite, stage, subject))) if then != now else []
            self._known[then, now] = (changed or other) if then != now else []
        return self._known[then, now]


def _covers(acceptance: Acceptance, difference: Difference) -> bool:
    return any(
        name == difference.name and hashes.get(difference.then) == difference.now
        for name, hashes in acceptance.definitions.items()
    )


def _acceptance(date: str, why: str, found: Iterable[Difference]) -> Acceptance:
    definitions: dict[str, dict[str, str]] = {}
    for each in sorted(set(found)):
        definitions.setdefault(each.name, {})[each.then] = each.now
    return Acceptance(date=date, why=why, definitions=definitions)
