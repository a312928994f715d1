"""Evidence that a change of the code moves no result: a small suite by the code before and by the code after, file by file."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from indm.errors import ArtifactError, ParamsError
from indm.strict_yaml import Strict

# Folders of records: of times, of machines, of commits, and of the checksums of files with them.
RECORDS = {"manifest", "provenance", "logs", "benchmarks", "watch", "scratch", "code"}
# A table of times.
TIMED = {"tables/compute.csv"}
COMMIT = r"^[0-9a-f]{40}$"
TABLES, TEXTS = (".csv", ".csv.gz"), (".json",)


class Evidence(Strict):
    """What a suite showed: how many of its files have the same bytes, and how far the numbers of the others moved."""

    suite: str = Field(description="the suite that was run twice")
    before: str = Field(pattern=COMMIT, description="commit of the code before")
    after: str = Field(pattern=COMMIT, description="commit of the code after")
    files: int = Field(ge=1, description="number of files of results")
    same: int = Field(ge=0, description="number of files with the same bytes")
    bound: float | None = Field(
        default=None,
        description="largest distance that was allowed: in standard errors, or relative to a number without one",
    )
    largest: float | None = Field(default=None, description="largest distance that was found")
    moved: list[str] = Field(default=[], description="files whose numbers differ")

    def sentence(self) -> str:
        """Say it in words, for the record of an acceptance."""
        words = f"suite {self.suite}, by commits {self.before[:12]} and {self.after[:12]}: "
        words += f"{self.same} of {self.files} files of results have the same bytes"
        if self.moved:
            words += f", and no number of the others is further away than {self.largest:.2g}, of {self.bound:g} allowed"
        return words


def compare(before: Path, after: Path) -> tuple[int, dict[str, float]]:
    """Compare two folders of a suite's results, without records and times.

    Arguments:
        before: the folder ``results/<suite>`` by the code before.
        after: the same by the code after.

    Returns:
        The number of files, and the largest distance of the numbers of each file whose bytes differ: infinite for a file that is
        on one side only, or differs in anything but numbers.

    Raises:
        ArtifactError: if there is no file to compare.
    """
    sides = [{str(path.relative_to(folder)): path for path in _results(folder)} for folder in (before, after)]
    if not (names := sorted({*sides[0], *sides[1]})):
        raise ArtifactError(f"{before}: found no results, expected the files of a suite that has run")
    moved = {}
    for name in names:
        pair = [side.get(name) for side in sides]
        if None in pair:
            moved[name] = math.inf
        elif pair[0].read_bytes() != pair[1].read_bytes():  # type: ignore[union-attr]
            moved[name] = _distance(*pair)  # type: ignore[arg-type]
    return len(names), moved


def _results(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        place = path.relative_to(folder)
        if path.is_file() and not RECORDS.intersection(place.parts) and str(place) not in TIMED:
            yield path


def _distance(before: Path, after: Path) -> float:
    """Return the largest distance of two tables or records of numbers."""
    # Imported here, because engines read what was accepted before they plan, and need no tables for it.
    import pandas as pd

    if before.name.endswith(TABLES):
        tables = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in (before, after)]
        rows: list[list[Any]] = [table.to_dict("records") for table in tables]
    elif before.name.endswith(TEXTS):
        rows = [[_flat(json.loads(path.read_text()))] for path in (before, after)]
    else:
        return math.inf
    if len(rows[0]) != len(rows[1]):
        return math.inf
    return max((_of_rows(*pair) for pair in zip(*rows, strict=True)), default=math.inf)


def _flat(content: Any, name: str = "") -> dict[str, str]:
    """Return the leaves of a record as texts by their places."""
    if isinstance(content, dict):
        pairs = [(f"{name}/{key}", value) for key, value in content.items()]
    elif isinstance(content, list):
        pairs = [(f"{name}/{index}", value) for index, value in enumerate(content)]
    else:
        return {name: str(content)}
    return {place: leaf for key, value in pairs for place, leaf in _flat(value, key).items()}


def _of_rows(before: dict[str, str], after: dict[str, str]) -> float:
    """Return the largest distance of the numbers of a row: in standard errors, if the row has them, or relative."""
    if list(before) != list(after):
        return math.inf
    largest = 0.0
    for name, text in before.items():
        if text == after[name]:
            continue
        numbers = [_number(text), _number(after[name])]
        if not all(map(math.isfinite, numbers)):
            return math.inf
        error = _number(before.get(f"{name}_se", ""))
        scale = error if math.isfinite(error) and error > 0 else max(map(abs, numbers))
        largest = max(largest, abs(numbers[0] - numbers[1]) / scale)
    return largest


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def judge(suite: str, commits: tuple[str, str], folders: tuple[Path, Path], bound: float | None) -> Evidence:
    """Compare a suite's results by two commits, and return the evidence that nothing has moved, or not beyond a bound.

    Arguments:
        suite: name of the suite.
        commits: of the code before and after.
        folders: the results of each.
        bound: largest distance; ``None`` if all bytes have to be the same.

    Raises:
        ArtifactError: if a file differs, or a number of it lies beyond the bound.
    """
    files, moved = compare(*folders)
    beyond = {name: distance for name, distance in moved.items() if bound is None or distance > bound}
    if beyond:
        name = max(beyond, key=lambda name: beyond[name])
        allowed = "the same bytes" if bound is None else f"at most {bound:g}"
        raise ArtifactError(
            f"suite {suite}: found {len(beyond)} of {files} files that differ too far, first {name} by {beyond[name]:.3g}; "
            f"expected {allowed}. Nothing was accepted; train the published suites again, or give --bound with its reason"
        )
    return Evidence(
        suite=suite,
        before=commits[0],
        after=commits[1],
        files=files,
        same=files - len(moved),
        bound=bound if moved else None,
        largest=max(moved.values()) if moved else None,
        moved=sorted(moved),
    )


def commit_of(name: str, repository: Path) -> str:
    """Return the whole hash of a commit.

    Raises:
        ParamsError: if git does not know it.
    """
    done = _git(repository, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if done.returncode:
        raise ParamsError(f"--before: found {name!r}, expected a commit of {repository}")
    return done.stdout.strip()


def refuse_uncommitted(repository: Path) -> None:
    """Refuse a checkout whose files differ from its commit, because evidence names commits.

    Raises:
        ParamsError: if a tracked file has changed.
    """
    done = _git(repository, "status", "--porcelain", "--untracked-files=no")
    if done.returncode or done.stdout:
        found = done.stderr.strip() or f"changes that are not committed: {done.stdout.split()[1]}"
        raise ParamsError(
            f"{repository}: found {found}; expected none, because evidence names commits; commit them first"
        )


def run_at(commit: str, suite: str, repository: Path, folder: Path) -> Path:
    """Check a commit out into a folder, run a suite there by Snakemake, and return the folder of its results.

    Raises:
        ArtifactError: if the run fails; its log stays beside the folder.
    """
    for command in (
        ("clone", "--quiet", "--shared", "--no-checkout", str(repository.resolve()), str(folder)),
        ("-C", str(folder), "checkout", "--quiet", "--detach", commit),
    ):
        done = _git(repository, *command)
        if done.returncode:
            raise ArtifactError(f"{folder}: git {command[0]} failed: {done.stderr.strip()}")
    done = in_checkout(folder, "snakemake", "--cores", "all", "--config", f"suite={suite}")
    if done.returncode:
        log = folder.with_suffix(".log")
        log.write_text(done.stdout + done.stderr)
        raise ArtifactError(
            f"suite {suite} by commit {commit[:12]}: Snakemake exited with {done.returncode}; its log: {log}"
        )
    return folder / "results" / suite


def in_checkout(folder: Path, module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a module with the package of another checkout."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def _git(repository: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["git", *arguments], cwd=repository, capture_output=True, text=True, check=False)
