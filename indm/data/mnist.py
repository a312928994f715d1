"""MNIST and Fashion-MNIST: 70,000 grey images of ten classes, 28x28, from the published files in the idx format."""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indm.data.archives import Archive, obtain
from indm.data.dataset import Split, Splits
from indm.errors import DataError

SIZE = 28
CLASSES = 10
# The format's name for unsigned bytes; the number of dimensions follows it.
UNSIGNED_BYTES = 0x0800
LABELS, IMAGES = 1, 3


@dataclass(frozen=True)
class Half:
    """The training or the test half of a release: images and their labels."""

    images: Archive
    labels: Archive
    count: int


@dataclass(frozen=True)
class IdxRelease:
    """An edition of a dataset in the idx format.

    Arguments:
        train: the training half.
        test: the test half.
    """

    train: Half
    test: Half

    @property
    def counts(self) -> dict[str, int]:
        """The number of images of each split."""
        return {"train": self.train.count, "valid": 0, "test": self.test.count}

    @property
    def archives(self) -> tuple[Archive, ...]:
        """The four files."""
        return self.train.images, self.train.labels, self.test.images, self.test.labels


def load_mnist(split_seed: int, root: Path | None = None, *, release: IdxRelease) -> Splits:
    """Load a release: the training and the test half, and no images for validation.

    The files are looked for below the data root, then where a package has installed them, and downloaded otherwise. The
    checksum of each is checked before it is opened. Images are not padded, so that each has 784 dimensions.
    ``split_seed`` has no effect.

    Raises:
        DataError: if a file is missing and cannot be downloaded, is damaged, or is another file.

    References:
        | Gradient-based learning applied to document recognition (LeCun et al., 1998), https://doi.org/10.1109/5.726791
        | Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms (Xiao, Rasul and Vollgraf, 2017),
        | https://arxiv.org/abs/1708.07747
    """
    train = Split.whole(*_read(release.train, root))
    return {"train": train, "valid": train.part(0, 0), "test": Split.whole(*_read(release.test, root))}


def _read(half: Half, root: Path | None) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read images (N, 1, 28, 28) and labels (N,)."""
    images = read_idx(obtain(half.images, root), (half.count, SIZE, SIZE), half.images)
    return images[:, None], read_idx(obtain(half.labels, root), (half.count,), half.labels)


def read_idx(path: Path, shape: tuple[int, ...], archive: Archive) -> NDArray[np.uint8]:
    """Read an array of unsigned bytes from a compressed file: a magic number, the sizes as big-endian integers, the bytes.

    Arguments:
        path: the file.
        shape: the expected shape of the array, (N, H, W) for images and (N,) for labels.
        archive: names the remedy in error messages.

    Returns:
        Levels 0 … 255, or labels, uint8, with this shape; read-only.

    Raises:
        DataError: if the file is truncated or damaged, or holds another array.

    References:
        | The MNIST database of handwritten digits, section "File formats", http://yann.lecun.com/exdb/mnist/
    """
    expected, wanted = [UNSIGNED_BYTES + len(shape), *shape], int(np.prod(shape))
    size = 4 * len(expected)
    try:
        with gzip.open(path) as file:
            # At most one byte more than expected, because gzip can expand a few bytes to gigabytes.
            content = file.read(size + wanted + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{path}: found a truncated or damaged file ({error}), expected a whole .gz; delete it, then {archive.remedy}"
        ) from error
    header = np.frombuffer(content[:size].ljust(size, b"\0"), ">u4").tolist()
    found = max(len(content) - size, 0)
    if header != expected or found != wanted:
        counted = f"{found:,}" if found <= wanted else f"more than {wanted:,}"
        raise DataError(
            f"{path}: found {_describe(header)}, {counted} bytes after it; expected {_describe(expected)}, {wanted:,} bytes: "
            f"truncated, or another file; delete it, then {archive.remedy}"
        )
    return np.frombuffer(content, np.uint8, offset=size).reshape(shape)


def _describe(header: list[int]) -> str:
    magic, *sizes = header
    kind = {UNSIGNED_BYTES + LABELS: "labels", UNSIGNED_BYTES + IMAGES: "images"}.get(
        magic, "neither labels nor images"
    )
    return f"the magic number {magic} ({kind}) and the sizes {', '.join(map(str, sizes))}"
