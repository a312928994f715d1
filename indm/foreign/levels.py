"""Images of others as levels of pixels, and their continuous data."""

from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from indm.arguments import Range, check_number
from indm.errors import DataError

LEVELS = Range(Integral, 2, 2**16)
# A set of images with so many pixels for each level has more levels than an eighth.
PIXELS_PER_LEVEL = 4
# Numbers of which each different one is there so often are levels, and have no density.
NUMBERS_PER_VALUE = 16


def as_levels(images: Tensor | ArrayLike, levels: int) -> Tensor:
    """Return images (N, *) as a tensor of levels, uint8, or int32 for more than 256 levels, on the CPU.

    Raises:
        DataError: if they are not whole numbers from 0 to L - 1, are fewer than two, or have their channels last.
        ParamsError: if the number of levels is not a whole number from 2 to 65,536.
    """
    check_number("levels", levels, LEVELS)
    found = _array(images)
    _check_shape(found, "(N, C, H, W)")
    if found.dtype.kind not in "ui":
        ends = f" from {found.min():g} to {found.max():g}" if found.dtype.kind == "f" else ""
        raise DataError(
            f"images: found {found.dtype}{ends}, expected levels, whole numbers from 0 to {levels - 1}; leave scaling and "
            "dequantisation to the referee"
        )
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= levels:
        raise DataError(
            f"images: found levels from {low} to {high}, expected 0 to {levels - 1}; give the number of levels, at most "
            f"{LEVELS.most}"
        )
    return torch.from_numpy(found.astype(np.uint8 if levels <= 256 else np.int32))


def as_continuous(data: Tensor | ArrayLike) -> Tensor:
    """Return data (N, *) with a density as a tensor, float32, on the CPU.

    Raises:
        DataError: if they are not finite floating-point numbers, are fewer than two, have their channels last, or have so few
            different values that they are levels.
    """
    found = _array(data)
    _check_shape(found, "(N, *)")
    if found.dtype.kind != "f":
        raise DataError(
            f"images: found {found.dtype} with levels=None, expected floating-point numbers, as the network's data are; give the "
            "number of levels of whole numbers"
        )
    if not np.isfinite(found).all():
        raise DataError("images: found numbers that are not finite, expected finite ones")
    if (count := len(np.unique(found))) * NUMBERS_PER_VALUE <= found.size:
        raise DataError(
            f"images: found {count} different values among {found.size} numbers, which are levels and have no density; expected "
            "continuous data, or levels as whole numbers and how many there are"
        )
    return torch.from_numpy(found.astype(np.float32))


def _check_shape(found: NDArray[Any], expected: str) -> None:
    """Refuse fewer than two samples, empty ones, and images and volumes with their channels last."""
    channels_last = found.ndim in (4, 5) and found.shape[-1] in (1, 3) and found.shape[1] not in (1, 3)
    if found.ndim < 2 or len(found) < 2 or not found[0].size or channels_last:
        raise DataError(f"images: found shape {found.shape}, expected {expected}, N at least 2, channels first")


def _array(images: Tensor | ArrayLike) -> NDArray[Any]:
    """Return a tensor, an array or lists of numbers as an array."""
    found: NDArray[Any] | None
    try:
        # Unlike np.asarray, it keeps masks.
        found = np.ma.asarray(images.detach().cpu() if isinstance(images, Tensor) else images)
    except (TypeError, ValueError, NotImplementedError, RuntimeError):
        found = None
    if found is None or found.dtype.kind not in "bifuc":
        raise DataError(
            f"images: found {type(images).__name__} without numbers, expected a tensor or an array of levels"
        )
    if np.ma.is_masked(found):
        raise DataError("images: found masked pixels, which have no level; expected whole numbers everywhere")
    return np.asarray(found)


def check_count(pixels: Tensor, levels: int) -> None:
    """Refuse images with far fewer levels than stated, on which bits/dim depend.

    Arguments:
        pixels: images as levels, shape (N, *).
        levels: the stated number of levels.

    Raises:
        DataError: if there are at most an eighth, although there are four pixels or more for each level.
    """
    count = len(pixels.unique())
    if count <= levels // 8 and pixels.numel() >= PIXELS_PER_LEVEL * levels:
        raise DataError(
            f"images: found {count} different levels from {pixels.min()} to {pixels.max()}, expected up to {levels}; give the "
            "number of levels of the images, because bits/dim depend on it"
        )
