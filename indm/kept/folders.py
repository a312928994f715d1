"""The folders of a suite's results that can be kept: each with its jobs, the files of it that are worth a commit, and its archive.

An archive is a ``.tar.gz`` without names of users, rights and times: the same files give the same bytes.
"""

import contextlib
import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from indm.data.archives import largest
from indm.errors import ArtifactError
from indm.pipeline.jobs import MAKERS, Job, job_names, manifest
from indm.pipeline.stages import REFERENCE, STAGES
from indm.store.provenance import record_names

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite

# What stages that collect read of those that work on something: small files, unlike datasets, weights and samples.
COLLECTED = {
    pattern
    for stage in STAGES.values()
    if not stage.subject
    for pattern in stage.inputs
    if pattern in MAKERS and STAGES[MAKERS[pattern]].subject
}
SUFFIX = ".tar.gz"
READ_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Folder:
    """A folder of results, of a dataset, a run or a study.

    Arguments:
        place: below ``results/<suite>/``, as ``runs/digits-vp-indm-nll-s0``.
        jobs: whose manifests lie in it.
        files: what is kept of it, manifests included; paths below ``results/<suite>/``.
    """

    place: str
    jobs: tuple[Job, ...]
    files: tuple[str, ...]

    def records(self, job: Job) -> list[str]:
        """List the places where a job, or what stands for it, says how it went."""
        return [f"{self.place}/provenance/{name}.json" for name in record_names(job.stage)]


def kept_folders(suite: "Suite") -> list[Folder]:
    """List the folders of a suite, in the order of its stages; shards, which are gone once they are gathered, have none."""
    jobs: dict[str, list[Job]] = {}
    for name, stage in STAGES.items():
        for subject in stage.subjects(suite) if stage.subject not in ("", "shard") else ():
            job = Job(name, subject)
            jobs.setdefault(_below(stage.folder, suite, job), []).append(job)
    return [
        Folder(place, tuple(found), tuple(file for job in found for file in _files(suite, job)))
        for place, found in jobs.items()
    ]


def archive(root: Path, folder: Folder) -> Path:
    """Return where a folder is kept.

    Arguments:
        root: folder of all that is kept of the suite.
        folder: the folder.
    """
    return root / f"{folder.place}{SUFFIX}"


def read_archive(path: Path, folder: Folder) -> dict[str, bytes]:
    """Read what is kept of a folder; for a picture that the code drew only later, an empty file, and the manifest says so.

    Raises:
        ArtifactError: if the archive is damaged, or holds anything but files.
    """
    files = unpack(path)
    for job in folder.jobs:
        name = f"{folder.place}/manifest/{job.stage}.json"
        # What is wrong with a manifest, whoever reads it says.
        with contextlib.suppress(KeyError, TypeError, ValueError):
            made = json.loads(files[name])
            added = {file: f"results/{made['suite']}/{file}" for file in _drawn(folder, job) if file not in files}
            new = {file: place for file, place in added.items() if place not in made["outputs"]}
            made["outputs"] |= dict.fromkeys(new.values(), hashlib.sha256().hexdigest())
            if new:
                files |= {name: f"{json.dumps(made, indent=2)}\n".encode()} | dict.fromkeys(new, b"")
    return files


def _drawn(folder: Folder, job: Job) -> list[str]:
    """List the pictures of a job."""
    names = {Path(pattern).name for pattern in STAGES[job.stage].written}
    return [name for name in folder.files if name.endswith(".png") and Path(name).name in names]


def _files(suite: "Suite", job: Job) -> Iterator[str]:
    """Yield what is kept of a job.

    A classifier that the suite itself trains is kept with its features: another processor would train another one, by which other
    runs could not be compared with those that are kept.
    """
    own = job.stage == "reference" and suite.reference[job.subject].classifier is not None
    for pattern in STAGES[job.stage].written:
        if pattern in COLLECTED or (own and pattern in REFERENCE):
            yield _below(pattern, suite, job)
    yield _below(manifest(job.stage), suite, job)


def _below(pattern: str, suite: "Suite", job: Job) -> str:
    return pattern.format(**job_names(suite, job)).removeprefix(f"results/{suite.suite}/")


def pack(files: Mapping[str, bytes]) -> bytes:
    """Pack files by their names.

    The bytes are the same wherever zlib compresses alike; compare what is in two archives, not their bytes.
    """
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def unpack(path: Path) -> dict[str, bytes]:
    """Read the files of an archive by their names; nothing is written.

    Raises:
        ArtifactError: if it is damaged, expands beyond :func:`largest`, or holds anything but files.
    """
    try:
        limit, content = largest(path), io.BytesIO()
        with gzip.open(path) as packed:
            # Read to its end, where gzip's checksum is: tarfile alone stops before it. In parts, which are never held twice.
            while part := packed.read(READ_AT_ONCE):
                if content.write(part) and content.tell() > limit:
                    raise ValueError(f"it expands to more than {limit:,} bytes")
        content.seek(0)
        with tarfile.open(fileobj=content, mode="r:") as archive:
            # A sparse file may say that it has more zeros than any memory.
            if odd := [member.name for member in archive if not member.isfile() or member.issparse()]:
                raise ArtifactError(f"{path}: found {odd[0]}, which is no file; take the archive from git again")
            return {member.name: file.read() for member in archive if (file := archive.extractfile(member))}
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        raise ArtifactError(f"{path}: not a .tar.gz archive ({error}); take it from git again") from None
