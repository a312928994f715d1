"""Accept a change of the code for all published results, by evidence: a small suite that is run before and after."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from indm.bench.kept.evidence import Evidence, commit_of, in_checkout, judge, refuse_uncommitted, run_at
from indm.bench.kept.keep import restore
from indm.bench.pipeline.input_check import InputCheck
from indm.bench.pipeline.jobs import jobs_of
from indm.bench.pipeline.stamps import NONE, Difference, job_modules
from indm.bench.suite.load import load_suite
from indm.errors import ArtifactError, ParamsError


def accept(before: str, suite: str, root: Path, bound: float | None = None, why: str = "") -> Iterator[str]:
    """Run a suite by the commit before and by HEAD; if its results agree, record that for all kept results.

    Arguments:
        before: the commit of the code before.
        suite: name of the suite, as both commits have it.
        root: the folder of published results.
        bound: the largest distance of numbers; ``None`` if all bytes have to be the same.
        why: why numbers may move; needed with a bound.

    Yields:
        A line for each thing done.

    Raises:
        ParamsError: if git does not know the commit, a file is not committed, or a bound has no reason.
        ArtifactError: if a run fails, results differ too far, or kept results are refused.
    """
    if bound is not None and not why.strip():
        raise ParamsError("--why: found nothing, expected why numbers may move as far as --bound")
    here = Path()
    refuse_uncommitted(here)
    commits = commit_of(before, here), commit_of("HEAD", here)
    work = Path(tempfile.mkdtemp(prefix="indm-accept-"))
    try:
        yield from _accept(commits, suite, root, work, bound, why)
    except ArtifactError as error:
        raise ArtifactError(f"{error}; what was run is in {work}") from error
    shutil.rmtree(work)


def _accept(
    commits: tuple[str, str], suite: str, root: Path, work: Path, bound: float | None, why: str
) -> Iterator[str]:
    folders = []
    for name, commit in zip(("before", "after"), commits, strict=True):
        yield f"suite {suite} by commit {commit[:12]}, in {work / name}"
        folders.append(run_at(commit, suite, Path(), work / name))
    evidence = judge(suite, commits, (folders[0], folders[1]), bound)
    yield evidence.sentence()
    for published in sorted(path.parent for path in root.glob("*/kept")):
        yield f"{published}: {_record(published.resolve(), work, evidence, why)}"


def _unseen(checks: InputCheck, published: Path, suite: str) -> list[str]:
    """List the changes since a suite was kept in modules that no job of the suite imports that was run."""
    ran = load_suite(Path("params") / f"{suite}.yaml")
    seen = {name for job in jobs_of(ran) for name in job_modules(ran, *job)}
    files = {Difference(name, NONE, NONE).where for name in seen}
    changed = restore(checks, published / "kept", replace=False).changed
    return sorted(
        change for change in changed if not change.startswith("gone ") and change.split(" ", 1)[1] not in files
    )


def _record(published: Path, work: Path, evidence: Evidence, why: str) -> str:
    """Record the changes since a suite was kept, unless the code before refuses its results, too."""
    file = Path("params") / f"{published.name}.yaml"
    options = ("--suite", str(file), "--from", str(published.parent), "--out", str(work / "known"))
    done = in_checkout(work / "before", "indm", "restore", *options)
    if done.returncode:
        raise ArtifactError(
            f"{published}: the code of commit {evidence.before[:12]} refuses its results, too, so that this evidence does not "
            f"cover all changes since: {done.stderr.strip().splitlines()[0]}; give an earlier commit with --before"
        )
    checks = InputCheck(load_suite(file), work / "results", work / "reports")
    if unseen := _unseen(checks, published, evidence.suite):
        raise ArtifactError(
            f"{published}: found {unseen[0]}, which no job of suite {evidence.suite} imports; "
            "take another suite (--suite), or give a reason with indm restore --accept"
        )
    reason = f"{why.strip().rstrip('.')}. {evidence.sentence()}" if why.strip() else evidence.sentence()
    outcome = restore(checks, published / "kept", replace=False, accept=reason, evidence=evidence)
    if outcome.failed:
        raise ArtifactError(f"{published}: {outcome.lines()[0]}")
    return outcome.lines()[-1]
