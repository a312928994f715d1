"""What a dataset is, and how its levels map to model space and to bits."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indm.data.archives import Archive
from indm.errors import DataError

if TYPE_CHECKING:
    from torch import Generator, Tensor

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Split:
    """One split of a dataset, its images in pieces, so that it may be larger than memory.

    Arguments:
        count: number of images N.
        labels: labels with shape (N,); (0,) where the dataset has none.
        pieces: starts reading the images, in order: levels, uint8, with shape (n, C, H, W) each.
    """

    count: int
    labels: NDArray[np.uint8]
    pieces: Callable[[], Iterator[NDArray[np.uint8]]]

    @classmethod
    def whole(cls, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> "Split":
        """Make a split of images that are in memory, in one piece."""
        return cls(len(images), labels, lambda: iter([images]))


Splits = dict[str, Split]
"""``train``, ``valid`` and ``test``."""


@dataclass(frozen=True)
class Dataset:
    """A registered dataset.

    Arguments:
        levels: number of levels L of a pixel; images hold 0 … L - 1.
        channels: number of channels C.
        image_size: height and width in pixels.
        classes: number of distinct labels; 0 if there are none.
        load: makes the splits from a split seed and, where there are archives, the data root as ``root``.
        source: where the images come from, for a person.
        licence: under which terms.
        official_partition: the splits are the publisher's; the split seed has no say.
        archives: the files it is read from, if no other package brings it.
    """

    levels: int
    channels: int
    image_size: int
    classes: int
    load: Callable[..., Splits]
    source: str
    licence: str
    official_partition: bool = False
    archives: tuple[Archive, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image (C, H, W)."""
        return self.channels, self.image_size, self.image_size

    @property
    def dims(self) -> int:
        """Number of dimensions D = C H W."""
        return self.channels * self.image_size**2

    def check(self, splits: Splits) -> None:
        """Check what is known before any image is read: the counts and the labels.

        ``valid`` may be empty: some datasets, such as CIFAR-10, have no official one.

        Raises:
            DataError: if ``train`` or ``test`` is empty, or the labels are not as declared.
        """
        for name in SPLITS:
            count, labels = splits[name].count, splits[name].labels
            if count == 0 and name != "valid":
                raise DataError(f"{name}: found no image, expected at least one; only valid may be empty")
            if len(labels) != (count if self.classes else 0):
                expected = f"{count}, one an image" if self.classes else "none"
                raise DataError(f"{name}: found {len(labels)} labels, expected {expected}")
            if len(labels) and labels.max() >= self.classes:
                raise DataError(f"{name}: found label {labels.max()}, expected below {self.classes}")

    def read(self, name: str, split: Split) -> Iterator[NDArray[np.uint8]]:
        """Read the images of split ``name``, each piece checked against the declared shape and levels.

        Raises:
            DataError: if a piece has another shape, type or level, or their sum is not the split's count.
        """
        count = 0
        for piece in split.pieces():
            expected = (len(piece), *self.shape)
            if piece.shape != expected or piece.dtype != np.uint8:
                raise DataError(f"{name} images: found {piece.dtype} {piece.shape}, expected uint8 {expected}")
            if piece.size and piece.max() >= self.levels:
                raise DataError(f"{name}: found level {piece.max()}, expected below {self.levels}")
            count += len(piece)
            yield piece
        if count != split.count:
            raise DataError(f"{name}: found {count} images, expected {split.count}")


def dequantise(images: "Tensor", levels: int, generator: "Generator", centered: bool = True) -> "Tensor":
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
    # Imported here: the registry of datasets is read where torch is not needed.
    import torch

    cells = images + torch.rand(images.shape, generator=generator)
    return cells.mul(2 / levels).sub(1) if centered else cells / levels


def moments(images: "Tensor", levels: int, centered: bool = True) -> tuple[float, float]:
    r"""Mean and standard deviation of all pixels of dequantised images, exactly: the noise is averaged over.

    .. math:: m = 2\,\frac{\bar\xi + 1/2}{L} - 1, \qquad d^2 = \frac4{L^2}\Big(\mathrm{Var}\,\xi + \frac1{12}\Big)

    or :math:`(m + 1)/2` and :math:`d/2` where not ``centered``; see :func:`dequantise`.

    Arguments:
        images: levels :math:`\xi`, uint8, any shape.
        levels: number of levels :math:`L`.
        centered: whether model space is [-1, 1], else [0, 1].
    """
    # Imported here: the registry of datasets is read where torch is not needed.
    import torch

    counts = torch.bincount(images.flatten(), minlength=levels).double()
    level = torch.arange(levels, dtype=torch.float64)
    mean = (counts @ level / counts.sum()).item()
    variance = (counts @ (level - mean).square() / counts.sum()).item()
    width = 2 / levels if centered else 1 / levels
    return width * (mean + 0.5) - (1 if centered else 0), width * math.sqrt(variance + 1 / 12)


def quantise(x: "Tensor", levels: int, centered: bool = True) -> "Tensor":
    r"""Map model-space images to the level whose cell they lie in, clipped; uint8; undoes :func:`dequantise`."""
    cells = (x + 1) * (levels / 2) if centered else x * levels
    return cells.floor().clamp(0, levels - 1).byte()


def to_uint8(images: NDArray[np.uint8], levels: int) -> NDArray[np.uint8]:
    """Spread levels 0 … L - 1 over 0 … 255 and grey over three channels: what viewers and feature extractors take."""
    spread = np.rint(images * (255.0 / (levels - 1))).astype(np.uint8)
    return spread if spread.shape[1] == 3 else np.repeat(spread, 3, axis=1)


def to_pixels(x: "Tensor", levels: int, centered: bool = True) -> "Tensor":
    r"""Map model-space images (N, C, H, W) to 0 … 255 without rounding, clipped, and grey over three channels.

    .. math:: 255\,\frac{\xi - 1/2}{L - 1}, \qquad \xi = L\,\frac{x + 1}{2} \;\text{or}\; L x

    The middle of a level's cell goes where :func:`to_uint8` puts the level.
    """
    cells = (x + 1) * (levels / 2) if centered else x * levels
    pixels = ((cells - 0.5) * (255 / (levels - 1))).clamp(0, 255)
    return pixels if pixels.shape[1] == 3 else pixels.repeat(1, 3, 1, 1)


def bits_per_dim(nats: "Tensor", dims: int, levels: int, centered: bool = True) -> "Tensor":
    r"""Convert nats per image in model space to bits per dimension of the levels.

    .. math:: \mathrm{bpd} = \frac{\mathrm{nats}}{D \ln 2} + \log_2 L - 1

    The last terms undo the scaling to [-1, 1]; for 256 levels they are the released code's "7". For data in [0, 1], not
    ``centered``, there is no -1.
    """
    return nats / (dims * math.log(2)) + math.log2(levels) - (1 if centered else 0)
