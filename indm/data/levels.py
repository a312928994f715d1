"""Maps between the levels of an image, model space, pixels and bits."""

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Generator, Tensor

Rounding = Literal["nearest", "floor"]
"""How model-space values are rounded to levels; see :func:`quantise`."""


def dequantise(images: "Tensor", levels: int, generator: "Generator", centered: bool = True) -> "Tensor":
    r"""Dequantise levels uniformly and scale them to [-1, 1], or to [0, 1] where not ``centered``.

    .. math:: x = 2\,\frac{\xi + u}{L} - 1 \quad\text{or}\quad \frac{\xi + u}{L}, \qquad u \sim U[0, 1)

    Arguments:
        images: levels :math:`\xi` in 0 … L - 1, uint8, any shape.
        levels: number of levels :math:`L`.
        generator: source of the noise, on the images' device.
        centered: scale to [-1, 1], as the released VP models do; otherwise to [0, 1], as the released VE models do.

    Returns:
        Model-space images, which have no unit, float32, the same shape.

    References:
        | A Note on the Evaluation of Generative Models (Theis et al., 2016), https://arxiv.org/abs/1511.01844, section 3.1
    """
    # Imported here because the registry of datasets is also read without torch.
    import torch

    return dequantise_by(images, torch.rand(images.shape, generator=generator, device=images.device), levels, centered)


def dequantise_by(images: "Tensor", noise: "Tensor", levels: int, centered: bool = True) -> "Tensor":
    """Dequantise as :func:`dequantise` does, with given noise.

    Arguments:
        images: levels 0 … L - 1, uint8, any shape.
        noise: u, draws from U[0, 1), float32, the same shape.
        levels: number of levels L.
        centered: see :func:`dequantise`.

    Returns:
        Model-space images, which have no unit, float32, the same shape.
    """
    cells = images + noise
    return cells.mul(2 / levels).sub(1) if centered else cells / levels


def moments(images: "Tensor", levels: int, centered: bool = True) -> tuple[float, float]:
    r"""Return mean and standard deviation over all pixels of dequantised images, with the noise integrated out.

    .. math:: m = 2\,\frac{\bar\xi + 1/2}{L} - 1, \qquad d^2 = \frac4{L^2}\Big(\mathrm{Var}\,\xi + \frac1{12}\Big)

    or :math:`(m + 1)/2` and :math:`d/2` if not ``centered``; see :func:`dequantise`.

    Arguments:
        images: levels :math:`\xi` in 0 … L - 1, uint8, any shape.
        levels: number of levels :math:`L`.
        centered: whether model space is [-1, 1]; otherwise it is [0, 1].

    Returns:
        m and d in model space, which have no unit.
    """
    # Imported here because the registry of datasets is also read without torch.
    import torch

    counts = torch.bincount(images.flatten(), minlength=levels).double()
    level = torch.arange(levels, dtype=torch.float64)
    mean = (counts @ level / counts.sum()).item()
    variance = (counts @ (level - mean).square() / counts.sum()).item()
    width = 2 / levels if centered else 1 / levels
    return width * (mean + 0.5) - (1 if centered else 0), width * math.sqrt(variance + 1 / 12)


def quantise(x: "Tensor", levels: int, centered: bool = True, rounding: Rounding = "nearest") -> "Tensor":
    r"""Map model-space images to levels, clipped to 0 … L - 1, as uint8.

    .. math::
        \xi = \lfloor L y \rfloor \;\text{(nearest)} \quad\text{or}\quad \lfloor (L - 1) y \rfloor \;\text{(floor)}, \qquad
        y = \frac{x + 1}{2} \;\text{or}\; x

    ``nearest`` takes the level with the nearest cell centre and inverts :func:`dequantise`. ``floor`` follows the released
    code (``sampling_lib.py``: times 255, then truncated), which maps the share :math:`\xi/(L - 1)` of the cell of
    :math:`\xi` to the level below, so that images become darker by up to one level.

    Arguments:
        x: images in model space, any shape.
        levels: number of levels :math:`L`.
        centered: whether model space is [-1, 1]; otherwise it is [0, 1].
        rounding: ``nearest`` or ``floor``.

    Returns:
        Levels 0 … L - 1, uint8, the same shape.
    """
    factor = levels if rounding == "nearest" else levels - 1
    cells = (x + 1) * (factor / 2) if centered else x * factor
    return cells.floor().clamp(0, levels - 1).byte()


def to_uint8(images: NDArray[np.uint8], levels: int) -> NDArray[np.uint8]:
    r"""Spread levels 0 … L - 1 over 0 … 255 and grey over three channels, as viewers and feature extractors expect.

    .. math:: \mathrm{round}\Big(\frac{255\,\xi}{L - 1}\Big)

    Arguments:
        images: levels :math:`\xi`, uint8, shape (N, C, H, W), C = 1 or 3.
        levels: number of levels :math:`L`.

    Returns:
        Levels 0 … 255, uint8, shape (N, 3, H, W).
    """
    spread = np.rint(images * (255.0 / (levels - 1))).astype(np.uint8)
    return spread if spread.shape[1] == 3 else np.repeat(spread, 3, axis=1)


def to_pixels(x: "Tensor", levels: int, centered: bool = True) -> "Tensor":
    r"""Map model-space images to 0 … 255 without rounding, clipped, and grey to three channels.

    .. math:: 255\,\frac{\xi - 1/2}{L - 1}, \qquad \xi = L\,\frac{x + 1}{2} \;\text{or}\; L x

    The centre of a level's cell maps to :math:`255\,\xi/(L - 1)` for this level, which :func:`to_uint8` rounds.

    Arguments:
        x: images in model space, shape (N, C, H, W), C = 1 or 3.
        levels: number of levels :math:`L`.
        centered: whether model space is [-1, 1]; otherwise it is [0, 1].

    Returns:
        Pixels 0 … 255, in the type of x, shape (N, 3, H, W).
    """
    cells = (x + 1) * (levels / 2) if centered else x * levels
    pixels = ((cells - 0.5) * (255 / (levels - 1))).clamp(0, 255)
    return pixels if pixels.shape[1] == 3 else pixels.repeat(1, 3, 1, 1)


def bits_per_dim(nats: "Tensor", dims: int, levels: int, centered: bool = True) -> "Tensor":
    r"""Convert nats per image in model space to bits per dimension of the levels.

    .. math:: \mathrm{bpd} = \frac{\mathrm{nats}}{D \ln 2} + \log_2 L - 1

    The last terms undo the scaling to [-1, 1]; for 256 levels they are the released code's "7". For data in [0, 1] (not
    ``centered``) the -1 is dropped.

    Arguments:
        nats: negative log-likelihoods of dequantised images, or bounds of them, in nats per image, any shape.
        dims: number of dimensions D = C H W of an image.
        levels: number of levels L.
        centered: whether model space is [-1, 1]; otherwise it is [0, 1].

    Returns:
        Bits/dim, the same shape.

    References:
        | A Note on the Evaluation of Generative Models (Theis et al., 2016), https://arxiv.org/abs/1511.01844, section 3.1
    """
    return nats / (dims * math.log(2)) + math.log2(levels) - (1 if centered else 0)
