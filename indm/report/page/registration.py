"""Whether suite and claims were fixed before the results were known, as far as git shows."""

import html
from collections.abc import Iterable, Iterator
from pathlib import Path

from indm.store.provenance import commit_date, committed, descends
from indm.suite.registrations import Registration

# The first word of a description that git confirms.
REGISTERED = "Registered"


def describe_registration(
    suite: str,
    found: Registration | None,
    suite_sha256: str,
    claims_sha256: str,
    commits: Iterable[str | None],
    seeds: str = "",
) -> str:
    """Describe the registration of a suite and the claims: its commit, whether it precedes the run, and later changes.

    ``seeds`` describes changes of the seeds, by :func:`indm.suite.registrations.changed_seeds`.
    """
    file = "params/registrations.yaml"
    if found is None:
        words = "no record shows that suite and claims were fixed before the results were known"
        return f"Not registered: {words} ({file} has no entry for this suite)."
    note = f" {html.escape(found.note, quote=False)}" if found.note else ""
    if doubts := " and ".join(_doubts(suite, found, commits)):
        return f"Not registered: {file} names commit {found.commit} of {found.date}, but {doubts}.{note}"
    pairs = {"the suite": (found.suite_sha256, suite_sha256), "the claims": (found.claims_sha256, claims_sha256)}
    changed = {what: pair for what, pair in pairs.items() if len(set(pair)) == 2}
    changes = [f"{what} (SHA-256 {then[:12]}… then, {now[:12]}… now)" for what, (then, now) in changed.items()]
    changes += [f"its seeds ({seeds})"] if seeds else []
    since, remedy = "unchanged since", f"git diff {found.commit[:12]} -- params shows how"
    since = f"changed since: {' and '.join(changes)}; {remedy}" if changes else since
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
        absent = f"commits of stages that are not in this checkout: {', '.join(unknown)}"
        yield f"it is unknown whether it is before the run ({absent})"
