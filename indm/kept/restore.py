"""Copy the kept results of a suite back to where stages and engines look for them."""

import contextlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indm.errors import ArtifactError
from indm.kept.changed import FILE, Changes
from indm.kept.check import check_folder
from indm.kept.folders import Folder, archive, kept_folders, read_archive
from indm.kept.keep import Outcome, results_alone
from indm.pipeline.stamps import Difference, job_stamp
from indm.store.files import atomic_write, obstacle
from indm.store.provenance import RESTORED_FOR
from indm.suite.accepted import ACCEPTED, Acceptance

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite

OTHER_CODE = (
    "made by other code than the present code (commit {commits}), with the changes listed above; if they do not affect the "
    'results, restore with --accept "why", which is recorded, or train again without the archives'
)
# The commit in a record, which may be damaged.
COMMIT = re.compile(rb'"commit": "([0-9a-f]{40})"')


def restore(suite: "Suite", results: Path, root: Path, replace: bool, accept: str | None = None) -> Outcome:
    """Unpack every kept folder that was made by the present suite and the present code, or by code whose changes were accepted.

    All archives are unpacked into a temporary folder before files are written, because a run is checked against the dataset on
    which it was trained.

    Arguments:
        suite: the suite.
        results: the results folder.
        root: folder of the archives; the file of accepted changes is next to it.
        replace: whether other results in the results folder are replaced; otherwise they are refused.
        accept: reason to accept the changes of the code, now and later.

    Raises:
        ArtifactError: if there are no archives of the suite.
        ParamsError: if the file of accepted changes is invalid, or the reason is empty.
    """
    folders, here = {folder: archive(root, folder) for folder in kept_folders(suite)}, results / suite.suite
    kept = {folder: path for folder, path in folders.items() if os.path.lexists(path)}
    if not kept:
        raise ArtifactError(
            f"{root}: found no archive of suite {suite.suite}, expected some; python -m indm keep makes them"
        )
    changes = Changes(suite, root.parent / FILE)
    outcome = Outcome(skipped={folder.place: "not kept" for folder in folders if folder not in kept})
    packed = _read(kept, outcome)
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary) / suite.suite
        for folder in folders:
            _lay(staged, packed[folder] if folder in packed else _manifests(here, folder))
        if accept is not None:
            changes.accept(
                _all_changes(changes, staged, [folder for folder in packed if not _fault(suite, staged, folder)]),
                accept,
            )
        now = time.time()
        for folder, files in packed.items():
            fault = _fault(suite, staged, folder)
            if fault:
                outcome.refused[folder.place] = f"{folders[folder]}: {fault}; {_remedy(folder, files)}"
            elif marked := _marked(changes, staged, folder, files, outcome):
                _take(here, folder, marked, outcome, replace, now)
            if folder.place in outcome.refused:
                # The folders that remain here are those with which later folders have to agree.
                shutil.rmtree(staged / folder.place)
                _lay(staged, _manifests(here, folder))
    return outcome


def _all_changes(changes: Changes, staged: Path, folders: Iterable[Folder]) -> list[Difference]:
    """List the changes behind all folders whose records can be read."""
    found = set()
    for folder in folders:
        with contextlib.suppress(ArtifactError):
            found |= {each for these in changes.since(staged.parent, folder).values() for each in these}
    return sorted(found)


def _marked(
    changes: Changes, staged: Path, folder: Folder, files: dict[str, bytes], outcome: Outcome
) -> dict[str, bytes] | None:
    """Return the files of a folder, with the acceptances in its records; ``None``, with a reason, if changes are not accepted."""
    try:
        found = changes.since(staged.parent, folder)
    except ArtifactError as error:
        outcome.refused[folder.place] = str(error)
        return None
    differing = changes.open(each for these in found.values() for each in these)
    for each in differing:
        outcome.changed.setdefault(each, set()).add(folder.place)
    if differing:
        outcome.refused[folder.place] = OTHER_CODE.format(commits=", ".join(_commits(folder, files)) or "unknown")
        return None
    if any(found.values()):
        outcome.accepted.add(folder.place)
    said = {name: _said(changes, files[name], changes.acceptances(these)) for name, these in found.items()}
    return files | {name: _record(files[name], these) for name, these in said.items()}


def _said(changes: Changes, content: bytes, accepted: list[Acceptance]) -> dict[str, Any]:
    """Return the keys that restoring adds to a record: the present stamp if it differs, and the acceptances."""
    record = json.loads(content)
    now = job_stamp(changes.suite, record["stage"], record["subject"])
    said: dict[str, Any] = {RESTORED_FOR: now} if record["code_stamp"] != now else {}
    return said | ({ACCEPTED: [each.model_dump() for each in accepted]} if accepted else {})


def _record(content: bytes, said: Mapping[str, Any]) -> bytes:
    """Add the keys of :func:`_said` to a record; it stays as it was if it has them already."""
    record = json.loads(content)
    if {key: record.pop(key) for key in (RESTORED_FOR, ACCEPTED) if key in record} == said:
        return content
    return f"{json.dumps(record | said, indent=2)}\n".encode()


def _read(kept: Mapping[Folder, Path], outcome: Outcome) -> dict[Folder, dict[str, bytes]]:
    """Read the archives; an archive that is damaged, or has other files than would be kept now, is refused."""
    packed = {}
    for folder, path in kept.items():
        try:
            files = read_archive(path, folder)
        except ArtifactError as error:
            outcome.refused[folder.place] = str(error)
            continue
        if odd := _odd_names(folder, files):
            outcome.refused[folder.place] = f"{path}: found {odd}; {_remedy(folder, files)}"
        else:
            packed[folder] = files
    return packed


def _fault(suite: "Suite", staged: Path, folder: Folder) -> str:
    """Describe why a folder does not belong to the present suite and code; empty if it does."""
    try:
        check_folder(suite, staged.parent, folder)
    except ArtifactError as error:
        return str(error).replace(f"{staged}/", "")
    return ""


def _take(here: Path, folder: Folder, files: dict[str, bytes], outcome: Outcome, replace: bool, now: float) -> None:
    """Write a folder into the results, all its files with the same time, unless results are there already."""
    found, expected = results_alone(_present(here, files)), results_alone(files)
    records = {name for job in folder.jobs for name in folder.records(job)}
    if found == expected:
        outcome.same.append(folder.place)
        _say_again(here, records, files)
    elif blocked := _blocked(here, records | files.keys()):
        outcome.refused[folder.place] = f"{here / folder.place}: {blocked}"
    elif replace or found.items() <= expected.items():
        _write(here, files, now)
        # Records of jobs that the archive's jobs replace.
        for name in records - files.keys():
            (here / name).unlink(missing_ok=True)
        outcome.done.append(folder.place)
    else:
        outcome.refused[folder.place] = (
            f"{here / folder.place}: found other results than the kept ones; overwrite them with --replace"
        )


def _say_again(here: Path, records: Iterable[str], files: dict[str, bytes]) -> None:
    """Correct the acceptances in restored records; other records are damaged, or belong to jobs that were done again."""
    for name, content in _present(here, records).items():
        with contextlib.suppress(ValueError, AttributeError):
            if name in files and content != files[name] and _record(content, {}) == _record(files[name], {}):
                with atomic_write(here / name) as file:
                    file.write(files[name])


def _manifests(suite_folder: Path, folder: Folder) -> dict[str, bytes]:
    """Read the manifests of a folder in the results."""
    return _present(suite_folder, (name for name in folder.files if "/manifest/" in name))


def _lay(staged: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
        (staged / name).write_bytes(content)


def _odd_names(folder: Folder, files: dict[str, bytes]) -> str:
    """Name files that an archive lacks, and files that the present pipeline does not keep, so that it cannot write elsewhere."""
    records = {name for job in folder.jobs for name in folder.records(job)}
    lacking, beside = set(folder.files) - set(files), set(files) - records - set(folder.files)
    words = [f"no {name}" for name in sorted(lacking)] + [f"{name}, which is not kept" for name in sorted(beside)]
    return ", ".join(words)


def _remedy(folder: Folder, files: dict[str, bytes]) -> str:
    """Describe how to restore a folder that the present suite did not make, by the commits in its records."""
    commits = ", ".join(_commits(folder, files))
    made = f"check out the code that made it (commit {commits}), or " if commits else ""
    return f"{made}keep it again, from a run of the present suite"


def _commits(folder: Folder, files: dict[str, bytes]) -> list[str]:
    """Name the commits that made a folder."""
    records = [files[name] for job in folder.jobs for name in folder.records(job) if name in files]
    return list(dict.fromkeys(found.decode()[:12] for record in records for found in COMMIT.findall(record)))


def _blocked(suite_folder: Path, names: Iterable[str]) -> str:
    """Describe an obstacle that has to be moved before files can be written; empty if there is none."""
    return next((words for name in sorted(names) if (words := obstacle(suite_folder / name))), "")


def _present(suite_folder: Path, files: Iterable[str]) -> dict[str, bytes]:
    return {name: (suite_folder / name).read_bytes() for name in files if (suite_folder / name).is_file()}


def _write(suite_folder: Path, files: dict[str, bytes], now: float) -> None:
    """Write the files of a folder, all with the same time, because Snakemake remakes files that are older than their inputs."""
    for name, content in files.items():
        with atomic_write(suite_folder / name) as file:
            file.write(content)
        os.utime(suite_folder / name, (now, now))
