"""Where the numbers of a page come from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from indm.report.page.contents import Contents
from indm.store.provenance import STANDS_FOR, read_provenance
from indm.suite.accepted import changed_since

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
