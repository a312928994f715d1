"""Keep the finished results of a suite in git, one small archive per folder, and restore them without training."""

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from indm.bench.kept.folders import SUFFIX, Folder, archive, kept_folders, pack, unpack
from indm.bench.kept.since import changes_since
from indm.bench.kept.weights import averaged_weights, is_of, trained
from indm.bench.pipeline.input_check import InputCheck
from indm.bench.pipeline.jobs import job_outputs
from indm.bench.pipeline.stamps import job_stamp
from indm.errors import ArtifactError
from indm.store.files import AGAIN, atomic_write, obstacle, read_json, sweep
from indm.store.manifest import damage
from indm.store.provenance import CHANGED, RESTORED_FOR, read_provenance
from indm.store.sums import check_kept, update_sums

STATES = WRITTEN, SAME, SKIPPED, REFUSED = "written", "there already", "skipped", "refused"
REMEDY = "keep it again, from a run of the present suite"
State = tuple[str, str]


@dataclass
class Outcome:
    """Whether each folder of a suite was written, there already, skipped or refused, why, and how its code has changed.

    Arguments:
        found: the state of each folder, and the reason.
        since: by commit, the files that have changed since it computed results, and the folders in which these are.
    """

    found: dict[str, State] = field(default_factory=dict)
    since: dict[str, tuple[set[str], list[str]]] = field(default_factory=dict)

    @property
    def came(self) -> set[str]:
        """The folders that were written or there already."""
        return {place for place, (state, _) in self.found.items() if state in (WRITTEN, SAME)}

    @property
    def failed(self) -> bool:
        """Whether a folder was refused, or there was no folder to move."""
        return not self.came or REFUSED in dict(self.found.values())

    def lines(self) -> list[str]:
        """Return a line for each commit whose code has changed, a line for each reason to leave folders out, and the counts."""
        reasons: dict[State, list[str]] = {}
        for place, state in self.found.items():
            reasons.setdefault(state, []).append(place)
        count = Counter(state for state, _ in self.found.values())
        return [
            *(
                f"{_some(places)}: computed by commit {commit}; since then changed: {', '.join(sorted(files))}"
                for commit, (files, places) in self.since.items()
            ),
            *(f"{state} {_some(places)}: {reason}" for (state, reason), places in reasons.items() if reason),
            ", ".join(f"{count[state]} {state}" for state in STATES),
        ]


def _some(places: list[str]) -> str:
    return f"{places[0]} and {len(places) - 1} more" if len(places) > 1 else places[0]


def keep(checks: InputCheck, root: Path, replace: bool) -> Outcome:
    """Pack every folder whose jobs have all ended, and write the averaged weights that the suite selects."""
    suite, outcome = checks.suite, Outcome()
    for folder in kept_folders(suite):
        outcome.found[folder.place] = _keep(checks, folder, archive(root, folder), replace)
    if kept := suite.kept_weights:
        for run in suite.first_runs(kept.seeds):
            if suite.runs[run].variant in kept.variants and f"runs/{run}" in outcome.came:
                place = f"weights/{run}"
                outcome.found[place] = _keep_weights(checks, run, root / _file(place), replace)
    update_sums(root.parent, [f"{root.name}/{_file(place)}" for place in sorted(outcome.came)])
    return outcome


def _file(place: str) -> str:
    """Name the kept file of a place below ``kept/``."""
    return f"{place}.safetensors" if place.startswith("weights/") else f"{place}{SUFFIX}"


def _keep(checks: InputCheck, folder: Folder, path: Path, replace: bool) -> State:
    here = checks.layout.suite_folder
    try:
        records = _check(checks, folder)
        files = {name: (here / name).read_bytes() for name in folder.files}
        # What a restore has stated is stated by the next one.
        files |= {name: _written(_unmarked(record)) for name, record in records.items()}
    except ArtifactError as error:
        return SKIPPED, str(error)
    except FileNotFoundError as error:
        # An engine has removed it, to make it again.
        return SKIPPED, f"{error.filename}: removed meanwhile"
    difference = _difference(path, "results", lambda: results_alone(unpack(path)) == results_alone(files))
    return _put(difference, lambda: {path: pack(files)}, replace)


def _keep_weights(checks: InputCheck, run: str, path: Path, replace: bool) -> State:
    expected = trained(checks, run)
    difference = _difference(path, "weights", lambda: is_of(path, expected))
    return _put(difference, lambda: {path: averaged_weights(checks, run)}, replace)


def _difference(path: Path, kind: str, is_same: Callable[[], bool]) -> str | None:
    """Describe how a kept file differs from the results: empty if there is no file, ``None`` if it does not differ."""
    sweep(path)
    # A folder, or a broken link, may be in the place of the file.
    if not os.path.lexists(path):
        return ""
    try:
        return None if is_same() else f"{path}: found other {kind} than in the results folder"
    except ArtifactError as error:
        return str(error)


def restore(checks: InputCheck, root: Path, replace: bool) -> Outcome:
    """Unpack every kept folder that belongs to the present suite, and state how the code has changed since.

    Archives are first unpacked into a temporary folder, because a run is checked against the dataset on which it was trained.

    Raises:
        ArtifactError: if there are no archives of the suite.
    """
    suite, here = checks.suite, checks.layout.suite_folder
    outcome, now = Outcome(), time.time()
    folders = {folder: archive(root, folder) for folder in kept_folders(suite)}
    if not any(map(os.path.lexists, folders.values())):
        words = f"{root}: found no archive of suite {suite.suite}, expected some"
        raise ArtifactError(f"{words}; python -m indm keep makes them")
    with tempfile.TemporaryDirectory() as temporary:
        for folder, path in folders.items():
            staged = InputCheck(suite, Path(temporary), checks.reports)
            for name in (*folder.files, *folder.records(*folder.jobs)):
                sweep(here / name)
            state = SKIPPED, "not kept"
            try:
                check_kept(root.parent, path)
                if os.path.lexists(path):
                    files = _unpack(staged, folder, path)
                    files |= _marked(staged, folder, outcome)
                    state = _copy(here, folder, files, replace, now)
            except ArtifactError as error:
                # Name the archive instead of the temporary folder, and the remedy for it.
                place, words = f"{staged.layout.suite_folder}/", str(error).replace(AGAIN, REMEDY)
                state = REFUSED, words.replace(place, f"{path}: ", 1).replace(place, "")
            outcome.found[folder.place] = state
            if state[0] in (SKIPPED, REFUSED):
                # Later folders should agree with the results that are and stay here, not with refused ones.
                there = staged.layout.suite_folder / folder.place
                shutil.rmtree(there, ignore_errors=True)
                # Results may be missing.
                with contextlib.suppress(OSError):
                    shutil.copytree(here / folder.place / "manifest", there / "manifest")
    return outcome


def _unpack(staged: InputCheck, folder: Folder, path: Path) -> dict[str, bytes]:
    """Copy the files of an archive to a temporary folder, and return them, if they are those that would be kept now."""
    files = unpack(path)
    odd = [f"no {name}" for name in sorted(set(folder.files) - files.keys())]
    odd += [
        f"{name}, which is not kept" for name in sorted(files.keys() - {*folder.files, *folder.records(*folder.jobs)})
    ]
    if odd:
        raise ArtifactError(f"{path}: found {', '.join(odd)}; {REMEDY}")
    for name, content in files.items():
        place = staged.layout.suite_folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return files


def _marked(staged: InputCheck, folder: Folder, outcome: Outcome) -> dict[str, bytes]:
    """Check a folder, note how its code has changed, and return its records, which say for which code they were restored."""
    marked = {}
    for (name, record), job in zip(_check(staged, folder).items(), folder.jobs, strict=True):
        stamp = job_stamp(staged.suite, record["stage"], record["subject"])
        said = _unmarked(record) | {RESTORED_FOR: stamp}
        if staged.read(job).stamp != stamp:
            changed = changes_since(staged, job)
            said |= {CHANGED: [" ".join(each) for each in changed]}
            files, places = outcome.since.setdefault((record["commit"] or "unknown")[:12], (set(), []))
            files |= {each.where for each in changed}
            places += [folder.place] if folder.place not in places else []
        marked[name] = _written(said)
    return marked


def _unmarked(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record without what restores have stated, that of version 2.0 too."""
    return {key: value for key, value in record.items() if key not in (RESTORED_FOR, CHANGED, "accepted")}


def _written(record: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(record, indent=2)}\n".encode()


def _copy(here: Path, folder: Folder, files: Mapping[str, bytes], replace: bool, now: float) -> State:
    """Write a folder into the results, unless there are results already; all its files get the same time.

    Snakemake makes files again that are older than their inputs.
    """
    records = set(folder.records(*folder.jobs))
    replaced = records - files.keys()
    known = results_alone({name: (here / name).read_bytes() for name in files if (here / name).is_file()})
    difference: str | None = f"{here / folder.place}: found other results than the kept ones"
    if known == results_alone(files):
        files = {name: files[name] for name in records - replaced if _lacks_marks(here / name, files[name])}
        difference = "" if files else None
    elif known.items() <= files.items():
        difference = ""
    state = _put(difference, lambda: {here / name: content for name, content in files.items()}, replace, now)
    for name in replaced if state[0] == WRITTEN else ():
        (here / name).unlink(missing_ok=True)
    return state


def _lacks_marks(path: Path, content: bytes) -> bool:
    """Return whether a record is of the same job, but done for other code; others are damaged, or belong to a repeated job."""
    try:
        present, kept = read_json(path), json.loads(content)
    except ArtifactError:
        return False
    done_for = present.get(RESTORED_FOR, present.get("code_stamp"))
    return done_for != kept[RESTORED_FOR] and _unmarked(present) == _unmarked(kept)


def _put(
    difference: str | None, make: Callable[[], Mapping[Path, bytes]], replace: bool, at: float | None = None
) -> State:
    """Write files unless they are there already (``None``), or differ from files there and may not replace them."""
    if difference is None:
        return SAME, ""
    if difference and not replace:
        return REFUSED, f"{difference}; overwrite with --replace"
    try:
        files = make()
    except ArtifactError as error:
        # A file that should be replaced and cannot be is reported.
        return REFUSED if difference else SKIPPED, str(error)
    if blocked := [words for path in files if (words := obstacle(path))]:
        return REFUSED, blocked[0]
    for path, content in files.items():
        with atomic_write(path) as file:
            file.write(content)
        if at is not None:
            os.utime(path, (at, at))
    return WRITTEN, ""


def _check(checks: InputCheck, folder: Folder) -> dict[str, dict[str, Any]]:
    """Check that the ended jobs of a folder belong to the suite and left its files as they are; return their records by name."""
    here, found = checks.layout.suite_folder, {}
    for job in folder.jobs:
        outputs = checks.trust(job).outputs
        for path in job_outputs(checks.suite, job):
            place, is_kept = checks.place(path), path.removeprefix(f"results/{checks.suite.suite}/") in folder.files
            expected = outputs.get(path, "none")
            if (is_kept or place.exists()) and (words := damage(place, expected, checks.manifest(job))):
                raise ArtifactError(words)
        first, *others = folder.records(job)
        name = next((name for name in (first, *others) if (here / name).is_file()), first)
        found[name] = read_provenance(here / name, checks.suite.suite, job.subject, needed=("commit",))
    return found


def results_alone(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Leave out provenance, because a repeated job gives the same results at another time."""
    return {name: content for name, content in files.items() if "/provenance/" not in name}
