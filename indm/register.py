"""Register a suite: write down which commit has it and the claims, before its results are known.

A commit cannot hold its own name, so the entry is committed after it.
"""

import subprocess
from pathlib import Path

from indm.errors import ParamsError
from indm.store.files import atomic_write
from indm.suite.claims import load_claims
from indm.suite.expand import expand_suite
from indm.suite.load import claims_sha256, load_suite, suite_sha256
from indm.suite.registrations import Registration, Registrations, load_registrations
from indm.suite.strict_yaml import yaml_text

HEADER = """\
# Suites that were committed, with the claims, before they were run: written by `python -m indm register`, read by the page.
# docs/reproducibility.md says what this is for.
"""


def register(suite_file: Path, note: str) -> Registration:
    """Write the entry of a suite into ``registrations.yaml`` beside it, for the commit that is checked out.

    Arguments:
        suite_file: the suite's file.
        note: a remark, shown on the page.

    Returns:
        The entry; the one that is there, where that says the same of suite and claims.

    Raises:
        ParamsError: if the note is no text, the suite could not run, a file is not as committed, or another state of it, or
            another note, is registered.
    """
    folder = suite_file.parent
    try:
        note.encode()
    except UnicodeEncodeError:
        raise ParamsError(f"--note: found {note!r}, expected a text in UTF-8, as registrations.yaml is") from None
    suite, claims = load_suite(suite_file, with_data=True), load_claims(folder / "claims.yaml")
    path = folder / "registrations.yaml"
    known = load_registrations(path).suites
    for file in (*expand_suite(suite_file).files, folder / "claims.yaml"):
        _check_committed(file)
    commit, date = _git(folder, "show", "--no-patch", "--format=%H %cs", "HEAD").decode().split()
    entry = Registration(
        commit=commit, date=date, suite_sha256=suite_sha256(suite), claims_sha256=claims_sha256(claims), note=note
    )
    if found := known.get(suite.suite):
        if (found.suite_sha256, found.claims_sha256) == (entry.suite_sha256, entry.claims_sha256):
            _check_note(path, suite.suite, found.note, note)
            return found
        raise ParamsError(
            f"{path}: suite {suite.suite} is registered as it was in commit {found.commit[:12]}, and the suite or the claims "
            "have changed since; to register it again, remove that entry, which the history will show"
        )
    write_registrations(path, Registrations(suites=known | {suite.suite: entry}))
    return entry


def _check_note(path: Path, suite: str, found: str, given: str) -> None:
    if given not in ("", found):
        raise ParamsError(
            f"{path}: suite {suite} is registered with the note {found!r}, found {given!r}; leave --note out"
        )


def write_registrations(path: Path, registrations: Registrations) -> None:
    """Write the file."""
    with atomic_write(path) as file:
        file.write((HEADER + "\n" + yaml_text(registrations.model_dump())).encode())


def _check_committed(file: Path) -> None:
    if file.read_bytes() != _git(file.parent, "show", f"HEAD:./{file.name}", missing=b""):
        raise ParamsError(f"{file}: found other content than in HEAD; commit it first: a registration names a commit")


def _git(folder: Path, *arguments: str, missing: bytes | None = None) -> bytes:
    """Ask git about a folder; ``missing`` is the answer where it has none.

    Raises:
        ParamsError: if git has no answer.
    """
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, check=False)
    except OSError as error:
        raise ParamsError(f"git: cannot be run ({error.strerror}); a registration names a git commit") from None
    if done.returncode == 0:
        return done.stdout
    if missing is not None and _git(folder, "rev-parse", "HEAD"):
        return missing
    found = " ".join(done.stderr.decode(errors="replace").split())
    raise ParamsError(f"{folder}: expected a git checkout with a commit, which a registration names; git says: {found}")
