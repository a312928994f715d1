"""Copy the kept results of a suite back to where stages and engines look for them."""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from indm.errors import ArtifactError
from indm.kept.check import check_folder
from indm.kept.folders import Folder, archive, kept_folders
from indm.kept.keep import Outcome, results_alone
from indm.kept.packing import unpack
from indm.store.files import atomic_write, obstacle

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite

# In a record, which may be damaged.
COMMIT = re.compile(rb'"commit": "([0-9a-f]{40})"')


def restore(suite: "Suite", results: Path, root: Path, replace: bool) -> Outcome:
    """Unpack every kept folder that the present suite and code have made.

    All archives are unpacked beside each other before one file is written: a run is checked against the dataset that it was
    trained on.

    Arguments:
        suite: the suite.
        results: folder of the results.
        root: where the archives are.
        replace: whether other results that are here already are replaced; else they are refused.

    Raises:
        ArtifactError: if nothing is kept of the suite.
    """
    folders, here = {folder: archive(root, folder) for folder in kept_folders(suite)}, results / suite.suite
    kept = {folder: path for folder, path in folders.items() if os.path.lexists(path)}
    if not kept:
        raise ArtifactError(f"{root}: found no archive of suite {suite.suite}; python -m indm keep makes them")
    outcome = Outcome(skipped={folder.place: "not kept" for folder in folders if folder not in kept})
    packed = _read(kept, outcome)
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary) / suite.suite
        for folder in folders:
            _lay(staged, packed[folder] if folder in packed else _manifests(here, folder))
        now = time.time()
        for folder, files in packed.items():
            if fault := _fault(suite, staged, folder):
                outcome.refused[folder.place] = f"{folders[folder]}: {fault}; {_remedy(folder, files)}"
            else:
                _take(here, folder, files, outcome, replace, now)
            if folder.place in outcome.refused:
                # What is left here is what later folders have to agree with.
                shutil.rmtree(staged / folder.place)
                _lay(staged, _manifests(here, folder))
    return outcome


def _read(kept: Mapping[Folder, Path], outcome: Outcome) -> dict[Folder, dict[str, bytes]]:
    """Read the archives; one that is damaged, or has other files than are kept now, is refused."""
    packed = {}
    for folder, path in kept.items():
        try:
            files = unpack(path)
        except ArtifactError as error:
            outcome.refused[folder.place] = str(error)
            continue
        if odd := _odd_names(folder, files):
            outcome.refused[folder.place] = f"{path}: found {odd}; {_remedy(folder, files)}"
        else:
            packed[folder] = files
    return packed


def _fault(suite: "Suite", staged: Path, folder: Folder) -> str:
    """Say why a folder is not what the suite and the code would make; nothing where it is."""
    try:
        check_folder(suite, staged.parent, folder)
    except ArtifactError as error:
        return str(error).replace(f"{staged}/", "")
    return ""


def _take(here: Path, folder: Folder, files: dict[str, bytes], outcome: Outcome, replace: bool, now: float) -> None:
    """Write a folder among the results, all of it of one time, unless the same or others are here."""
    found, expected = results_alone(_present(here, files)), results_alone(files)
    records = {name for job in folder.jobs for name in folder.records(job)}
    if found == expected:
        outcome.same.append(folder.place)
    elif blocked := _blocked(here, records | files.keys()):
        outcome.refused[folder.place] = f"{here / folder.place}: {blocked}"
    elif replace or found.items() <= expected.items():
        _write(here, files, now)
        # The record of what the archive's job replaces.
        for name in records - files.keys():
            (here / name).unlink(missing_ok=True)
        outcome.done.append(folder.place)
    else:
        outcome.refused[folder.place] = (
            f"{here / folder.place}: found other results than the kept ones; overwrite them with --replace"
        )


def _manifests(suite_folder: Path, folder: Folder) -> dict[str, bytes]:
    """Read the manifests of a folder that is here."""
    return _present(suite_folder, (name for name in folder.files if "/manifest/" in name))


def _lay(staged: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
        (staged / name).write_bytes(content)


def _odd_names(folder: Folder, files: dict[str, bytes]) -> str:
    """Name files that an archive lacks, or has beside what is kept of a folder as the pipeline is: it can write nowhere else."""
    records = {name for job in folder.jobs for name in folder.records(job)}
    lacking, beside = set(folder.files) - set(files), set(files) - records - set(folder.files)
    words = [f"no {name}" for name in sorted(lacking)] + [f"{name}, which is not kept" for name in sorted(beside)]
    return ", ".join(words)


def _remedy(folder: Folder, files: dict[str, bytes]) -> str:
    """Say how a folder comes back that the present suite or code did not make: its records name the commits that did."""
    records = [files[name] for job in folder.jobs for name in folder.records(job) if name in files]
    commits = dict.fromkeys(found.decode()[:12] for record in records for found in COMMIT.findall(record))
    made = f"check out what made it (commit {', '.join(commits)}; docs/kept.md), or " if commits else ""
    return f"{made}keep it again, from a run of the present suite"


def _blocked(suite_folder: Path, names: Iterable[str]) -> str:
    """Say what has to be moved before files can be written; nothing where all can."""
    return next((words for name in sorted(names) if (words := obstacle(suite_folder / name))), "")


def _present(suite_folder: Path, files: Iterable[str]) -> dict[str, bytes]:
    return {name: (suite_folder / name).read_bytes() for name in files if (suite_folder / name).is_file()}


def _write(suite_folder: Path, files: dict[str, bytes], now: float) -> None:
    """Write the files of a folder, all of one time: Snakemake makes again what is older than what it was made from."""
    for name, content in files.items():
        with atomic_write(suite_folder / name) as file:
            file.write(content)
        os.utime(suite_folder / name, (now, now))
