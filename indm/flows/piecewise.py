"""An increasing, piecewise linear curve of an entry's value, the same for every pixel and channel."""

import torch
from torch import Tensor

from indm.flows.base import Flow, LogDet
from indm.flows.sources import Source

INTERVALS = 64


class PiecewiseCurve(Flow):
    r"""A piecewise linear curve with slopes :math:`e^{a_k}` on 64 equal intervals of [-1, 1]; see :class:`Flow` for the shapes.

    .. math::
        z_i = f(x_i), \qquad f(0) = 0, \qquad f' = e^{a_k} \text{ on interval } k, \qquad
        \log\Big|\det\frac{\partial z}{\partial x}\Big| = \sum_i a_{k(x_i)}

    The first and the last slope continue beyond the ends. Subclasses set ``log_slope``, the logarithms a, shape (64,).

    References:
        | Neural Importance Sampling (Müller et al., 2019), section 4.2: piecewise linear maps as flows
        | https://arxiv.org/abs/1808.03856
    """

    log_slope: Tensor

    def forward(self, x: Tensor, log_det: LogDet, generator: Source = None) -> tuple[Tensor, Tensor]:
        """Return z with shape (B, C, S, S) and log|det dz/dx| in nats with shape (B,); see :meth:`Flow.forward`."""
        self._check_shape(x)
        slopes, starts = self._intervals()
        k = ((x + 1) * (INTERVALS / 2)).floor().clamp(0, INTERVALS - 1).long()
        z = starts[k] + slopes[k] * (x - self._places(x)[k])
        return z, x.new_zeros(len(x)) if log_det == "none" else self.log_slope[k].flatten(1).sum(1)

    @torch.no_grad()
    def inverse(
        self, z: Tensor, atol: float = 1e-6, max_iterations: int = 1000, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return x in closed form, (B, C, S, S) to (B, C, S, S); see :meth:`Flow.inverse`."""
        self._check_shape(z)
        slopes, starts = self._intervals()
        k = (torch.searchsorted(starts, z.contiguous(), right=True) - 1).clamp(0, INTERVALS - 1)
        return self._places(z)[k] + (z - starts[k]) / slopes[k]

    def _intervals(self) -> tuple[Tensor, Tensor]:
        """Return the slope of each interval and the curve's value at its lower end, (64,) each."""
        slopes = self.log_slope.exp()
        steps = slopes * (2 / INTERVALS)
        ends = steps.cumsum(0)
        return slopes, ends - steps - ends[INTERVALS // 2 - 1]

    def _places(self, like: Tensor) -> Tensor:
        """Return the lower end of each interval, (64,)."""
        return torch.arange(INTERVALS, dtype=like.dtype, device=like.device) * (2 / INTERVALS) - 1
