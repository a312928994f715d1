r"""Decoders that give every level of a pixel a probability, so that a bound is a code length without dequantisation.

Both decode the levels :math:`\xi` of an image from noisy levels :math:`z = \alpha x_\xi + \sigma\epsilon`, dimension by dimension,
where :math:`x_v` is the place of level v in data (:func:`places`):

- DDPM integrates a Gaussian around a clean image over the cell of each level, whose ends are half way to its neighbours; the
  first and the last cell are open:

  .. math:: p(v \mid z) = \int_{\delta_-(v)}^{\delta_+(v)} \mathcal N(x;\, \hat x_\theta(z),\, s^2)\, \mathrm dx

- VDM weighs the levels by the density of z, without the network:

  .. math:: p(v \mid z) = \frac{\mathcal N(z;\, \alpha x_v, \sigma^2)}{\sum_u \mathcal N(z;\, \alpha x_u, \sigma^2)}

References:
    | Denoising Diffusion Probabilistic Models (Ho et al., 2020), https://arxiv.org/abs/2006.11239, section 3.3, equation 13
    | Variational Diffusion Models (Kingma et al., 2021), https://arxiv.org/abs/2107.00630, the decoder p(x | z_0)
"""

import math

import torch
from torch import Tensor
from torch.special import log_ndtr

from indm.foreign.kinds import Grid

# The largest number of levels whose densities are all computed for each pixel.
MOST_LEVELS = 256


def places(level: Tensor, levels: int, grid: Grid) -> Tensor:
    r"""Return the places of levels in data of the range [0, 1], of the shape and type of ``level``, which has no unit.

    .. math:: x_v = \frac{v}{L - 1} \;\text{(ends, as DDPM)} \quad\text{or}\quad
        x_v = \frac{v + 1/2}{L} \;\text{(centres, as VDM, and as the cells of dequantised levels)}
    """
    return level.div(levels - 1) if grid == "ends" else (level + 0.5) / levels


def ddpm_log_prob(pixels: Tensor, mean: Tensor, std: float | Tensor, grid: Tensor) -> Tensor:
    """Return the log-probability of levels under DDPM's decoder, in nats, of the shape (B, *), float64.

    Arguments:
        pixels: levels, whole numbers from 0 to L - 1, shape (B, *).
        mean: the clean image that the network estimates, shape (B, *).
        std: standard deviation s of the Gaussian, a number or of the shape (B, *).
        grid: places of the levels, shape (L,), float64.
    """
    width, level = grid[1] - grid[0], pixels.long()
    apart = grid[level] - mean.double()
    low = ((apart - width / 2) / std).where(level > 0, -math.inf)
    high = ((apart + width / 2) / std).where(level < len(grid) - 1, math.inf)
    return _log_of_interval(low, high)


def _log_of_interval(low: Tensor, high: Tensor) -> Tensor:
    """Return the logarithm of the normal distribution's mass between two numbers, also far away from 0."""
    # The mass of an interval above 0 is the mass of its mirror image, whose logarithms do not cancel.
    is_above = low > 0
    low, high = torch.where(is_above, -high, low), torch.where(is_above, -low, high)
    upper, lower = log_ndtr(high), log_ndtr(low)
    return upper + torch.log(-torch.expm1(lower - upper))


def vdm_log_prob(pixels: Tensor, z: Tensor, alpha: float, sigma: float, grid: Tensor) -> Tensor:
    """Return the log-probability of levels under VDM's decoder, in nats, of the shape (B, *), float64.

    Arguments:
        pixels: levels, whole numbers from 0 to L - 1, shape (B, *).
        z: noisy levels, shape (B, *).
        alpha: their mean coefficient.
        sigma: their standard deviation.
        grid: places of the levels, shape (L,), float64.
    """
    # One image at a time, because there is a density for each level of each pixel.
    each = [_vdm_of_one(*one, alpha, sigma, grid) for one in zip(pixels, z, strict=True)]
    return torch.stack(each)


def _vdm_of_one(pixels: Tensor, z: Tensor, alpha: float, sigma: float, grid: Tensor) -> Tensor:
    apart = (z.double()[..., None] - alpha * grid) / sigma
    log_probs = torch.log_softmax(-0.5 * apart.square(), -1)
    return log_probs.gather(-1, pixels.long()[..., None])[..., 0]
