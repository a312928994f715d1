"""Whether suite and claims were fixed before the results were known, as far as git shows."""

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
    """Describe the registration of a suite and the claims: its commit, whether it precedes the run, and later changes.

    Arguments:
        suite: the suite's name.
        found: its registration, if any.
        suite_sha256: SHA-256 of the current suite.
        claims_sha256: SHA-256 of the current claims.
        commits: the commits at which its stages ran.
    """
    if found is None:
        return (
            "Not registered: no record shows that suite and claims were fixed before the results were known"
            " (params/registrations.yaml has no entry for this suite)."
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
    """Yield how an entry contradicts its commit; no doubts if git does not know the commit.

    Files are only compared with today's, because today's schema may not be able to read them as of the commit.
    """
    date = commit_date(entry.commit)
    if date is None:
        return
    if date != entry.date:
        yield f"that commit is dated {date}"
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
            yield f"the SHA-256 of {what} there is {now[:12]}…, in the entry {then[:12]}…"
        elif same is False and now == then:
            yield f"git has another version of {what} there, although the entry has the current SHA-256 {now[:12]}…"


def _in_full(commit: str, file: Path) -> dict[str, Any]:
    """Return the full suite as of a commit, because the suites on which it builds may have changed since."""
    with tempfile.TemporaryDirectory() as folder:
        name: Any = file.stem
        while isinstance(name, str) and not (copy := Path(folder, f"{name}.yaml")).is_file():
            copy.write_text(committed(commit, file.with_name(copy.name)) or "{}")
            name = (_said(commit, file.with_name(copy.name)) or {}).get(BASE)
        return _lasting(expand_suite(Path(folder, file.name)).content)


def _said(commit: str, file: Path) -> Any:
    return parse_yaml(committed(commit, file) or "")


def _lasting(content: dict[str, Any]) -> dict[str, Any]:
    """Leave out the keys that may change after the registration."""
    return {key: value for key, value in content.items() if key not in LEFT_OUT}


def _order(registered: str, commits: Iterable[str]) -> str:
    """Describe whether all stages ran at the registered commit or at a later one."""
    after = {commit: descends(commit, registered) for commit in commits}
    if not after:
        return "and no stage has run"
    if before := [commit[:12] for commit, known in after.items() if known is False]:
        return f"but not before the run, which has stages of commit {', '.join(before)}"
    if unknown := [commit[:12] or "none" for commit, known in after.items() if known is None]:
        return (
            "and it is unknown whether this was before the run"
            f" (commits of stages that are not in this checkout: {', '.join(unknown)})"
        )
    return "before the run"
