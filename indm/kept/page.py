"""The README.md of a suite's published results: a generated block in a hand-written page."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from indm.errors import ArtifactError
from indm.kept.folders import SUFFIX
from indm.report.catalogue import CATALOGUE
from indm.report.page.registration import describe_registration
from indm.report.readme import END, of_suite, replace_block
from indm.store.provenance import commit_date
from indm.suite.accepted import changed_since
from indm.suite.claims import load_claims
from indm.suite.load import claims_sha256, suite_sha256
from indm.suite.registrations import load_registrations

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite

BLOCK = "results"
STUB = """\
# Results of suite {suite}

<!-- results: written by python -m indm publish; text outside of these two lines stays -->
{end}
"""
# Folders that are listed in one line.
KINDS = {
    "figures": "the page's figures",
    "samples": "the first images that the first seed of each cell drew",
    "neighbours": "each of the first eight of them, and below it the training image next to it",
    "diffusion": "training images on their way to noise by those models: each in data space, and below that its latent",
    "kept": "result files of each run, dataset and study, for `python -m indm restore`",
}
OTHERS = {
    "provenance.json": "commits, versions, machines, threads and times of all jobs of datasets, runs and studies",
    "dvc.lock": "which content of each file belongs to these results, for DVC",
}


@dataclass(frozen=True)
class Published:
    """The published files of a suite: their folder, the bytes of each, the verdicts, and the executions behind the results."""

    suite: "Suite"
    target: Path
    sizes: Mapping[str, int]
    claims: pd.DataFrame
    executions: list[dict[str, Any]]


def page_text(published: Published) -> str:
    """Return README.md with its generated block; a missing page becomes a stub.

    Raises:
        ArtifactError: if the page lacks the markers of the block, or is not text.
    """
    path = published.target / "README.md"
    stub = STUB.format(suite=published.suite.suite, end=END.format(name=BLOCK))
    text = _read(path) if path.is_file() else stub
    return replace_block(text, BLOCK, "\n".join(_lines(published)), str(path))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except ValueError:
        raise ArtifactError(f"{path}: found bytes that are not UTF-8, expected a text; save it as UTF-8") from None


def _lines(published: Published) -> Iterator[str]:
    suite, executions = published.suite, published.executions
    commits = [execution["commit"] for execution in executions]
    registration = describe_registration(
        suite.suite,
        load_registrations(Path("params/registrations.yaml")).suites.get(suite.suite),
        suite_sha256(suite),
        claims_sha256(load_claims(Path("params/claims.yaml"))),
        commits,
    )
    hours = sum(execution["seconds"] for execution in executions) / 3600
    yield from ("| | |", "|---|---|")
    yield f"| suite | `params/{suite.suite}.yaml`; its content in full has SHA-256 `{suite_sha256(suite)}` |"
    yield f"| registration | {_cell(registration)} |"
    yield f"| commits | {'; '.join(dict.fromkeys(map(_commit, executions)))} |"
    yield from (f"| changed since | {_cell(change)} |" for change in changed_since(executions))
    yield f"| machines | {'; '.join(dict.fromkeys(map(_machine, executions)))} |"
    yield f"| time | {hours:.2f} hours, the sum over all jobs of datasets, runs and studies |"
    if verdicts := of_suite(published.claims):
        yield from (
            "",
            verdicts,
            "",
            "\\* Borderline. [How verdicts work](../../claims.md) defines the verdicts.",
        )
    yield from ("", "| file | KiB | |", "|---|--:|---|")
    yield from _files(published)


def _cell(text: str) -> str:
    """Escape line breaks and bars, which a cell of a table may not contain."""
    return " ".join(text.split()).replace("|", "\\|")


def _commit(execution: Mapping[str, Any]) -> str:
    commit = execution["commit"]
    if commit is None:
        return "unknown"
    date = commit_date(commit)
    changed = ", with uncommitted changes" if execution["uncommitted_changes"] else ""
    return f"`{commit}`{f' of {date}' if date else ''}{changed}"


def _machine(execution: Mapping[str, Any]) -> str:
    versions = execution["versions"]
    return (
        f"{execution['machine']}; threads: {execution['threads']}; {execution['device']}; "
        f"Python {versions['python']}, torch {versions['torch']}"
    )


def _files(published: Published) -> Iterator[str]:
    """Yield a row for each table and other file, and one row for each folder of files of the same kind."""
    folders: dict[str, list[int]] = {}
    for name, size in sorted(published.sizes.items()):
        folder = name.split("/")[0]
        if folder in KINDS:
            folders.setdefault(folder, []).append(size)
        else:
            yield f"| [{name}]({name}) | {size / 1024:.0f} | {_content(name)} |"
    for path in (published.target / "kept").rglob(f"*{SUFFIX}"):
        folders.setdefault("kept", []).append(path.stat().st_size)
    for folder, sizes in folders.items():
        yield f"| [{folder}/]({folder}/) | {sum(sizes) / 1024:.0f} | {KINDS[folder]}: {len(sizes)} files |"


def _content(name: str) -> str:
    path = Path(name)
    if path.parent.name == "weights":
        return f"averaged weights of score and flow of `{path.stem}`, float32"
    return CATALOGUE[path.name.partition(".")[0]].title if ".csv" in path.suffixes else OTHERS.get(name, "")
