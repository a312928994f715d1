"""Keep the finished results of a suite: one archive per folder, small enough for git."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from indm.errors import ArtifactError
from indm.kept.check import check_folder
from indm.kept.folders import Folder, archive, kept_folders
from indm.kept.packing import pack, unpack
from indm.store.files import atomic_write

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite


@dataclass
class Outcome:
    """What became of the folders of a suite: places by outcome, with the reason where there is one."""

    done: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether a folder was refused, or none was there to move."""
        return bool(self.refused) or not (self.done or self.same)

    def lines(self) -> list[str]:
        """Say it: a line for each folder that was left out, and the counts."""
        return [
            *(f"skipped {place}: {reason}" for place, reason in self.skipped.items()),
            *(f"refused {place}: {reason}" for place, reason in self.refused.items()),
            f"{len(self.done)} written, {len(self.same)} there already, {len(self.skipped)} skipped, {len(self.refused)} refused",
        ]


def keep(suite: "Suite", results: Path, root: Path, replace: bool) -> Outcome:
    """Pack every folder whose jobs have all ended.

    Arguments:
        suite: the suite.
        results: folder of the results.
        root: where the archives go.
        replace: whether an archive of other results is replaced; else it is refused.
    """
    outcome = Outcome()
    for folder in kept_folders(suite):
        path = archive(root, folder)
        try:
            check_folder(suite, results, folder)
            files = _read(results / suite.suite, folder)
        except ArtifactError as error:
            outcome.skipped[folder.place] = str(error)
            continue
        difference = _difference(path, files)
        if difference is None:
            outcome.same.append(folder.place)
        elif difference and not replace:
            outcome.refused[folder.place] = f"{difference}, or replace them by the results here with --replace"
        else:
            with atomic_write(path) as file:
                file.write(pack(files))
            outcome.done.append(folder.place)
    return outcome


def _difference(path: Path, files: dict[str, bytes]) -> str | None:
    """Say how an archive differs from files, with a remedy: empty if there is no archive, ``None`` if they agree."""
    # A folder, or a link to nothing, is in the place of one.
    if not os.path.lexists(path):
        return ""
    try:
        known = unpack(path)
    except ArtifactError as error:
        return str(error)
    same = results_alone(known) == results_alone(files)
    return None if same else f"{path}: holds other results; restore them"


def results_alone(files: dict[str, bytes]) -> dict[str, bytes]:
    """Leave out provenance: a repeated job gives the same results, but takes another time."""
    return {name: content for name, content in files.items() if "/provenance/" not in name}


def _read(suite_folder: Path, folder: Folder) -> dict[str, bytes]:
    """Read what is kept of a folder.

    Raises:
        ArtifactError: if an engine has removed a file meanwhile, to make it again.
    """
    records = (name for job in folder.jobs for name in folder.records(job) if (suite_folder / name).is_file())
    try:
        return {name: (suite_folder / name).read_bytes() for name in (*folder.files, *records)}
    except FileNotFoundError as error:
        raise ArtifactError(f"{error.filename}: removed meanwhile") from None
