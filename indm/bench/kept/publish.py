"""Publish the results of a suite: tables, figures, pictures, provenance and, if asked for, weights, in a folder for git."""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indm.bench.kept.folders import SUFFIX, archive, kept_folders, unpack
from indm.bench.kept.keep import results_alone
from indm.bench.kept.page import FOLDERS, RECORD, Published, page_text
from indm.bench.kept.weights import averaged_weights, is_of, trained
from indm.bench.pipeline.input_check import InputCheck
from indm.bench.pipeline.jobs import Job
from indm.bench.suite.load import suite_sha256
from indm.errors import ArtifactError
from indm.report.answers import EVIDENCE
from indm.report.catalogue import COMPRESSED, PUBLISHED
from indm.report.rows import read_rows
from indm.store.files import atomic_write, obstacle, read_json
from indm.store.layout import PICTURES
from indm.store.provenance import CHANGED, read_provenance

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite

MEBIBYTE = 2**20
MOST = 20 * MEBIBYTE
MOST_WEIGHTS = 10 * MEBIBYTE
# The keys of a record whose values many jobs share.
ALIKE = ("commit", "uncommitted_changes", "machine", "device", "threads", "versions")


def publish(checks: InputCheck, target: Path, runs: Sequence[str]) -> Published:
    """Write the folder of a suite, with the averaged weights of runs, and the generated part of its README.md.

    Raises:
        ArtifactError: if the results are incomplete or too large for git, or if the folder belongs to another suite or program, or
            contains archives of other results.
    """
    suite, here = checks.suite, checks.layout.suite_folder
    _check_target(suite.suite, target)
    # All inputs of the report are valid.
    checks.check(Job("report", ""))
    _check_kept(suite, here, target / "kept")
    figures = checks.reports / suite.suite / "figures"
    files = {f"tables/{name}.csv": (here / f"tables/{name}.csv").read_bytes() for name in PUBLISHED}
    for name in COMPRESSED:
        # Compressed to bytes that do not depend on the time.
        files[f"tables/{name}.csv.gz"] = gzip.compress((here / f"tables/{name}.csv").read_bytes(), mtime=0)
    files |= {f"figures/{path.name}": path.read_bytes() for path in sorted(figures.glob("*.svg"))}
    for kind in PICTURES:
        pictures = {f"{kind}/{run}.png": (here / f"runs/{run}/{kind}.png").read_bytes() for run in suite.first_runs(1)}
        # An empty picture means that it was not drawn.
        files |= {name: content for name, content in pictures.items() if content}
    executions = summarise(suite, here)
    content = {"suite": suite.suite, "suite_sha256": suite_sha256(suite), "executions": executions}
    files[RECORD] = (json.dumps(content, indent=2) + "\n").encode()
    weights = {f"weights/{run}.safetensors": averaged_weights(checks, run) for run in runs}
    weights |= _still_good(checks, target, runs)
    _check_size(weights, MOST_WEIGHTS, "weights")
    _check_size(files | weights, MOST, "files")
    sizes = {name: len(content) for name, content in (files | weights).items()}
    evidence = read_rows(Path("params/evidence.csv"), columns=EVIDENCE)
    published = Published(suite, suite_sha256(suite), target, sizes, here / "tables", executions, evidence)
    _write(published, files | weights)
    return published


def _check_target(suite: str, target: Path) -> None:
    """Refuse a folder with files that publishing would remove, unless ``indm publish`` of the same suite wrote it."""
    path = target / RECORD
    theirs = [file for name in FOLDERS for file in (target / name).glob("*")]
    found = read_json(path).get("suite") if path.is_file() else None
    if found != suite and (theirs or path.is_file()):
        raise ArtifactError(
            f"{path}: found suite {found!r}, expected {suite!r}, since indm publish removes other files from the folder; name "
            "another folder (--to), or move these files"
        )


def _check_kept(suite: "Suite", here: Path, root: Path) -> None:
    """Refuse to publish next to archives from which ``indm restore`` would restore other results."""
    known = {archive(root, folder): folder for folder in kept_folders(suite)}
    for path in sorted(root.rglob(f"*{SUFFIX}")):
        if path not in known:
            raise ArtifactError(f"{path}: found an archive that does not belong to suite {suite.suite}; remove it")
        kept = results_alone(unpack(path))
        if kept != {name: (here / name).read_bytes() for name in kept if (here / name).is_file()}:
            raise ArtifactError(
                f"{path}: found other results of {known[path].place} than the present results, which would be published; "
                f"run python -m indm keep {suite.suite} --replace to pack the present results"
            )


def summarise(suite: "Suite", suite_folder: Path) -> list[dict[str, Any]]:
    """Group the jobs that were done by the same code on the same machine, with their number by stage and their seconds."""
    found: dict[str, dict[str, Any]] = {}
    for folder in kept_folders(suite):
        for job in folder.jobs:
            for path in (suite_folder / name for name in folder.records(job)):
                if path.is_file():
                    record = read_provenance(path, suite.suite, job.subject, needed=(*ALIKE, "seconds"))
                    alike = {key: record[key] for key in ALIKE}
                    entry = found.setdefault(json.dumps(alike, sort_keys=True), alike | {"jobs": {}, "seconds": 0.0})
                    entry["jobs"][path.stem] = entry["jobs"].get(path.stem, 0) + 1
                    if lines := record.get(CHANGED):
                        entry[CHANGED] = sorted({*entry.get(CHANGED, ()), *lines})
                    entry["seconds"] = round(entry["seconds"] + record["seconds"], 3)
    return list(found.values())


def _still_good(checks: InputCheck, target: Path, runs: Sequence[str]) -> dict[str, bytes]:
    """Read the weights that were published before and belong to the trainings whose results are published now."""
    paths = [target / f"weights/{name}.safetensors" for name in checks.suite.runs if name not in runs]
    return {
        f"weights/{path.name}": path.read_bytes()
        for path in paths
        if path.is_file() and is_of(path, trained(checks, path.stem))
    }


def _check_size(files: Mapping[str, bytes], most: int, what: str) -> None:
    total = sum(map(len, files.values()))
    if total > most:
        largest = sorted(files, key=lambda name: -len(files[name]))[:3]
        shown = ", ".join(f"{name} ({len(files[name]) / MEBIBYTE:.1f} MiB)" for name in largest)
        raise ArtifactError(
            f"{what}: found {total / MEBIBYTE:.1f} MiB, expected at most {most // MEBIBYTE} MiB in a repository; "
            f"publish fewer weights (--weights), or a smaller suite; the largest: {shown}"
        )


def _write(published: Published, files: Mapping[str, bytes]) -> None:
    """Write files that differ, and remove files of an earlier state; the page is made first, because it may be refused.

    The record is written before the others, so that a folder whose publishing was killed is known as the suite's and not refused.
    """
    target = published.target
    if blocked := [words for name in (*files, "README.md") if (words := obstacle(target / name))]:
        raise ArtifactError(f"{target}: cannot be written: {blocked[0]}")
    page = page_text(published).encode()
    for name, content in ({RECORD: files[RECORD]} | dict(files) | {"README.md": page}).items():
        path = target / name
        if not path.is_file() or path.read_bytes() != content:
            with atomic_write(path) as file:
                file.write(content)
    earlier = [path for folder in FOLDERS for path in (target / folder).glob("*")]
    for path in earlier:
        if path.is_file() and str(path.relative_to(target)) not in files:
            path.unlink()
