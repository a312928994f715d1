"""Whether a folder of results is finished, whole, and made by the present suite and code."""

from pathlib import Path
from typing import TYPE_CHECKING

from indm.errors import ArtifactError
from indm.identity import Identity
from indm.jobs import Job
from indm.kept.folders import Folder
from indm.stamps import job_stamp
from indm.store.manifest import content_sha256
from indm.store.provenance import read_provenance

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite


def check_folder(suite: "Suite", results: Path, folder: Folder) -> None:
    """Check a folder: the manifests, the files that they speak of as far as they are there, and the stamps of the code.

    Arguments:
        suite: the suite.
        results: folder of the results.
        folder: the folder, whose kept files must be there; of the others, a manifest suffices.

    Raises:
        ArtifactError: if a job has not ended, or is of other parameters, inputs or code than the suite has now.
    """
    identity = Identity(suite, results, Path("reports"))
    for job in folder.jobs:
        for path, sha256 in identity.trust(job).outputs.items():
            below = path.removeprefix(f"results/{suite.suite}/")
            place = results / suite.suite / below
            if (below in folder.files or place.exists()) and (found := content_sha256(place)) != sha256:
                raise ArtifactError(f"{place}: found SHA-256 {found[:12]}, expected {sha256[:12]} by its manifest")
        _check_stamp(suite, results, folder, job)


def other_code(suite: "Suite", path: Path, subject: str) -> str:
    """Say that other code than the present one did a job, which the job's manifest does not say; nothing where it did not.

    Arguments:
        suite: the suite.
        path: the job's record, ``provenance/<stage>.json``.
        subject: of the job.
    """
    made, now = read_provenance(path, suite.suite, subject).get("code_stamp"), job_stamp(suite, path.stem, subject)
    if made == now:
        return ""
    return f"{path}: found code stamp {str(made)[:12]}, expected {now[:12]}, that of stage {path.stem} now"


def _check_stamp(suite: "Suite", results: Path, folder: Folder, job: Job) -> None:
    """Check that the present code did a job."""
    for path in (results / suite.suite / record for record in folder.records(job)):
        if path.is_file():
            if fault := other_code(suite, path, job.subject):
                raise ArtifactError(fault)
            return
    raise ArtifactError(
        f"{results / suite.suite / folder.records(job)[0]}: missing, and nothing else says which code made the results"
    )
