"""Whether suite and claims were fixed before the results were known, as far as git tells."""

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from indm.errors import ParamsError
from indm.store import provenance
from indm.suite import load
from indm.suite.claims import load_claims
from indm.suite.registrations import Registration


def describe_registration(
    suite: str, found: Registration | None, suite_sha256: str, claims_sha256: str, commits: Iterable[str | None]
) -> str:
    """Say which commit a suite and the claims were registered in, whether before the run, and what has changed since.

    Arguments:
        suite: the suite's name.
        found: its registration, where there is one.
        suite_sha256: of what the suite says now.
        claims_sha256: of what the claims say now.
        commits: at which its stages ran.
    """
    if found is None:
        return (
            "Not registered: nothing here shows that suite and claims were fixed before the results were known"
            " (params/registrations.yaml has no entry of this suite)."
        )
    note = f" {found.note}" if found.note else ""
    if doubts := list(_doubts(suite, found)):
        return (
            f"A registration that cannot be confirmed: the entry names commit {found.commit} of {found.date}, "
            f"but {' and '.join(doubts)}.{note}"
        )
    pairs = {
        "the suite": (found.suite_sha256, suite_sha256),
        "the claims": (found.claims_sha256, claims_sha256),
    }
    changes = [
        f"{what} (SHA-256 {then[:12]}… then, {now[:12]}… now)" for what, (then, now) in pairs.items() if then != now
    ]
    since = (
        f"changed since: {' and '.join(changes)}; git diff {found.commit[:12]} -- params shows how"
        if changes
        else "unchanged since"
    )
    order = _order(found.commit, dict.fromkeys(commit or "" for commit in commits))
    return f"Registered in commit {found.commit} on {found.date}, {order}: {since}.{note}"


def _doubts(suite: str, entry: Registration) -> Iterator[str]:
    """Yield what the commit of an entry does not bear out; nothing where git does not know it."""
    date = provenance.commit_date(entry.commit)
    if date is None:
        return
    if date != entry.date:
        yield f"that commit is of {date}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _lay_down(entry.commit, folder)
        file = folder / f"{suite}.yaml"
        if not file.is_file():
            yield f"it has no params/{file.name}"
            return
        then = (
            _if_readable(lambda: load.suite_sha256(load.load_suite(file))),
            _if_readable(lambda: load.claims_sha256(load_claims(folder / "claims.yaml"))),
        )
    said = (entry.suite_sha256, entry.claims_sha256)
    for what, found, expected in zip(("the suite", "the claims"), then, said, strict=True):
        if found not in (None, expected):
            yield f"SHA-256 of {what} there is {found[:12]}…, by the entry {expected[:12]}…"


def _lay_down(commit: str, folder: Path) -> None:
    """Write the YAML files of ``params/`` as a commit of the package's checkout has them; none where it has no such folder."""
    command = ["git", "-C", str(provenance.CHECKOUT), "archive", commit, ":(glob)params/*.yaml"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        return
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        for member in archive:
            if file := archive.extractfile(member):
                (folder / Path(member.name).name).write_bytes(file.read())


def _if_readable(hashed: Callable[[], str]) -> str | None:
    """Return a hash of what a file said; ``None`` where the present schema, which may be a later one, refuses the file."""
    try:
        return hashed()
    except ParamsError:
        return None


def _order(registered: str, commits: Iterable[str]) -> str:
    """Say whether all stages ran at the registered commit or at one that comes after it."""
    after = {commit: provenance.descends(commit, registered) for commit in commits}
    if not after:
        return "and nothing has run"
    if before := [commit[:12] for commit, known in after.items() if known is False]:
        return f"but not before the run, which has stages of commit {', '.join(before)}"
    if unknown := [commit[:12] or "none" for commit, known in after.items() if known is None]:
        return f"and it is not known whether before the run (commits of stages that are not in this checkout: {', '.join(unknown)})"
    return "before the run"
