"""The contents of a suite, its missing results, and the origins of its numbers.

Files that earlier versions of the suite left in its folders are not on its page.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from indm.report.registrations import Addition, Registration
from indm.store.provenance import STANDS_FOR, changed_since, read_provenance

# A page of more runs has what it says of single runs in files.
MOST_RUNS = 100


@dataclass(frozen=True)
class Contents:
    """The contents of a suite.

    ``stages`` are by subject, which is "" for stages without one; ``runs`` have the keys of ``RUN_KEY``, and ``steps`` and
    ``batch_size``. ``protocol`` are the datasets whose protocol is examined, ``toy2d`` the jobs on known densities, and ``planes``
    names of density and length of the two-dimensional ones. ``sha256`` is of the full suite, as in every ``provenance/``, and
    ``changed_seeds`` describes how its seeds have changed since its registration; ``contradicted``, by variant, how its commit
    contradicts it.
    """

    suite: str
    sha256: str
    stages: Mapping[str, Collection[str]]
    runs: Mapping[str, Mapping[str, Any]]
    datasets: Collection[str] = ()
    protocol: Collection[str] = ()
    toy2d: Collection[str] = ()
    planes: Collection[str] = ()
    claims_sha256: str = ""
    registration: Registration | None = None
    changed_seeds: str = ""
    added: Sequence[Addition] = ()
    contradicted: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_many_runs(self) -> bool:
        """Whether the page leaves single runs to files: rows of their executions, and pictures of all but a cell's first seed."""
        return len(self.runs) > MOST_RUNS

    @property
    def folders(self) -> dict[str, str]:
        """The folders of its results, below its results folder, each with the subject of its jobs."""
        subjects = {"data": self.datasets, "protocol": self.protocol, "runs": self.runs, "toy2d": self.toy2d}
        found: dict[str, str] = {}
        for kind, names in subjects.items():
            found |= {f"{kind}/{name}": name for name in names}
        return found | {"tables": ""}


@dataclass(frozen=True)
class Missing:
    """A missing result, the reason, and the command that makes it."""

    path: Path
    reason: str
    remedy: str


def missing(suite: str, path: Path) -> Missing:
    """Describe a missing file, with the command that makes it."""
    return Missing(path, "missing", f"indm run {suite}")


def missing_figure(suite: str, folder: Path, figure: str) -> Missing:
    """Describe a missing figure, which its stage does not draw without numbers."""
    reason = "not drawn yet, or its table has no number to draw"
    return Missing(folder / f"{figure}.svg", reason, missing(suite, folder).remedy)


NEEDED = ("commit", "uncommitted_changes", "machine", "device", "threads", "versions", "seconds")


def read_records(contents: Contents, results: Path) -> list[dict[str, Any]]:
    """Read the provenance of every stage that the suite has, in the suite's order.

    Raises:
        ArtifactError: if a file is damaged, or belongs to another job.
    """
    records = []
    for folder, subject in contents.folders.items():
        for path in sorted((results / folder).glob("provenance/*.json")):
            # Records of stages that the suite no longer has are kept, but left out here.
            if STANDS_FOR.get(path.stem, path.stem) in contents.stages.get(subject, ()):
                records.append(read_provenance(path, contents.suite, subject, NEEDED) | {"subject": folder})
    return records


def code_since(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each commit that computed results, with the modules that had changed when they were restored."""
    made: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        commit = f"commit {record['commit'][:12]}" if record["commit"] else "an unknown commit"
        made.setdefault(commit, []).append(record)
    found = []
    for commit, these in made.items():
        if modules := changed_since(these):
            found.append(f"computed by {commit}; since then {', '.join(modules)} changed")
    return found
