"""Register a suite: record which commit contains the suite and the claims, before its results are known.

A commit cannot contain its own hash, so the entry is committed afterwards.
"""

import subprocess
from pathlib import Path

from indm.bench.models.buildable import check_models
from indm.bench.models.controls import check_controls
from indm.bench.suite.claims import load_claims
from indm.bench.suite.expand import expand_suite
from indm.bench.suite.load import claims_sha256, load_suite, suite_sha256
from indm.bench.suite.registrations import planned_seeds
from indm.errors import ParamsError
from indm.report.registrations import Registration, Registrations, load_registrations
from indm.store.files import atomic_write
from indm.store.provenance import GIT
from indm.strict_yaml import yaml_text

HEADER = """\
# Suites that were committed, with the claims, before they were run: written by `python -m indm register`, shown in the report.
# A variant that a suite got later has an entry under `added`, written by hand.
# docs/reproducibility.md explains registrations.
"""


def register(suite_file: Path, note: str) -> Registration:
    """Write the entry of a suite into ``registrations.yaml`` in its folder, for the commit that is checked out, or find it there.

    Raises:
        ParamsError: if the note is not valid text, the suite is invalid, a file differs from its commit, or the suite is
            registered with other content or another note.
    """
    folder = suite_file.parent
    try:
        note.encode()
    except UnicodeEncodeError:
        raise ParamsError(f"--note: found {note!r}, expected a text in UTF-8, as registrations.yaml is") from None
    suite, claims = load_suite(suite_file, with_data=True), load_claims(folder / "claims.yaml")
    check_models(suite, suite_file)
    check_controls(suite, suite_file)
    path = folder / "registrations.yaml"
    registrations = load_registrations(path)
    known = registrations.suites
    for file in (*expand_suite(suite_file).files, folder / "claims.yaml"):
        if file.read_bytes() != _git(file.parent, "show", f"HEAD:./{file.name}", missing=b""):
            raise ParamsError(f"{file}: found uncommitted changes, expected the content of HEAD; commit the file first")
    commit, date = _git(folder, "show", "--no-patch", "--format=%H %cs", "HEAD").decode().split()
    entry = Registration(
        commit=commit,
        date=date,
        suite_sha256=suite_sha256(suite),
        claims_sha256=claims_sha256(claims),
        note=note,
        seeds=planned_seeds(suite),
    )
    if (found := known.get(suite.suite)) is None:
        write_registrations(path, registrations.model_copy(update={"suites": known | {suite.suite: entry}}))
        return entry
    if (found.suite_sha256, found.claims_sha256) != (entry.suite_sha256, entry.claims_sha256):
        raise ParamsError(
            f"{path}: found suite {suite.suite} registered at commit {found.commit[:12]}, expected no change of the suite or "
            "the claims since; to register it again, remove that entry, which the git history will show"
        )
    if note not in ("", found.note):
        words = f"found the note {note!r}, expected the registered note {found.note!r} of suite {suite.suite}"
        raise ParamsError(f"{path}: {words}; omit --note")
    return found


def write_registrations(path: Path, registrations: Registrations) -> None:
    """Write the file."""
    with atomic_write(path) as file:
        content = registrations.model_dump(exclude_defaults=True)
        file.write((HEADER + "\n" + yaml_text(content, lists_in_line=True)).encode())


def _git(folder: Path, *arguments: str, missing: bytes | None = None) -> bytes:
    """Ask git about a folder; ``missing`` is returned if the commit lacks the file.

    Raises:
        ParamsError: if git cannot answer.
    """
    try:
        done = subprocess.run([*GIT, "-C", folder, *arguments], capture_output=True, check=False)
    except OSError as error:
        why = "install git, since a registration names a commit"
        raise ParamsError(f"git: cannot be run ({error.strerror}); {why}") from None
    if done.returncode == 0:
        return done.stdout
    if missing is not None and _git(folder, "rev-parse", "HEAD"):
        return missing
    found = " ".join(done.stderr.decode(errors="replace").split())
    expected = "expected a git checkout with a commit, which a registration names"
    raise ParamsError(f"{folder}: {expected}; git reports: {found}")
