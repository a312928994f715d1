"""What a dataset is, and how its levels map to model space and to bits."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from indm.errors import DataError

Arrays = dict[str, NDArray[np.uint8]]
"""``train``, ``valid`` and ``test`` images (N, C, H, W) as levels, and ``train_labels``, … (N,)."""

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Dataset:
    """A registered dataset.

    Arguments:
        levels: number of levels L of a pixel; images hold 0 … L - 1.
        channels: number of channels C.
        image_size: height and width in pixels.
        classes: number of distinct labels.
        load: makes the arrays from a split seed.
        source: where the images come from, for a person.
        licence: under which terms.
    """

    levels: int
    channels: int
    image_size: int
    classes: int
    load: Callable[[int], Arrays]
    source: str
    licence: str

    @property
    def dims(self) -> int:
        """Number of dimensions D = C H W."""
        return self.channels * self.image_size**2

    def check(self, arrays: Arrays) -> None:
        """Check the arrays against the declared shape, levels and labels.

        Raises:
            DataError: if a split has another shape, type, level or label than declared.
        """
        for split in SPLITS:
            images, labels = arrays[split], arrays[f"{split}_labels"]
            shape = (len(labels), self.channels, self.image_size, self.image_size)
            if images.shape != shape or images.dtype != np.uint8 or len(images) == 0:
                raise DataError(
                    f"{split} images: found {images.dtype} {images.shape}, expected uint8 {shape}, not empty"
                )
            if images.max() >= self.levels or labels.max() >= self.classes:
                found = f"level {images.max()} and label {labels.max()}"
                raise DataError(f"{split}: found {found}, expected below {self.levels} and {self.classes}")


def dequantise(images: Tensor, levels: int, generator: Generator, centered: bool = True) -> Tensor:
    r"""Dequantise levels uniformly and scale them to [-1, 1], or to [0, 1] where not ``centered``.

    .. math:: x = 2\,\frac{\xi + u}{L} - 1 \quad\text{or}\quad \frac{\xi + u}{L}, \qquad u \sim U[0, 1)

    Arguments:
        images: levels :math:`\xi`, uint8, any shape.
        levels: number of levels :math:`L`.
        generator: source of the noise, on the CPU.
        centered: scale to [-1, 1], as the released VP models do; else to [0, 1], as its VE models do.

    Returns:
        Model-space images, float32, the same shape.

    References:
        | A Note on the Evaluation of Generative Models (Theis et al., 2016), https://arxiv.org/abs/1511.01844, section 3.1
    """
    cells = images + torch.rand(images.shape, generator=generator)
    return cells.mul(2 / levels).sub(1) if centered else cells / levels


def quantise(x: Tensor, levels: int, centered: bool = True) -> Tensor:
    r"""Map model-space images to the level whose cell they lie in, clipped; uint8; undoes :func:`dequantise`."""
    cells = (x + 1) * (levels / 2) if centered else x * levels
    return cells.floor().clamp(0, levels - 1).to(torch.uint8)


def to_uint8(images: NDArray[np.uint8], levels: int) -> NDArray[np.uint8]:
    """Spread levels 0 … L - 1 over 0 … 255 and grey over three channels: what viewers and feature extractors take."""
    spread = np.rint(images * (255.0 / (levels - 1))).astype(np.uint8)
    return spread if spread.shape[1] == 3 else np.repeat(spread, 3, axis=1)


def bits_per_dim(nats: Tensor, dims: int, levels: int, centered: bool = True) -> Tensor:
    r"""Convert nats per image in model space to bits per dimension of the levels.

    .. math:: \mathrm{bpd} = \frac{\mathrm{nats}}{D \ln 2} + \log_2 L - 1

    The last terms undo the scaling to [-1, 1]; for 256 levels they are the released code's "7". For data in [0, 1], not
    ``centered``, there is no -1.
    """
    return nats / (dims * math.log(2)) + math.log2(levels) - (1 if centered else 0)
