"""Images of others as levels of pixels."""

from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from indm.arguments import Range, check_number
from indm.errors import DataError

LEVELS = Range(Integral, 2, 256)
# A set of images with so many pixels for each level has more levels than an eighth.
PIXELS_PER_LEVEL = 4


def as_levels(images: Tensor | ArrayLike, levels: int) -> Tensor:
    """Return images (N, *) as a tensor of levels, uint8, on the CPU.

    Raises:
        DataError: if they are not whole numbers from 0 to L - 1, are fewer than two, or have their channels last.
        ParamsError: if the number of levels is not a whole number from 2 to 256.
    """
    check_number("levels", levels, LEVELS)
    found = _array(images)
    channels_last = found.ndim == 4 and found.shape[3] in (1, 3) and found.shape[1] not in (1, 3)
    if found.ndim < 2 or len(found) < 2 or not found[0].size or channels_last:
        raise DataError(f"images: found shape {found.shape}, expected (N, C, H, W), N at least 2")
    if found.dtype.kind not in "ui":
        ends = f" from {found.min():g} to {found.max():g}" if found.dtype.kind == "f" else ""
        raise DataError(
            f"images: found {found.dtype}{ends}, expected levels, whole numbers from 0 to {levels - 1}; leave scaling and "
            "dequantisation to the referee"
        )
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= levels:
        raise DataError(
            f"images: found levels from {low} to {high}, expected 0 to {levels - 1}; give the number of levels, at most 256"
        )
    return torch.from_numpy(found.astype(np.uint8))


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
