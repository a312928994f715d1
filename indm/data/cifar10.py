"""CIFAR-10: 60,000 colour photographs of ten classes, 32x32, from the published archive of Python pickles, or its folder."""

import gzip
import hashlib
import io
import pickle
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indm.data.archives import Archive, Unpacked, check_member, obtain
from indm.data.dataset import Split, Splits
from indm.errors import DataError

SIZE = 32
CLASSES = 10
FOLDER = "cifar-10-batches-py"


@dataclass(frozen=True)
class CIFAR10Release:
    """An edition of CIFAR-10: the archive and the MD5 sums of its batches."""

    archive: Archive
    train: Mapping[str, str] = field(hash=False)
    test: Mapping[str, str] = field(hash=False)
    batch_images: int = 10_000

    @property
    def batches(self) -> dict[str, str]:
        """MD5 sum of each batch, by its name."""
        return {**self.train, **self.test}

    @property
    def source(self) -> Archive:
        """The archive, with the folder that may take its place."""
        return replace(self.archive, unpacked=Unpacked(FOLDER, self.batches))

    @property
    def largest(self) -> int:
        """Number of bytes to which the archive may expand: 4 KiB for pixels, name and label of each image, and a readme."""
        return len(self.batches) * self.batch_images * 4096 + (1 << 20)


# A test compares the sums with torchvision.datasets.CIFAR10.
RELEASE = CIFAR10Release(
    archive=Archive(
        path="cifar-10-python.tar.gz",
        md5="c58f30108f718f92721af3b95e74349a",
        size="170 MB",
        url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    ),
    train={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test={"test_batch": "40351d587109b95175f43aff81a1287e"},
)


@dataclass(frozen=True)
class Batch:
    """The n images of one file of the release.

    Arguments:
        images: levels 0 … 255, uint8, shape (n, 3, 32, 32).
        labels: their classes, 0 … 9, uint8, shape (n,).
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def load_cifar10(split_seed: int, root: Path | None = None, release: CIFAR10Release = RELEASE) -> Splits:
    """Load CIFAR-10 in its official partition: 50,000 images for training, 10,000 for testing, 0 for validation.

    The folder ``cifar-10-batches-py`` and the archive are looked for below the data root, in this order, and the archive is
    downloaded there if both are missing. Checksums are checked before a file is opened, and each batch's checksum before
    the batch is parsed. The images take 184 MB of memory. ``split_seed`` has no effect.

    Raises:
        DataError: if the archive is missing and cannot be downloaded, or if it, or a file in the folder, is damaged or
            another file.

    References:
        | Learning Multiple Layers of Features from Tiny Images (Krizhevsky, 2009),
        | https://www.cs.toronto.edu/~kriz/cifar.html
    """
    path = obtain(release.source, root)
    batches = _read_folder(path, release) if path.is_dir() else _read_archive(path, release)
    train, test = (_join([batches[name] for name in names]) for names in (release.train, release.test))
    return {"train": train, "valid": train.part(0, 0), "test": test}


def _join(batches: list[Batch]) -> Split:
    labels = np.concatenate([batch.labels for batch in batches])
    return Split(len(labels), labels, lambda: (batch.images for batch in batches))


def _read_folder(path: Path, release: CIFAR10Release) -> dict[str, Batch]:
    """Read the batches from the folder that the archive unpacks to."""
    files = {name: path / name for name in release.batches}
    return {name: parse_batch(file.read_bytes(), str(file), release.batch_images) for name, file in files.items()}


def _read_archive(path: Path, release: CIFAR10Release) -> dict[str, Batch]:
    """Read the batches in one pass over the archive, without extracting it."""
    sums = {f"{FOLDER}/{name}": md5 for name, md5 in release.batches.items()}
    batches = {}
    try:
        with _Bounded(path, release.largest) as file, tarfile.open(fileobj=file, mode="r|") as archive:
            for member in archive:
                check_member(path, member.name)
                batch = archive.extractfile(member) if _is_batch(member, sums) else None
                if batch is not None:
                    place = f"{path}, member {member.name}"
                    content = _checked(batch.read(), sums[member.name], place)
                    batches[member.name.removeprefix(f"{FOLDER}/")] = parse_batch(content, place, release.batch_images)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{path}: found a truncated or damaged archive ({error}), expected a whole tar.gz; delete it, then "
            f"{release.source.remedy}"
        ) from error
    missing = [name for name in release.batches if name not in batches]
    if missing:
        raise DataError(f"{path}: found no member {FOLDER}/{missing[0]}; delete it, then {release.source.remedy}")
    return batches


def _is_batch(member: tarfile.TarInfo, sums: Mapping[str, str]) -> bool:
    """Return whether a member is one of the batches; a sparse file is not, because its zeros might fill the memory."""
    return member.name in sums and member.isreg() and not member.issparse()


class _Bounded(gzip.GzipFile):
    """The decompressed content of a file, read once and up to a limit, because gzip can expand a few bytes to gigabytes."""

    def __init__(self, path: Path, limit: int) -> None:
        super().__init__(path, "rb")
        self.limit = limit

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(size)
        if self.tell() > self.limit:
            raise OSError(f"it expands to more than {self.limit:,} bytes")
        return content


def _checked(content: bytes, md5: str, place: str) -> bytes:
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise DataError(f"{place}: found MD5 {found}, expected {md5}; delete the archive and get it again")
    return content


def parse_batch(content: bytes, place: str, images: int) -> Batch:
    """Parse the pickle of a batch without executing anything in it.

    Arguments:
        content: the pickle: a dict of ``data``, levels 0 … 255, uint8 with shape (n, 3072), and ``labels``, n integers.
        place: name of the batch in error messages.
        images: number of images n expected.

    Returns:
        Images with shape (n, 3, 32, 32), because each row of ``data`` has the channels one after another, each row by row.

    Raises:
        DataError: if it holds more than plain values and arrays of numbers, or is not such a dict.
    """
    try:
        entry = _PlainUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # A hostile or damaged pickle can make the unpickler raise anything.
        raise DataError(
            f"{place}: found a pickle that was refused without executing it ({error}), expected plain values and arrays; "
            "delete the archive and get it again"
        ) from error
    data, labels = (entry.get(key) for key in (b"data", b"labels")) if isinstance(entry, dict) else (None, None)
    shape = (images, 3 * SIZE**2)
    if not isinstance(data, np.ndarray) or data.shape != shape or data.dtype != np.uint8:
        raise DataError(
            f"{place}: found data {_describe(data)}, expected uint8 {shape}; delete the archive and get it again"
        )
    if not _are_labels(labels, images):
        raise DataError(
            f"{place}: found labels {_describe(labels)}, expected {images} integers below {CLASSES}; "
            "delete the archive and get it again"
        )
    return Batch(data.reshape(images, 3, SIZE, SIZE), np.array(labels, dtype=np.uint8))


def _are_labels(labels: object, count: int) -> bool:
    right_length = isinstance(labels, list) and len(labels) == count
    return right_length and all(type(label) is int and 0 <= label < CLASSES for label in labels)  # type: ignore[attr-defined]


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, list) else type(value).__name__


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler for plain values and arrays of numbers, which resolves only the three names that these need.

    References:
        | Python documentation, pickle: Restricting Globals,
        | https://docs.python.org/3/library/pickle.html#restricting-globals
    """

    def find_class(self, module: str, name: str) -> Callable[..., Any] | type:
        """Return the object of a module and name, if a pickle may use it."""
        match module, name:
            case ("numpy.core.multiarray", "_reconstruct") | ("numpy", "ndarray"):
                # It makes the array whose state follows, so that the arguments do not matter. A new function each time,
                # so that one pickle cannot change it for the next.
                return lambda *_: np.empty(0, np.uint8)
            case "numpy", "dtype":
                return np.dtype
        raise pickle.UnpicklingError(f"it names {module}.{name}")
