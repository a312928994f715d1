"""Whether suite and claims were fixed before the results were known, as far as git shows."""

import html
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from indm.report.registrations import FORECAST, Addition, Registration
from indm.store.provenance import commit_date, committed, descends, first_with
from indm.strict_yaml import parse_yaml

CLAIMS, FILE = Path("params/claims.yaml"), Path("params/registrations.yaml")
# The first word of a description that git confirms.
REGISTERED = "Registered"


def describe_registration(
    suite: str,
    found: Registration | None,
    suite_sha256: str,
    claims_sha256: str,
    commits: Iterable[str | None],
    seeds: str = "",
    added: Iterable[Addition] = (),
    contradicted: Mapping[str, str] | None = None,
) -> str:
    """Describe the registration of a suite and the claims: its commit, whether it precedes the run, and later changes.

    Arguments:
        suite: the suite's name.
        found: its entry.
        suite_sha256: the present hash of the suite.
        claims_sha256: the present hash of the claims.
        commits: the commits of its stages.
        seeds: changes of the seeds, by :func:`indm.bench.suite.registrations.changed_seeds`.
        added: the entries of variants that were added to it.
        contradicted: how entries contradict their commits, by :func:`indm.bench.suite.borne_out.contradictions`.
    """
    file, contradicted = str(FILE), contradicted or {}
    commits = list(commits)
    if found is None:
        words = "no record shows that suite and claims were fixed before the results were known"
        return f"Not registered: {words} ({file} has no entry for this suite)."
    note = _words_of(found)
    if doubts := " and ".join(_doubts(suite, found, commits, contradicted.get(""))):
        return f"Not registered: {file} names commit {found.commit} of {found.date}, but {doubts}.{note}"
    when = "before the run" if commits else "and no stage has run"
    since = _since(found, suite_sha256, claims_sha256, seeds)
    text = f"{REGISTERED} in commit {found.commit} on {found.date}, {when}: {since}.{note}"
    of_added = [
        _describe_addition(each, suite_sha256, claims_sha256, commits, contradicted.get(each.variant)) for each in added
    ]
    return " ".join([text, *of_added])


def _describe_addition(
    entry: Addition, suite_sha256: str, claims_sha256: str, commits: Iterable[str | None], contradicted: str | None
) -> str:
    """Describe the registration of a variant, whose stages ran at the entry's commit or later."""
    after = [commit for commit in dict.fromkeys(commits) if commit and descends(commit, entry.commit)]
    doubts = [
        *_doubts(entry.suite, entry, after, contradicted),
        *([] if after else ["no stage ran at that commit or later"]),
    ]
    when = f"commit {entry.commit} on {entry.date}"
    if doubts:
        return f"Added without a registration: {entry.variant} (named: {when}, but {' and '.join(doubts)}).{_words_of(entry)}"
    runs = f"before the runs of commit {' and '.join(commit[:12] for commit in after)}"
    since = _since(entry, suite_sha256, claims_sha256)
    return f"Added later: {entry.variant}, registered in {when}, {runs}: {since}.{_words_of(entry)}"


def _words_of(entry: Registration) -> str:
    return f" {html.escape(entry.note, quote=False)}" if entry.note else ""


def _since(found: Registration, suite_sha256: str, claims_sha256: str, seeds: str = "") -> str:
    """Describe what has changed since an entry's commit, by its hashes and the present ones, and by the changes of seeds."""
    pairs = {"the suite": (found.suite_sha256, suite_sha256), "the claims": (found.claims_sha256, claims_sha256)}
    changed = {what: pair for what, pair in pairs.items() if len(set(pair)) == 2}
    if not changed and not seeds:
        return "unchanged since"
    changes = [f"{what} (SHA-256 {then[:12]}… then, {now[:12]}… now)" for what, (then, now) in changed.items()]
    changes += [f"its seeds ({seeds})"] if seeds else []
    names = _changed_claims(found) if "the claims" in changed else ""
    return f"changed since: {' and '.join(changes)}; git diff {found.commit[:12]} -- params shows how{names}"


def _changed_claims(found: Registration) -> str:
    """Name the claims that were added, removed and edited since an entry's commit; empty if git does not have them."""
    text = committed(found.commit, CLAIMS)
    if text is None:
        return ""
    then, now = (_by_id(it) for it in (text, CLAIMS.read_text(encoding="utf-8")))
    edited = [name for name in now if name in then and now[name] != then[name]]
    elsewhere = [name for name in edited if _but_where(now[name]) == _but_where(then[name])]
    changed = {
        "added": [name for name in now if name not in then],
        "removed": [name for name in then if name not in now],
        "edited": [name for name in edited if name not in elsewhere],
        "asked of other datasets, too, but otherwise the same": elsewhere,
    }
    named = "; ".join(f"{word}: {', '.join(names)}" for word, names in changed.items() if names)
    return f". Claims {named}; the others are as they were" if named else ""


def _by_id(claims: str) -> dict[str, Any]:
    return {claim["id"]: claim for claim in parse_yaml(claims)["claims"]}


def _but_where(claim: dict[str, Any]) -> dict[str, Any]:
    """Return a claim without the list of the datasets for which it is graded, which says nothing about any one of them."""
    where = {key: value for key, value in claim.get("where", {}).items() if key != "datasets"}
    return claim | {"where": where}


def _doubts(suite: str, entry: Registration, commits: Iterable[str | None], contradicted: str | None) -> Iterator[str]:
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
    if contradicted:
        yield contradicted
    commits = list(commits)
    if late := [commit[:12] for commit in _before_forecast(entry, commits)]:
        yield f"its forecast was committed after the run, which has stages of commit {', '.join(late)}"
    after = {commit: descends(commit, entry.commit) for commit in dict.fromkeys(commit or "" for commit in commits)}
    if before := [commit[:12] for commit, known in after.items() if known is False]:
        yield f"it is not before the run, which has stages of commit {', '.join(before)}"
    elif unknown := [commit[:12] or "none" for commit, known in after.items() if known is None]:
        absent = f"commits of stages that are not in this checkout: {', '.join(unknown)}"
        yield f"it is unknown whether it is before the run ({absent})"


def _before_forecast(entry: Registration, commits: Iterable[str | None]) -> list[str]:
    """List the commits of stages that lack the commit which first had an entry with a forecast."""
    if FORECAST not in entry.note.lower() or (first := first_with(entry.commit, FILE)) is None:
        return []
    return [commit for commit in dict.fromkeys(commits) if commit and descends(commit, first) is False]
