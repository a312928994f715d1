"""Keep the finished results of a suite: one archive per folder, small enough for git, and the weights that the suite selects."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from indm.errors import ArtifactError
from indm.kept.changed import FILE, Changes, described
from indm.kept.check import check_folder
from indm.kept.folders import Folder, archive, kept_folders, pack, read_archive
from indm.kept.weights import averaged_weights, is_of, trained
from indm.pipeline.identity import Identity
from indm.pipeline.stamps import Difference
from indm.store.files import atomic_write

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite


@dataclass
class Outcome:
    """The outcome for each folder of a suite, with the reason if there is one.

    Arguments:
        done: folders that were written.
        same: folders that were there already.
        skipped: reasons why folders were skipped, by folder.
        refused: reasons why folders were refused, by folder.
        changed: folders whose code has a changed definition, by the change.
        accepted: folders that were restored although definitions have changed.
    """

    done: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    changed: dict[Difference, set[str]] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)

    @property
    def failed(self) -> bool:
        """Whether a folder was refused, or there was no folder to move."""
        return bool(self.refused) or not (self.done or self.same)

    def lines(self) -> list[str]:
        """Return a line for each changed definition, a line for each reason to leave folders out, and the counts."""
        came = len(self.done) + len(self.same)
        ways = (
            f" ({came - len(self.accepted)} by the same code, {len(self.accepted)} by code whose changes were accepted)"
        )
        return [
            *(f"{line}: {_folders(places)}" for line, places in self._changed().items()),
            *(f"skipped {place}: {reason}" for place, reason in self.skipped.items()),
            *(f"refused {places}: {reason}" for reason, places in _by_reason(self.refused)),
            f"{len(self.done)} written, {len(self.same)} there already, {len(self.skipped)} skipped, "
            f"{len(self.refused)} refused" + (ways if self.accepted else ""),
        ]

    def _changed(self) -> dict[str, set[str]]:
        """Name the folders whose code has a changed definition, whatever its earlier state."""
        found: dict[str, set[str]] = {}
        for each, places in sorted(self.changed.items()):
            found.setdefault(described(each), set()).update(places)
        return found


def _folders(places: set[str]) -> str:
    return f"behind {len(places)} folders" if len(places) > 1 else f"behind {min(places)}"


def _by_reason(refused: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Name the folders that have a reason in common."""
    for reason in dict.fromkeys(refused.values()):
        first, *others = (place for place, why in refused.items() if why == reason)
        yield reason, f"{first} and {len(others)} more" if others else first


def keep(suite: "Suite", results: Path, root: Path, replace: bool) -> Outcome:
    """Pack every folder whose jobs have all ended, and write the averaged weights that the suite selects.

    Arguments:
        suite: the suite.
        results: folder of the results.
        root: folder for archives and weights.
        replace: whether archives of other results and weights of another training are replaced; otherwise they are refused.
    """
    outcome, changes = Outcome(), Changes(suite, root.parent / FILE)
    for folder in kept_folders(suite):
        path = archive(root, folder)
        try:
            check_folder(suite, results, folder)
            _check_code(changes, results, folder)
            files = _read(results / suite.suite, folder)
        except ArtifactError as error:
            outcome.skipped[folder.place] = str(error)
            continue
        _put(outcome, folder.place, path, _difference(path, folder, files), partial(pack, files), replace)
    _keep_weights(suite, results, root, replace, outcome)
    return outcome


def _keep_weights(suite: "Suite", results: Path, root: Path, replace: bool, outcome: Outcome) -> None:
    """Write the averaged weights of runs whose present results are kept."""
    if suite.kept_weights is None:
        return
    here, identity = results / suite.suite, Identity(suite, results, Path("reports"))
    kept = {*outcome.done, *outcome.same}
    for run in suite.first_runs(suite.kept_weights.seeds):
        if suite.runs[run].variant in suite.kept_weights.variants and f"runs/{run}" in kept:
            path = root / f"weights/{run}.safetensors"
            difference = _other_training(path, trained(suite, identity, run))
            content = partial(averaged_weights, suite, identity, here, run)
            _put(outcome, f"weights/{run}", path, difference, content, replace)


def _put(
    outcome: Outcome, place: str, path: Path, difference: str | None, content: Callable[[], bytes], replace: bool
) -> None:
    """Write a file, unless it does not differ (``None``), or differs and may not be replaced."""
    if difference is None:
        outcome.same.append(place)
    elif difference and not replace:
        outcome.refused[place] = f"{difference}, or replace them by the results here with --replace"
    else:
        try:
            made = content()
        except ArtifactError as error:
            # A file that should be replaced and cannot be is reported.
            (outcome.refused if difference else outcome.skipped)[place] = str(error)
            return
        with atomic_write(path) as file:
            file.write(made)
        outcome.done.append(place)


def _check_code(changes: Changes, results: Path, folder: Folder) -> None:
    """Refuse results that were made by code other than the present code."""
    for record, found in changes.since(results, folder).items():
        if differing := changes.open(found):
            more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
            raise ArtifactError(
                f"{results / changes.suite.suite / record}: made by other code: {described(differing[0])}{more}"
            )


def _difference(path: Path, folder: Folder, files: dict[str, bytes]) -> str | None:
    """Describe how an archive differs from files, with a remedy: empty if there is no archive, ``None`` if they agree."""
    # A folder, or a broken link, may be in the place of the archive.
    if not os.path.lexists(path):
        return ""
    try:
        known = read_archive(path, folder)
    except ArtifactError as error:
        return str(error)
    same = results_alone(known) == results_alone(files)
    return None if same else f"{path}: holds other results; restore them"


def _other_training(path: Path, checkpoint: str) -> str | None:
    """Describe how kept weights differ from the weights of a checkpoint, as :func:`_difference` does."""
    if not os.path.lexists(path):
        return ""
    try:
        return None if is_of(path, checkpoint) else f"{path}: holds weights of another training; remove them"
    except ArtifactError as error:
        return str(error)


def results_alone(files: dict[str, bytes]) -> dict[str, bytes]:
    """Leave out provenance, because a repeated job gives the same results at another time."""
    return {name: content for name, content in files.items() if "/provenance/" not in name}


def _read(suite_folder: Path, folder: Folder) -> dict[str, bytes]:
    """Read the files of a folder that are to be kept.

    Raises:
        ArtifactError: if an engine has meanwhile removed a file, to make it again.
    """
    records = (name for job in folder.jobs for name in folder.records(job) if (suite_folder / name).is_file())
    try:
        return {name: (suite_folder / name).read_bytes() for name in (*folder.files, *records)}
    except FileNotFoundError as error:
        raise ArtifactError(f"{error.filename}: removed meanwhile") from None
