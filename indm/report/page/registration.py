"""Whether suite and claims were fixed before the results were known, as far as git tells."""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from indm.store.provenance import commit_date, committed, descends
from indm.suite.expand import BASE, expand_suite
from indm.suite.load import LEFT_OUT
from indm.suite.registrations import Registration
from indm.suite.strict_yaml import parse_yaml


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
    if doubts := list(_doubts(suite, found, suite_sha256, claims_sha256)):
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


def _doubts(suite: str, entry: Registration, suite_sha256: str, claims_sha256: str) -> Iterator[str]:
    """Yield what the commit of an entry does not bear out; nothing where git does not know it.

    By git alone: files that an earlier schema has read say there what they say now, or something else.
    """
    date = commit_date(entry.commit)
    if date is None:
        return
    if date != entry.date:
        yield f"that commit is of {date}"
    file = Path(f"params/{suite}.yaml")
    if committed(entry.commit, file) is None:
        yield f"it has no {file}"
        return
    claims = file.with_name("claims.yaml")
    suites = _in_full(entry.commit, file) == _lasting(expand_suite(file).content) if file.is_file() else None
    for what, same, now, then in (
        ("the suite", suites, suite_sha256, entry.suite_sha256),
        (
            "the claims",
            _said(entry.commit, claims) == parse_yaml(claims.read_text()),
            claims_sha256,
            entry.claims_sha256,
        ),
    ):
        if same and now != then:
            yield f"SHA-256 of {what} there is {now[:12]}…, by the entry {then[:12]}…"
        elif same is False and now == then:
            yield f"git has something else of {what} there, although SHA-256 by the entry is {now[:12]}…, as it is now"


def _in_full(commit: str, file: Path) -> dict[str, Any]:
    """Return what a suite said in a commit, in full: it may build on suites that say something else now."""
    with tempfile.TemporaryDirectory() as folder:
        name: Any = file.stem
        while isinstance(name, str) and not (copy := Path(folder, f"{name}.yaml")).is_file():
            copy.write_text(committed(commit, file.with_name(copy.name)) or "{}")
            name = (_said(commit, file.with_name(copy.name)) or {}).get(BASE)
        return _lasting(expand_suite(Path(folder, file.name)).content)


def _said(commit: str, file: Path) -> Any:
    return parse_yaml(committed(commit, file) or "")


def _lasting(content: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a suite may change after it was registered."""
    return {key: value for key, value in content.items() if key not in LEFT_OUT}


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
