"""Whether suite and claims were fixed before the results were known, as far as git tells."""

from collections.abc import Iterable

from indm.store.provenance import descends
from indm.suite.registrations import Registration


def describe_registration(
    found: Registration | None, suite_sha256: str, claims_sha256: str, commits: Iterable[str | None]
) -> str:
    """Say which commit a suite and the claims were registered in, whether before the run, and what has changed since.

    Arguments:
        found: the suite's registration, where there is one.
        suite_sha256: of what the suite says now.
        claims_sha256: of what the claims say now.
        commits: at which its stages ran.
    """
    if found is None:
        return (
            "Not registered: nothing here shows that suite and claims were fixed before the results were known"
            " (params/registrations.yaml has no entry of this suite)."
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
    note = f" {found.note}" if found.note else ""
    return f"Registered in commit {found.commit} on {found.date}, {order}: {since}.{note}"


def _order(registered: str, commits: Iterable[str]) -> str:
    """Say whether all stages ran at the registered commit or at one that comes after it."""
    after = {commit: descends(commit, registered) for commit in commits}
    if not after:
        return "and nothing has run"
    if before := [commit[:12] for commit, known in after.items() if known is False]:
        return f"but not before the run, which has stages of commit {', '.join(before)}"
    if unknown := [commit[:12] or "none" for commit, known in after.items() if known is None]:
        return f"and it is not known whether before the run (commits of stages that are not in this checkout: {', '.join(unknown)})"
    return "before the run"
