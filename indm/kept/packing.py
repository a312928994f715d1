"""Archives of small files, as ``.tar.gz`` without names of users, rights and times: the same files give the same bytes."""

import gzip
import io
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from indm.data.archives import largest
from indm.errors import ArtifactError


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
        limit = largest(path)
        with gzip.open(path) as packed:
            # Read to its end, where gzip's checksum is: tarfile alone stops before it.
            content = packed.read(limit + 1)
        if len(content) > limit:
            raise ValueError(f"it expands to more than {limit:,} bytes")
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            # A sparse file may say that it has more zeros than any memory.
            if odd := [member.name for member in archive if not member.isfile() or member.issparse()]:
                raise ArtifactError(f"{path}: found {odd[0]}, which is no file; take the archive from git again")
            return {member.name: file.read() for member in archive if (file := archive.extractfile(member))}
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        raise ArtifactError(f"{path}: not a .tar.gz archive ({error}); take it from git again") from None
