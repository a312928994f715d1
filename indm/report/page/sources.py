"""Where the numbers of a page come from."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from indm.report.page.contents import Contents
from indm.store.files import read_json


def read_provenance(contents: Contents, results: Path) -> list[dict[str, Any]]:
    """Read what every stage said of its execution: of what the suite has, in its order."""
    files = [path for folder in contents.folders for path in sorted((results / folder).glob("provenance/*.json"))]
    return [
        {**read_json(path), "stage": path.stem, "subject": str(path.parent.parent.relative_to(results))}
        for path in files
    ]


def origins(records: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """List every commit, machine and version that the results come from, each once."""
    found: dict[str, dict[str, None]] = {"commit": {}, "machine": {}, "versions": {}}
    for record in records:
        changed = " with uncommitted changes" if record["uncommitted_changes"] else ""
        found["commit"][f"{record['commit'] or 'unknown'}{changed}"] = None
        found["machine"][record["machine"]] = None
        found["versions"] |= {f"{package} {version}": None for package, version in record["versions"].items()}
    return {key: list(texts) for key, texts in found.items()}
