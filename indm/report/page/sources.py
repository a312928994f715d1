"""Where the numbers of a page come from, and what they cannot be taken for."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from indm.report.page.tables import Table
from indm.store.files import read_json


def read_provenance(results: Path) -> list[dict[str, Any]]:
    """Read what every stage said of its execution, in the order of the paths."""
    files = sorted(results.glob("**/provenance/*.json"))
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


def caveats(suite: str, tables: Mapping[str, Table], records: list[dict[str, Any]]) -> list[str]:
    """Say what the numbers of this page cannot be taken for, as far as its files tell."""
    seeds = tables["fid"].texts("seeds") | tables["nll"].texts("seeds")
    extractors = {text for text in tables["fid"].texts("extractor") if text and not text.startswith("inception")}
    found = {
        "The suite smoke only checks that the pipeline runs: its models are barely trained, and its numbers mean"
        " nothing.": suite == "smoke",
        "Some models were trained with one seed: their ± is over images, and says nothing of how far another seed would"
        " move a number.": "1" in seeds,
        f"FID and KID are on features of {', '.join(sorted(extractors))}: they compare with each other, and with no"
        " number published on Inception features.": bool(extractors),
        "Some stages ran on a checkout with uncommitted changes: their commit alone does not give their code.": any(
            record["uncommitted_changes"] for record in records
        ),
        "Not all stages ran at one commit: a stage whose code and inputs stay the same is not run again.": len(
            {record["commit"] for record in records}
        )
        > 1,
        "Not all stages ran on one machine, and results repeat to the byte on one machine only.": len(
            {record["machine"] for record in records}
        )
        > 1,
    }
    return [text for text, applies in found.items() if applies]
