"""Published reference statistics: an .npz of features or of their mean and covariance."""

import hashlib
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from indm.data.archives import data_root, largest
from indm.errors import DataError
from indm.metrics.frechet import Reference

FEATURES = "pool_3"


def read_published_statistics(name: str, sha256: str, dims: int) -> Reference:
    """Read published statistics after checking their sha256, without executing any content.

    Arguments:
        name: path of the file, relative to the data root.
        sha256: sha256 that the suite expects.
        dims: number of features F.

    Returns:
        The reference: features, shape (M, F), or only the statistics if the file has no features.

    Raises:
        DataError: if the file is missing, has another sha256, or holds neither ``pool_3`` (M, F) nor ``mu`` (F,) and
            ``sigma`` (F, F).
    """
    path = data_root() / name
    check_statistics(path, sha256)
    return _reference(path, _arrays(path), dims)


def check_statistics(path: Path, sha256: str) -> None:
    """Check the sha256 of a file of published statistics.

    Raises:
        DataError: if the file is missing or has another sha256.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); expected the statistics named by the key "
            "reference.<dataset>.published_statistics; put them there, or set the key to null"
        ) from None
    if found != sha256:
        raise DataError(
            f"{path}: found sha256 {found}, expected {sha256}; damaged or another file: get it again, or correct the suite"
        )


def _arrays(path: Path) -> dict[str, NDArray[np.floating]]:
    """Read the arrays that a reference needs from the file."""
    try:
        _check_sizes(path)
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in (FEATURES, "mu", "sigma") if key in file.files}
    except (
        ValueError,
        KeyError,
        EOFError,
        OSError,
        TypeError,
        AttributeError,
        MemoryError,  # An array whose header promises more than the memory.
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: found no .npz of plain arrays ({reason}); expected {_expected()}") from None


def _check_sizes(path: Path) -> None:
    """Refuse a file whose arrays would fill the memory, because they are read whole."""
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > largest(path):
        raise ValueError(f"it expands to {size:,} bytes")


def _expected(dims: int | str = "F") -> str:
    return f"floating-point {FEATURES} (M, {dims}), or mu ({dims},) and sigma ({dims}, {dims}), all finite"


def _reference(path: Path, arrays: dict[str, NDArray[np.floating]], dims: int) -> Reference:
    """Make a reference from the features if the file has them, otherwise from the statistics."""
    shapes = {key: value.shape for key, value in arrays.items()}
    sound = all(value.dtype.kind == "f" and np.isfinite(value).all() for value in arrays.values())
    if sound and FEATURES in shapes and len(shapes[FEATURES]) == 2 and shapes[FEATURES][1] == dims:
        return Reference.of(torch.from_numpy(arrays[FEATURES]))
    if sound and shapes == {"mu": (dims,), "sigma": (dims, dims)}:
        return Reference({key: value.astype(np.float64) for key, value in arrays.items()}, None)
    found = ", ".join(f"{key} {arrays[key].dtype} {shape}" for key, shape in shapes.items()) or "none of these arrays"
    raise DataError(f"{path}: found {found}; expected {_expected(dims)}")
