"""Whether suite and claims were fixed before the results were known, as far as git shows."""

import html
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from indm.store.provenance import changes, commit_date, committed, descends
from indm.suite.expand import BASE, expand_suite
from indm.suite.load import LEFT_OUT
from indm.suite.registrations import Registration
from indm.suite.strict_yaml import parse_yaml

# The first word of a description that git confirms.
REGISTERED = "Registered"


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

    Returns:
        HTML that begins with :data:`REGISTERED` only if git confirms the registration; it is valid in Markdown, too.
    """
    if found is None:
        return (
            "Not registered: no record shows that suite and claims were fixed before the results were known"
            " (params/registrations.yaml has no entry for this suite)."
        )
    note = f" {html.escape(found.note, quote=False)}" if found.note else ""
    order = _order(found.commit, dict.fromkeys(commit or "" for commit in commits))
    if doubts := list(_doubts(suite, found, suite_sha256, claims_sha256)) or list(order):
        return (
            f"Not registered: params/registrations.yaml names commit {found.commit} of {found.date}, "
            f"but {' and '.join(doubts)}{_right(suite)}.{note}"
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
    when = "before the run" if commits else "and no stage has run"
    return f"{REGISTERED} in commit {found.commit} on {found.date}, {when}: {since}.{note}"


def _doubts(suite: str, entry: Registration, suite_sha256: str, claims_sha256: str) -> Iterator[str]:
    """Yield how an entry contradicts its commit.

    Files are only compared with today's, because today's schema may not be able to read them as of the commit.
    """
    date = commit_date(entry.commit)
    if date is None:
        yield "git does not have this commit"
        return
    if date != entry.date:
        yield f"that commit is dated {date}"
    file = Path(f"params/{suite}.yaml")
    if committed(entry.commit, file) is None:
        yield f"it has no {file}"
        return
    for what, same, now, then in zip(
        ("the suite", "the claims"),
        _unchanged(entry.commit, file),
        (suite_sha256, claims_sha256),
        (entry.suite_sha256, entry.claims_sha256),
        strict=True,
    ):
        if same and now != then:
            yield f"the SHA-256 of {what} there is {now[:12]}…, in the entry {then[:12]}…"
        elif same is False and now == then:
            yield f"git has another version of {what} there, although the entry has the current SHA-256 {now[:12]}…"


def _unchanged(commit: str, file: Path) -> tuple[bool | None, bool]:
    """Return whether a suite in full, ``None`` without its file, and the claims are the same now as at a commit."""
    claims = file.with_name("claims.yaml")
    suite = _in_full(commit, file) == _lasting(expand_suite(file).content) if file.is_file() else None
    return suite, _said(commit, claims) == parse_yaml(claims.read_text())


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


def _order(registered: str, commits: Iterable[str]) -> Iterator[str]:
    """Yield the stages that did not run, or may not have run, at the registered commit or at a later one."""
    after = {commit: descends(commit, registered) for commit in commits}
    if before := [commit[:12] for commit, known in after.items() if known is False]:
        yield f"it is not before the run, which has stages of commit {', '.join(before)}"
    elif unknown := [commit[:12] or "none" for commit, known in after.items() if known is None]:
        yield (
            "it is unknown whether it is before the run"
            f" (commits of stages that are not in this checkout: {', '.join(unknown)})"
        )


def _right(suite: str) -> str:
    """Name the commit since which git has the present suite and claims; empty if it does not have them."""
    file, found = Path(f"params/{suite}.yaml"), ""
    files = [*(expand_suite(file).files if file.is_file() else ()), file.with_name("claims.yaml")]
    for commit in changes(*files):
        if not all(_unchanged(commit, file)):
            break
        found = f"; git has this suite and these claims since commit {commit} of {commit_date(commit)}"
    return found
