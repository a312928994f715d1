"""Whether suite and claims were fixed before the results were known, as far as git shows."""

import html
from collections.abc import Iterable, Iterator
from pathlib import Path

from indm.store.provenance import commit_date, committed, descends
from indm.suite.registrations import Registration

# The first word of a description that git confirms.
REGISTERED = "Registered"


def describe_registration(
    suite: str, found: Registration | None, suite_sha256: str, claims_sha256: str, commits: Iterable[str | None]
) -> str:
    """Describe the registration of a suite and the claims: its commit, whether it precedes the run, and later changes."""
    if found is None:
        return (
            "Not registered: no record shows that suite and claims were fixed before the results were known"
            " (params/registrations.yaml has no entry for this suite)."
        )
    note = f" {html.escape(found.note, quote=False)}" if found.note else ""
    if doubts := list(_doubts(suite, found, commits)):
        return (
            f"Not registered: params/registrations.yaml names commit {found.commit} of {found.date}, "
            f"but {' and '.join(doubts)}.{note}"
        )
    pairs = {"the suite": (found.suite_sha256, suite_sha256), "the claims": (found.claims_sha256, claims_sha256)}
    changes = [
        f"{what} (SHA-256 {then[:12]}… then, {now[:12]}… now)" for what, (then, now) in pairs.items() if then != now
    ]
    since = (
        f"changed since: {' and '.join(changes)}; git diff {found.commit[:12]} -- params shows how"
        if changes
        else "unchanged since"
    )
    when = "before the run" if commits else "and no stage has run"
    return f"{REGISTERED} in commit {found.commit} on {found.date}, {when}: {since}.{note}"


def _doubts(suite: str, entry: Registration, commits: Iterable[str | None]) -> Iterator[str]:
    """Yield how an entry contradicts its commit, or the commits of stages that did not run, or may not have run, after it."""
    date = commit_date(entry.commit)
    if date is None:
        yield "git does not have this commit"
        return
    if date != entry.date:
        yield f"that commit is dated {date}"
    file = Path(f"params/{suite}.yaml")
    if committed(entry.commit, file) is None:
        yield f"it has no {file}"
    after = {commit: descends(commit, entry.commit) for commit in dict.fromkeys(commit or "" for commit in commits)}
    if before := [commit[:12] for commit, known in after.items() if known is False]:
        yield f"it is not before the run, which has stages of commit {', '.join(before)}"
    elif unknown := [commit[:12] or "none" for commit, known in after.items() if known is None]:
        yield (
            "it is unknown whether it is before the run"
            f" (commits of stages that are not in this checkout: {', '.join(unknown)})"
        )
