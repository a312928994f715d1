"""Checks that a folder of results is finished, complete and belongs to the present suite."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from indm.errors import ArtifactError
from indm.kept.folders import Folder
from indm.pipeline.identity import Identity
from indm.pipeline.jobs import Job
from indm.pipeline.stamps import job_stamp
from indm.store.manifest import Manifest, damage
from indm.store.provenance import read_provenance

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite


def check_folder(suite: "Suite", results: Path, folder: Folder) -> None:
    """Check the manifests in a folder, and the files in them as far as they are there.

    Arguments:
        suite: the suite.
        results: the results folder.
        folder: the folder, whose kept files must be there; for other files the manifest suffices.

    Raises:
        ArtifactError: if a job has not ended, or was done with other parameters or inputs than the suite has now.
    """
    identity = Identity(suite, results, Path("reports"))
    for job in folder.jobs:
        for path, sha256 in identity.trust(job).outputs.items():
            below = path.removeprefix(f"results/{suite.suite}/")
            place = results / suite.suite / below
            if below not in folder.files and not place.exists():
                continue
            if words := damage(place, sha256, identity.manifest(job)):
                raise ArtifactError(words)
        _check_record(suite, record(results / suite.suite, folder, job), identity.trust(job))


def other_code(suite: "Suite", path: Path, subject: str) -> str:
    """Report that code other than the present code did a job, by its record; empty if it did not.

    Arguments:
        suite: the suite.
        path: the job's record, ``provenance/<stage>.json``.
        subject: subject of the job.
    """
    made, now = read_provenance(path, suite.suite, subject).get("code_stamp"), job_stamp(suite, path.stem, subject)
    if made == now:
        return ""
    return f"{path}: found code stamp {str(made)[:12]}, expected {now[:12]}, the present stamp of stage {path.stem}"


def record(here: Path, folder: Folder, job: Job) -> Path:
    """Find the record of a job's execution.

    Raises:
        ArtifactError: if it is missing.
    """
    places = [here / name for name in folder.records(job)]
    if found := [path for path in places if path.is_file()]:
        return found[0]
    raise ArtifactError(f"{places[0]}: missing, so the code that made the results is unknown; run the stage again")


def _check_record(suite: "Suite", path: Path, made: Manifest) -> None:
    """Check that a record and a manifest have the same stamp of code, which older manifests lack."""
    stamp = read_provenance(path, suite.suite, made.subject, needed=("code_stamp",))["code_stamp"]
    if made.stamp not in ("", stamp):
        raise ArtifactError(f"{path}: found code stamp {stamp[:12]}, expected {made.stamp[:12]} by its manifest")
    if wrong := [name for name, value in made.modules.items() if not re.fullmatch("[0-9a-f]{10}", str(value))]:
        raise ArtifactError(f"{path}: found no hash of {wrong[0]} in its manifest, expected 10 hexadecimal digits")
