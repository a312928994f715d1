"""The manifest of a job: which job made its files, with which parameters, from which inputs, and their content.

Because other programs may drop such metadata from arrays and tables, each job writes a manifest next to its files,
``manifest/<stage>.json``, which both engines track. It does not contain times, so it is reproducible if the files are.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from indm.errors import ArtifactError
from indm.store.files import AGAIN, FIRST, file_sha256, read_json, write_json

FORMAT = "indm-manifest-1"


@dataclass(frozen=True)
class Manifest:
    """The manifest of a job's files: the job, its parameters with a run's overrides, and the SHA-256 of files by their paths.

    ``stamp`` is of the code that did the job, and ``modules`` has a short hash of each of its modules; older manifests lack both.
    """

    stage: str
    suite: str
    subject: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    stamp: str = ""
    modules: Mapping[str, str] = field(default_factory=dict)


READER = TypeAdapter(Manifest)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest."""
    write_json(path, {"format": FORMAT, **asdict(manifest)})


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        ArtifactError: if it is missing, damaged or in another format.
    """
    if not path.is_file():
        raise ArtifactError(
            f"{path}: missing, so the origin of the files of stage {path.stem} is unknown; run that stage, or the suite, again"
        )
    content = read_json(path)
    if (found := content.pop("format", None)) != FORMAT:
        raise ArtifactError(f"{path}: found format {found!r}, expected {FORMAT!r} of this version; {AGAIN}")
    try:
        return READER.validate_python(content)
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        raise ArtifactError(f"{path}: found no valid {key}, expected a manifest; {AGAIN}") from None


def damage(place: Path, expected: str, manifest: Path) -> str:
    """Report that a file or a folder has changed since its job, by its manifest, wrote it; empty if it has not."""
    if (found := content_sha256(place)) == expected:
        return ""
    shown = f"found SHA-256 {found[:12]}, expected {expected[:12]} by {manifest}"
    return f"{place}: {shown}: damaged, or another file"


def content_sha256(path: Path) -> str:
    """Hash a file's content, or the names and contents of the files in a folder, except hidden ones; refuse a missing one."""
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(file for file in path.glob("[!.]*") if file.is_file()):
            digest.update(f"{file.name} {file_sha256(file)}\n".encode())
        return digest.hexdigest()
    if not path.is_file():
        raise ArtifactError(f"{path}: missing; {FIRST}")
    return file_sha256(path)
