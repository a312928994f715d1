"""The folders of a suite's results that can be kept: each with its jobs, its files that are worth a commit, and its archive.

An archive is a ``.tar.gz`` without user names, permissions and times, so that the same files give the same bytes.
"""

import functools
import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from indm.bench.pipeline.jobs import MAKERS, Job, job_names, jobs_of, manifest
from indm.bench.pipeline.stages import REFERENCE, STAGES
from indm.data.archives import largest
from indm.errors import ArtifactError
from indm.store.provenance import record_names

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite

SUFFIX = ".tar.gz"


@dataclass(frozen=True)
class Folder:
    """A folder below ``results/<suite>/``, the jobs with a manifest in it, and its kept files, manifests included."""

    place: str
    jobs: tuple[Job, ...]
    files: tuple[str, ...]

    def records(self, *jobs: Job) -> list[str]:
        """List the possible paths of the records of jobs, or of imports that replace them."""
        found = []
        for job in jobs:
            found += [f"{self.place}/provenance/{name}.json" for name in record_names(job.stage)]
        return found


def kept_folders(suite: "Suite") -> list[Folder]:
    """List the folders of a suite, in the order of its stages, without shards, which are removed once they are gathered."""
    jobs: dict[str, list[Job]] = {}
    for job in jobs_of(suite, "", "shard"):
        jobs.setdefault(_below(STAGES[job.stage].folder, suite, job), []).append(job)
    folders = []
    for place, found in jobs.items():
        files: list[str] = []
        for job in found:
            files += _files(suite, job)
        folders.append(Folder(place, tuple(found), tuple(files)))
    return folders


@functools.cache
def _collected() -> frozenset[str]:
    """Return the files of single jobs that the collecting stages read; these are small, unlike datasets, weights and samples."""
    found: set[str] = set()
    for stage in STAGES.values():
        if not stage.subject:
            of_jobs = [pattern for pattern in stage.inputs if pattern in MAKERS]
            found |= {pattern for pattern in of_jobs if STAGES[MAKERS[pattern]].subject}
    return frozenset(found)


def archive(root: Path, folder: Folder) -> Path:
    """Return the path of a folder's archive."""
    return root / f"{folder.place}{SUFFIX}"


def _files(suite: "Suite", job: Job) -> Iterator[str]:
    """Yield the kept files of a job.

    A classifier that the suite trains itself is kept with its features, because another processor would train a different one, and
    then other runs could not be compared with the kept runs.
    """
    own = job.stage == "reference" and suite.reference[job.subject].classifier is not None
    for pattern in STAGES[job.stage].written:
        if pattern in _collected() or (own and pattern in REFERENCE):
            yield _below(pattern, suite, job)
    yield _below(manifest(job.stage), suite, job)


def _below(pattern: str, suite: "Suite", job: Job) -> str:
    return pattern.format(**job_names(suite, job)).removeprefix(f"results/{suite.suite}/")


def pack(files: Mapping[str, bytes]) -> bytes:
    """Pack files by their names.

    The bytes depend on the version of zlib, so compare the content of two archives, not their bytes.
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
    """Read the files of an archive by their names, without writing them.

    Raises:
        ArtifactError: if it is damaged, expands beyond :func:`largest`, or contains other entries than files.
    """
    try:
        limit = largest(path)
        with gzip.open(path) as packed:
            # Up to gzip's checksum at the end, before which tarfile stops.
            content = packed.read(limit + 1)
        if len(content) > limit:
            raise ValueError(f"it expands to more than {limit:,} bytes")
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            # A sparse file may claim more zeros than fit into memory.
            if odd := [member.name for member in archive if not member.isfile() or member.issparse()]:
                raise ValueError(f"{odd[0]} is not a file")
            return {member.name: file.read() for member in archive if (file := archive.extractfile(member))}
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        raise ArtifactError(f"{path}: not a .tar.gz archive ({error}); restore it from git") from None
