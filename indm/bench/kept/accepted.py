"""The changes of the code since results were made, and which of them were accepted, in ``docs/results/<suite>/accepted.yaml``."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from indm.bench.kept.evidence import Evidence
from indm.bench.pipeline.input_check import InputCheck
from indm.bench.pipeline.jobs import Job
from indm.bench.pipeline.stamps import SHORT, Difference, changes
from indm.errors import ArtifactError, ParamsError
from indm.store.files import AGAIN, atomic_write
from indm.strict_yaml import Strict, read_valid, yaml_text

FILE = "accepted.yaml"
HEAD = "# Accepted changes of the code since kept results were made: written by indm restore --accept.\n"
# A module, its hash then and its hash now.
LINE = r"^\S+ ([0-9a-f]{10}|none) ([0-9a-f]{10}|none)$"


class Acceptance(Strict):
    """Changes that were accepted together."""

    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description="when")
    why: str = Field(min_length=1, description="effect of the changes on the results")
    evidence: Evidence | None = Field(default=None, description="what a suite showed that was run before and after")
    modules: list[Annotated[str, Field(pattern=LINE)]] = Field(
        description="name of each module, its hash then, its hash now"
    )


class Accepted(Strict):
    """The file."""

    accepted: list[Acceptance] = Field(description="in the order of time")


class Changes:
    """The changes since jobs were done; with a reason, all that the file does not have are accepted, too, and recorded.

    Arguments:
        path: the file.
        why: the reason; ``None`` to accept nothing.
        evidence: what a suite showed, to be recorded with the reason.

    Raises:
        ParamsError: if the file is invalid, or the reason is empty.
    """

    def __init__(self, path: Path, why: str | None = None, evidence: Evidence | None = None) -> None:
        self.path, self.why, self.evidence = path, " ".join(why.split()) if why else why, evidence
        self.entries = read_valid(path, Accepted).accepted if path.is_file() else []
        if self.why is not None and not self.why:
            raise ParamsError("--accept: found an empty reason, expected one in words, for readers of the results")

    def since(self, checks: InputCheck, job: Job) -> list[Difference]:
        """List the modules that have changed since a job was done, by its manifest.

        Raises:
            ArtifactError: if the manifest is damaged, belongs to another job, or lists no modules, as earlier versions did not.
        """
        made = checks.read(job)
        hashes = {"stamp": made.stamp[:SHORT], **made.modules}
        if not made.modules or not all(re.match(LINE, f"{name} {sha256} none") for name, sha256 in hashes.items()):
            words = "found no hashes of modules, expected the modules of the code that did the job"
            raise ArtifactError(f"{checks.manifest(job)}: {words}; {AGAIN}")
        stage = "import_checkpoint" if checks.is_imported(job, made) else job.stage
        return changes(checks.suite, stage, job.subject, made.stamp, made.modules)

    def open(self, found: Iterable[Difference]) -> list[Difference]:
        """Return the changes that are not accepted, each once."""
        known = {line for entry in self.entries for line in entry.modules}
        new = [each for each in dict.fromkeys(found) if " ".join(each) not in known]
        if self.why and new:
            self._accept(self.why, [" ".join(each) for each in new])
        return [] if self.why else new

    def refuse(self, checks: InputCheck, job: Job, remedy: str = "") -> None:
        """Refuse the results of a job that other code made, unless the changes since were accepted."""
        for each in self.open(self.since(checks, job)):
            raise ArtifactError(f"{checks.manifest(job)}: made by other code: {each.what} {each.where}{remedy}")

    def acceptances(self, found: Iterable[Difference]) -> list[dict[str, Any]]:
        """Return the entries of the file, without other changes than these."""
        lines = {" ".join(each) for each in found}
        shown = ((entry, sorted(lines.intersection(entry.modules))) for entry in self.entries)
        return [entry.model_dump(exclude_none=True) | {"modules": modules} for entry, modules in shown if modules]

    def _accept(self, why: str, lines: list[str]) -> None:
        """Record changes; one entry has all changes on the same day for the same reason and by the same evidence."""
        new = Acceptance(date=f"{datetime.now(UTC):%Y-%m-%d}", why=why, evidence=self.evidence, modules=lines)
        if self.entries and self.entries[-1].model_copy(update={"modules": lines}) == new:
            lines = lines + self.entries.pop().modules
        self.entries.append(new.model_copy(update={"modules": sorted(lines)}))
        with atomic_write(self.path) as file:
            file.write((HEAD + yaml_text(Accepted(accepted=self.entries).model_dump(exclude_none=True))).encode())
