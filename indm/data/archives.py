"""Archives: their paths, their downloads, and the checksum that each must have before it is used."""

import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath

from indm.errors import DataError

VARIABLE = "INDM_DATA"
BLOCK = 1 << 20


@dataclass(frozen=True)
class Packaged:
    """A copy of an archive that a package of the operating system installs.

    Its checksum differs from the published one, because packagers strip name and time from gzip files.

    Arguments:
        package: the package's name.
        path: the path at which it installs the copy.
        md5: MD5 sum of the copy, in hexadecimal.
    """

    package: str
    path: str
    md5: str


@dataclass(frozen=True)
class Unpacked:
    """The folder that an archive unpacks to, which is read instead of the archive if it is there.

    Arguments:
        folder: its path below the data root.
        md5s: MD5 sum, in hexadecimal, of each file that is read, by the file's name.
    """

    folder: str
    md5s: Mapping[str, str] = field(hash=False)


@dataclass(frozen=True)
class Archive:
    """A file that a dataset is read from.

    Arguments:
        path: its path below the data root.
        md5: its published MD5 sum, in hexadecimal.
        url: its address, or the page that offers it on Google Drive; ``None`` for a file that comes with this package.
        size: approximate size of the download, as shown to users.
        drive_id: its name on Google Drive, if it is there.
        packaged: the copy that a package installs, if there is one.
        unpacked: the folder that may take its place, if there is one.
    """

    path: str
    md5: str
    url: str | None
    size: str = ""
    drive_id: str | None = None
    packaged: Packaged | None = None
    unpacked: Unpacked | None = None

    @property
    def remedy(self) -> str:
        """The action for a user who does not have the file."""
        if self.url is None:
            return "it comes with this package: install the package again"
        first = "install the package gdown, which downloads it, or " if self.lacks_gdown else ""
        if self.packaged is not None:
            first += f"install Debian's package {self.packaged.package}, or "
        folder = "" if self.unpacked is None else f" or, unpacked, {self.unpacked.folder}/"
        return (
            f"{first}get it from {self.url} and put it there, "
            f"or set {VARIABLE} to the folder below which {self.path}{folder} lies"
        )

    @property
    def md5s(self) -> tuple[str, ...]:
        """The accepted MD5 sums."""
        return (self.md5,) if self.packaged is None else (self.md5, self.packaged.md5)

    def find(self, root: Path) -> Path:
        """Return the first of these that is there: its folder and the file below the data root, a package's copy.

        If none is there, return the file's path below the data root.
        """
        if self.unpacked is not None and (folder := root / self.unpacked.folder).is_dir():
            return folder
        path = root / self.path
        if self.packaged is None or path.is_file() or not Path(self.packaged.path).is_file():
            return path
        return Path(self.packaged.path)

    @property
    def address(self) -> str:
        """The first URL of its download, which for Google Drive differs from the page that offers the file."""
        return self.url or "" if self.drive_id is None else "https://drive.google.com"

    @property
    def lacks_gdown(self) -> bool:
        """Whether its download needs gdown, which answers Google Drive's confirmation pages, and gdown is missing."""
        return self.drive_id is not None and importlib.util.find_spec("gdown") is None


@dataclass(frozen=True)
class Selection:
    """Files that are known by their own checksums, and that lie in a folder or in any archive of them.

    Arguments:
        places: paths of the folders and archives below the data root; the first that is there is read.
        url: the page that offers the files.
        check: checks that a folder or an archive has the files.
    """

    places: tuple[str, ...]
    url: str
    check: Callable[[Path], None] = field(hash=False)

    @property
    def remedy(self) -> str:
        """The action for a user who does not have the files."""
        return f"get it from {self.url} and put it there, or set {VARIABLE} to the folder below which it lies"

    def find(self, root: Path) -> Path:
        """Return the first place that is there; else the last, that of the published archive."""
        paths = [root / place for place in self.places]
        return next((path for path in paths if path.exists()), paths[-1])

    def obtain(self, root: Path | None = None) -> Path:
        """Return the first place that is there, with all files.

        Raises:
            DataError: if none is there, or it lacks a file; if the data root is a file.
        """
        root = root or data_root()
        check_root(root)
        place = self.find(root)
        if not place.exists():
            raise DataError(f"{self.lack(root)}; {self.remedy}")
        self.check(place)
        return place

    def lack(self, root: Path) -> str:
        """Say that none of the places is there."""
        return f"found none of {', '.join(str(root / place) for place in self.places)}, expected one of them"


def data_root() -> Path:
    """Return the folder of the archives: environment variable ``INDM_DATA``, else ``data`` in the working directory."""
    return Path(os.environ.get(VARIABLE) or "data").expanduser()


def check_root(root: Path) -> None:
    """Refuse a data root that is a file, such as an archive itself.

    Raises:
        DataError: if it is a file.
    """
    if root.is_file():
        raise DataError(
            f"{root}: found a file, expected the folder of the archives (--data-root, else {VARIABLE}); "
            "name the folder that the archive lies in"
        )


def obtain(archive: Archive, root: Path | None = None) -> Path:
    """Return the path of an archive, or of its folder, with the right checksums, downloaded first if neither is there.

    Arguments:
        root: the data root; :func:`data_root` by default.

    Raises:
        DataError: if it is missing and cannot be downloaded, or is not the published file; if the data root is a file.
    """
    root = root or data_root()
    check_root(root)
    path = archive.find(root)
    if path.exists():
        verify(path, archive)
    elif archive.url is None:
        raise DataError(f"{path}: missing; {archive.remedy}")
    else:
        _download(archive, path)
    return path


def verify(path: Path, archive: Archive) -> None:
    """Check the MD5 sum of an archive, or of each file in its folder.

    Raises:
        DataError: if a file is missing, cannot be read or has another sum.
    """
    # MD5 detects damage, not forgery; the readers make sure that they never execute a file's content.
    if archive.unpacked is not None and path.is_dir():
        faults = {name: _fault(path / name, (md5,)) for name, md5 in archive.unpacked.md5s.items()}
        if wrong := ", ".join(f"{name}: {words}" for name, words in faults.items() if words):
            raise DataError(
                f"{path}: {wrong}; put the published files there, or delete the folder to have {archive.path} read"
            )
    elif words := _fault(path, archive.md5s):
        if archive.packaged is not None and path == Path(archive.packaged.path):
            raise DataError(
                f"{path}: {words}; reinstall the package {archive.packaged.package}, or put the published file at "
                f"{archive.path} below the data root: {archive.url}"
            )
        raise DataError(f"{path}: {words}; delete it, then {archive.remedy}")


def _fault(path: Path, md5s: tuple[str, ...]) -> str:
    """Describe why a file is not the one that has one of the MD5 sums; empty if it is."""
    try:
        found, size = _md5(path), path.stat().st_size
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if found in md5s:
        return ""
    return f"found MD5 {found} ({size:,} bytes), expected {' or '.join(md5s)}: truncated or altered"


def _md5(path: Path) -> str:
    """Compute the MD5 sum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


def largest(path: Path) -> int:
    """Return the number of bytes to which a compressed file of numbers or text may expand.

    Numbers and text shrink to a fifth at best, but a file made to fill the memory shrinks to a thousandth. The constant
    allows for a short archive, which is mostly padding.
    """
    return (64 << 20) + 32 * path.stat().st_size


def check_member(path: Path, member: str) -> None:
    """Refuse an archive with a member that would lie outside the folder it is extracted to.

    Raises:
        DataError: if the member's name is absolute, or leads out of the folder by "..".
    """
    name = PurePosixPath(member.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or PureWindowsPath(member).drive:
        raise DataError(
            f"{path}: found the member {member!r}, which climbs out of the archive's folder, expected the published file; "
            "delete it and get it again"
        )


def _download(archive: Archive, path: Path) -> None:
    """Download an archive next to its place and move it there once its checksum is right."""
    # In a folder that exists already, so that a failure does not leave an empty data root.
    existing = next(folder for folder in path.absolute().parents if folder.is_dir())
    try:
        with tempfile.TemporaryDirectory(prefix=".indm-download-", dir=existing) as folder:
            fetched = _retrieve(archive, folder, path.name)
            # Only their owner can read the temporary files of pooch and gdown, but a data root may be shared.
            fetched.chmod(0o644)
            path.parent.mkdir(parents=True, exist_ok=True)
            fetched.replace(path)
    except Exception as error:  # pooch, requests and gdown each raise different errors.
        # The error at the bottom, because requests wraps it in others.
        raise DataError(
            f"{path}: missing, and its download failed "
            f"({' '.join(str(getattr((*error.args, error)[0], 'reason', error)).split())}); "
            + ("pip install 'indm[bench]', or " if getattr(error, "name", None) == "pooch" else "")
            + archive.remedy
        ) from error


def _retrieve(archive: Archive, folder: str, name: str) -> Path:
    """Download an archive to a folder and check its sum."""
    import pooch  # Imported here because it is slow to import, with requests, and only a download needs it.

    # Its message would name the temporary folder, from which the file is moved away.
    pooch.get_logger().setLevel("WARNING")
    http = pooch.HTTPDownloader(progressbar=True, chunk_size=BLOCK)
    download = http if archive.drive_id is None else partial(_from_drive, archive.drive_id)
    return Path(pooch.retrieve(archive.url, f"md5:{archive.md5}", name, folder, downloader=download))


def _from_drive(drive_id: str, _url: str, file: str, _pooch: object) -> None:
    """Download from Google Drive, for pooch."""
    import gdown

    gdown.download(id=drive_id, output=file)
