"""Fixed maps: a curve of an entry's value and a filter from the spectrum of the training images. Nothing in them is trained."""

from typing import Literal

import torch
from torch import Tensor

from indm.flows.base import Batches
from indm.flows.cosine import coefficient_moments, filtered
from indm.flows.learned import ClosedFormFlow
from indm.flows.piecewise import INTERVALS, PiecewiseCurve

# The slope of the curve is (1 - v^2) to this power.
SLOPE = -0.25


class FixedCurve(PiecewiseCurve):
    r"""An increasing curve whose slope grows towards both ends of [-1, 1]; see :class:`Flow` for the shapes.

    .. math:: f(0) = 0, \qquad f'(v) \propto (1 - v^2)^{-1/4}

    On each of 64 intervals, the slope is the mean of this function, which is finite at the ends, too: there it is 2.7, and 1 in
    the middle. It stretches the values near black and white.
    """

    def __init__(self, channels_in: int, image_size: int) -> None:
        super().__init__(channels_in, image_size)
        self.register_buffer("log_slope", _log_slopes())


def _log_slopes(points: int = 10_000) -> Tensor:
    r"""Return the logarithm of the mean of :math:`(1 - v^2)^{-1/4}` on each interval, shape (64,).

    With :math:`v = \sin\varphi`, the integral is one of :math:`\cos^{1/2}\varphi`, without a pole, by the midpoint rule.
    """
    ends = torch.linspace(-1, 1, INTERVALS + 1, dtype=torch.float64).asin()
    places = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    widths = ends.diff()
    angles = ends[:-1, None] + widths[:, None] * places
    integrals = widths * angles.cos().pow(1 + 2 * SLOPE).mean(1)
    return (integrals * (INTERVALS / 2)).log().float()


class FixedFilter(ClosedFormFlow):
    r"""A gain for each channel and frequency from the variances S of the training images; see :class:`Flow` for the shapes.

    .. math::
        z = C^\top g\, C x, \qquad g_{ckl} = s\, R_{ckl}^{-a}, \qquad s^{-2} = \frac1D\sum_{c,k,l} S_{ckl} R_{ckl}^{-2a}, \qquad
        \log\Big|\det\frac{\partial z}{\partial x}\Big| = \sum_{c,k,l} \log g_{ckl}

    C is the orthonormal cosine transform of both axes of a channel, and S is the variance of a coefficient. R is S itself
    (``exact``), or the mean of S over a circle of equal frequency (``circles``), which is smooth in frequency, so that the filter
    has no weight far from a pixel where S is rough. The scale s makes the mean variance of the D entries of a latent 1. With a = 0
    the map is only that scale, with a = 1/2 and R = S all coefficients of a latent have the same variance, and a = 1/4 is halfway.

    Arguments:
        exponent: a.
        spectrum: ``exact`` or ``circles``.

    References:
        | Discrete Cosine Transform (Ahmed, Natarajan & Rao, 1974), https://doi.org/10.1109/T-C.1974.223784
    """

    log_gain: Tensor

    def __init__(
        self, channels_in: int, image_size: int, exponent: float, spectrum: Literal["exact", "circles"] = "exact"
    ) -> None:
        super().__init__(channels_in, image_size)
        self.exponent = exponent
        self.spectrum = spectrum
        self.register_buffer("log_gain", torch.zeros(self.image_shape))

    @torch.no_grad()
    def fit(self, batches: Batches) -> None:
        """Set the gains from the training images, in batches (B, C, S, S); the variances are added up in float64."""
        _, variances = coefficient_moments(batches)
        smooth = variances if self.spectrum == "exact" else over_circles(variances)
        gain = smooth.pow(-self.exponent)
        self.log_gain.copy_((gain * (variances * gain.square()).mean().rsqrt()).log())

    def map(self, x: Tensor) -> Tensor:
        """Return z, (B, C, S, S) to (B, C, S, S)."""
        return filtered(x, self.log_gain)

    def unmap(self, z: Tensor) -> Tensor:
        """Return x = C^T g^-1 C z, (B, C, S, S) to (B, C, S, S)."""
        return filtered(z, -self.log_gain)

    def volume(self) -> Tensor:
        """Return the sum of all log g in nats, a scalar."""
        return self.log_gain.sum()

    def log_gains(self) -> Tensor:
        """Return log g in nats, shape (C, S, S)."""
        return self.log_gain


def over_circles(variances: Tensor) -> Tensor:
    r"""Return the mean over the coefficients of about equal frequency, of each channel, (C, S, S) to (C, S, S).

    .. math:: R_{ckl} = \frac1{|K|}\sum_{(k', l') \in K} S_{ck'l'}, \qquad
        K = \Big\{(k', l'): \Big\lfloor\sqrt{k'^2 + l'^2}\Big\rceil = \Big\lfloor\sqrt{k^2 + l^2}\Big\rceil\Big\}

    Circles are as far apart as neighbouring frequencies of an axis.
    """
    channels, size, _ = variances.shape
    axis = torch.arange(size, dtype=torch.float64, device=variances.device)
    circle = torch.hypot(axis[:, None], axis).round().long().flatten()
    totals = variances.new_zeros(channels, int(circle.max()) + 1).index_add(1, circle, variances.flatten(1))
    return (totals / circle.bincount())[:, circle].view_as(variances)
