"""What a suite has, what is missing of it, and where its numbers come from.

Whatever else lies in its folders, of earlier versions of the suite, is not on its page.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indm.store.provenance import STANDS_FOR, read_provenance
from indm.suite.accepted import changed_since
from indm.suite.registrations import Registration


@dataclass(frozen=True)
class Contents:
    """What a suite has.

    Arguments:
        suite: its name.
        sha256: of what it says in full, as every ``provenance/`` has it.
        stages: names of the stages that it has, by their subject; "" where they have none.
        runs: of every run the keys of ``RUN_KEY``, and ``steps`` and ``batch_size`` of its training.
        datasets: names of the datasets.
        protocol: names of the datasets whose protocol is examined.
        toy2d: names of the 2-D datasets.
        claims_sha256: of what the claims say.
        registration: of suite and claims, where there is one.
    """

    suite: str
    sha256: str
    stages: Mapping[str, Collection[str]]
    runs: Mapping[str, Mapping[str, Any]]
    datasets: Collection[str] = ()
    protocol: Collection[str] = ()
    toy2d: Collection[str] = ()
    claims_sha256: str = ""
    registration: Registration | None = None

    @property
    def folders(self) -> dict[str, str]:
        """Folders of all that it makes, below its results folder, each with the subject of its jobs."""
        subjects = {"data": self.datasets, "protocol": self.protocol, "runs": self.runs, "toy2d": self.toy2d}
        return {f"{kind}/{name}": name for kind, found in subjects.items() for name in found} | {"tables": ""}


@dataclass(frozen=True)
class Missing:
    """A result that is not there, why, and what makes it."""

    path: Path
    reason: str
    remedy: str


def missing(suite: str, path: Path, target: Path) -> Missing:
    """Say that a file is not there, and what Snakemake is asked for to make it."""
    return Missing(path, "missing", f"snakemake --cores all --config suite={suite} -- {target}")


def missing_figure(suite: str, folder: Path, figure: str) -> Missing:
    """Say that a figure is not there, which its stage does not draw without numbers."""
    reason = "not drawn yet, or its table has no number to draw"
    return Missing(folder / f"{figure}.svg", reason, missing(suite, folder, folder).remedy)


NEEDED = ("commit", "uncommitted_changes", "machine", "versions")


def read_records(contents: Contents, results: Path) -> list[dict[str, Any]]:
    """Read what every stage said of its execution: of what the suite has, in its order.

    Raises:
        ArtifactError: if a file is damaged, or another job's.
    """
    return [
        read_provenance(path, contents.suite, subject, NEEDED) | {"subject": folder}
        for folder, subject in contents.folders.items()
        for path in sorted((results / folder).glob("provenance/*.json"))
        # Nobody deletes what a stage said that the suite no longer has.
        if STANDS_FOR.get(path.stem, path.stem) in contents.stages.get(subject, ())
    ]


def origins(records: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """List every commit, what has changed since, every machine and version that the results come from, each once."""
    found: dict[str, dict[str, None]] = {"commit": {}, "machine": {}, "versions": {}}
    for record in records:
        changed = " with uncommitted changes" if record["uncommitted_changes"] else ""
        found["commit"][f"{record['commit'] or 'unknown'}{changed}"] = None
        found["machine"][record["machine"]] = None
        found["versions"] |= {f"{package} {version}": None for package, version in record["versions"].items()}
    return {key: list(texts) for key, texts in found.items()} | {"changed": changed_since(records)}
