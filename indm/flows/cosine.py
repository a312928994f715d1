"""The orthonormal cosine transform of images, in which a filter with a gain for each frequency is diagonal."""

import math

import torch
from torch import Tensor

from indm.flows.base import Batches


def cosine_basis(size: int) -> Tensor:
    r"""Return the orthonormal cosine transform of S values, float64, shape (S, S); row k has frequency k.

    .. math:: C_{kn} = \sqrt{\tfrac{2 - \delta_{k0}}{S}} \cos\frac{\pi k (n + 1/2)}{S}

    References:
        | Discrete Cosine Transform (Ahmed, Natarajan & Rao, 1974), https://doi.org/10.1109/T-C.1974.223784
    """
    places = torch.arange(size, dtype=torch.float64)
    rows = torch.cos(math.pi * (places + 0.5) * places[:, None] / size) * math.sqrt(2 / size)
    return torch.cat([rows[:1] / math.sqrt(2), rows[1:]])


def to_cosine(images: Tensor) -> Tensor:
    r"""Return the cosine transform of both axes of each channel, (B, C, S, S) to (B, C, S, S).

    .. math:: y_{bc} = \Phi\, x_{bc}\, \Phi^\top

    with :math:`\Phi` from :func:`cosine_basis`.
    """
    basis = cosine_basis(images.shape[-1]).to(images)
    return basis @ images @ basis.T


def from_cosine(coefficients: Tensor) -> Tensor:
    r"""Return the images of a cosine transform, (B, C, S, S) to (B, C, S, S): the inverse of :func:`to_cosine`.

    .. math:: x_{bc} = \Phi^\top\, y_{bc}\, \Phi
    """
    basis = cosine_basis(coefficients.shape[-1]).to(coefficients)
    return basis.T @ coefficients @ basis


def coefficient_moments(batches: Batches) -> tuple[Tensor, Tensor]:
    """Return the mean and the variance over images of each coefficient of their cosine transform.

    Arguments:
        batches: passes over the images, in batches (B, C, S, S).

    Returns:
        The means and the variances, float64, shape (C, S, S) each.
    """
    count, total, squares = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for x in batches():
        coefficients = to_cosine(x.double())
        count += len(x)
        total = total.to(x.device) + coefficients.sum(0)
        squares = squares.to(x.device) + coefficients.square().sum(0)
    mean = total / count
    return mean, squares / count - mean.square()


def filtered(images: Tensor, log_gain: Tensor) -> Tensor:
    r"""Multiply each coefficient of the cosine transform of images by its gain.

    .. math:: y_{bc} = \Phi^\top \big(e^{a_c} \odot \Phi\, x_{bc}\, \Phi^\top\big)\, \Phi

    with :math:`\Phi` from :func:`cosine_basis`.

    Arguments:
        images: x, shape (B, C, S, S).
        log_gain: a, the logarithms of the gains, shape (C, S, S).

    Returns:
        y with shape (B, C, S, S).
    """
    basis = cosine_basis(images.shape[-1]).to(images)
    return basis.T @ (log_gain.exp() * (basis @ images @ basis.T)) @ basis
