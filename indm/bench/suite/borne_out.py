"""Whether the commit of a registration has what the registration says: the suite, the claims, the seeds, and a forecast.

A file that was written by hand after the results could name any commit and any hash. Git is therefore asked, where it has the
commit. Hashes are made by the present code, or by the code of the commit if the present one has another schema.
"""

import functools
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from indm.bench.suite.claims import load_claims
from indm.bench.suite.expand import expand_suite
from indm.bench.suite.load import claims_sha256, load_suite, suite_sha256
from indm.errors import IndmError
from indm.report.registrations import FORECAST, Addition, Registration, Registrations, load_registrations
from indm.store import provenance
from indm.strict_yaml import parse_yaml

FILE = Path("params/registrations.yaml")
# Hashes are named by so many digits.
SHORT = 12
# A commit in a copy, which no setting of a user stops.
COMMIT = ["-c", "user.name=copy", "-c", "user.email=copy@example.org", "-c", "commit.gpgsign=false"]
COMMIT += ["-c", "core.hooksPath=", "commit", "--quiet", "--message", "A copy"]


def contradictions(registrations: Registrations, suite: str) -> dict[str, str]:
    """Describe how the registrations of a suite contradict their commits, by variant; "" is the suite's own.

    Registrations whose commit git does not have are not among them.
    """
    own = registrations.suites.get(suite)
    entries = {"": own} if own else {}
    entries |= {each.variant: each for each in registrations.added_to(suite)}
    found = {variant: " and ".join(_contradictions(suite, entry)) for variant, entry in entries.items()}
    return {variant: words for variant, words in found.items() if words}


def _contradictions(suite: str, entry: Registration) -> Iterator[str]:
    if provenance.commit_date(entry.commit) is None:
        return
    if not provenance.descends("HEAD", entry.commit):
        yield "it is not in the history of the commit that is checked out"
        return
    if provenance.committed(entry.commit, Path(f"params/{suite}.yaml")) is None:
        # The page names this by itself.
        return
    yield from _other_hashes(suite, entry)
    yield from _other_seeds(suite, entry)
    yield from _other_forecast(suite, entry)


def _other_hashes(suite: str, entry: Registration) -> Iterator[str]:
    stated = (entry.suite_sha256, entry.claims_sha256)
    if stated == _by_present_code(entry.commit, suite):
        return
    if (found := _by_its_own_code(entry.commit, suite)) is None:
        yield "neither the present code nor the commit's own gives its hashes of suite and claims"
        return
    for what, then, now in zip(("the suite", "the claims"), stated, found, strict=True):
        if then != now:
            yield f"the SHA-256 of {what} at that commit is {now[:SHORT]}…, and not {then[:SHORT]}…"


@functools.cache
def _by_present_code(commit: str, suite: str) -> tuple[str, str] | None:
    """Hash suite and claims of a commit; None if their schema is another one."""
    with tempfile.TemporaryDirectory() as made:
        folder = _extracted(commit, Path(made), "params") / "params"
        try:
            found = load_suite(folder / f"{suite}.yaml", earlier=True)
            return suite_sha256(found), claims_sha256(load_claims(folder / "claims.yaml"))
        except IndmError:
            return None


@functools.cache
def _by_its_own_code(commit: str, suite: str) -> tuple[str, str] | None:
    """Return the hashes that ``indm register`` writes in a copy of a commit; None if it does not run."""
    with tempfile.TemporaryDirectory() as made:
        folder = _extracted(commit, Path(made), "indm", "params")
        (folder / FILE).write_text("suites: {}\n")
        register = [sys.executable, "-m", "indm", "register", "--suite", f"params/{suite}.yaml"]
        for command in (["git", "init", "--quiet"], ["git", "add", "--all"], ["git", *COMMIT], register):
            environment = os.environ | {"PYTHONPATH": str(folder)}
            if subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False).returncode:
                return None
        entry = load_registrations(folder / FILE).suites[suite]
        return entry.suite_sha256, entry.claims_sha256


def _extracted(commit: str, folder: Path, *paths: str) -> Path:
    """Write paths of a commit into a folder, and return the folder; paths that the commit lacks are left out."""
    there = [path for path in paths if provenance.committed(commit, Path(path)) is not None]
    command = [*provenance.GIT, "-C", str(provenance.CHECKOUT), "archive", commit, *there]
    packed = subprocess.run(command, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def _other_seeds(suite: str, entry: Registration) -> Iterator[str]:
    if not entry.seeds:
        return
    found = seeds_at(entry.commit, suite)
    if other := [cell for cell, seeds in entry.seeds.items() if found.get(cell) != sorted(seeds)]:
        yield f"it has other seeds of {', '.join(other)}"
    # A variant that was added has the seeds of its own cells only.
    if not isinstance(entry, Addition) and (left_out := [cell for cell in found if cell not in entry.seeds]):
        yield f"its seeds of {', '.join(left_out)} are left out"


@functools.cache
def seeds_at(commit: str, suite: str) -> dict[str, list[int]]:
    """List the seeds of each cell of a suite at a commit, and of each known density and length, whatever its schema."""
    with tempfile.TemporaryDirectory() as made:
        content = expand_suite(_extracted(commit, Path(made), "params") / f"params/{suite}.yaml").content
    found: dict[str, list[int]] = {}
    for section in ("runs", "failed"):
        for name, run in content.get(section, {}).items():
            found.setdefault(name.removesuffix(f"-s{run['seed']}"), []).append(run["seed"])
    for job in content["toy2d"]["datasets"].values():
        if "length" in job:
            found.setdefault(f"{job['density']}-{job['length']}", []).extend(job["seeds"])
    return {cell: sorted(seeds) for cell, seeds in found.items()}


def _other_forecast(suite: str, entry: Registration) -> Iterator[str]:
    """A forecast stands in the commit that first had the registration, word by word."""
    if FORECAST not in entry.note.lower():
        return
    first = provenance.first_with(entry.commit, FILE)
    text = provenance.committed(first, FILE) if first else None
    content = parse_yaml(text) if text else {}
    entries = [content.get("suites", {}).get(suite, {})]
    if isinstance(entry, Addition):
        entries = [
            each for each in content.get("added", []) if (each["suite"], each["variant"]) == (suite, entry.variant)
        ]
    if entry.note not in [each.get("note") for each in entries]:
        yield f"its forecast does not stand in commit {first[:SHORT] if first else 'of its entry'}, which first had this entry"
