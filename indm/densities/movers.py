r"""Learned forward processes of points, as stacks of replicas in a flow's place: the rivals of a flow.

A rival's log-determinant is 0. The path's points have shape (R B, D), those of a replica in a row.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from indm.densities.models import FREQUENCIES, Mover, StackedMLP, waves
from indm.diffusion.families.registered.mulan import Schedules
from indm.diffusion.moved_mean import MovedMean
from indm.diffusion.objectives import gaussian_nll
from indm.diffusion.path import ForwardPath
from indm.diffusion.sde import SDE, T


class SchedulesMover(Mover):
    """MuLAN's noise schedules, one for each dimension; they start as the diffusion's."""

    def __init__(self, replicas: int, dims: int, eps: float) -> None:
        super().__init__(replicas)
        self.eps = eps
        self.coefficients = nn.Parameter(torch.zeros(replicas, 2, dims))

    def path(self, sde: SDE) -> ForwardPath:
        return Schedules(sde, self.coefficients, self.eps)


class RangeMover(Mover):
    """Learned ends of the log-SNR, the same in all dimensions; they start as the diffusion's."""

    def __init__(self, replicas: int, eps: float) -> None:
        super().__init__(replicas)
        self.eps = eps
        self.moves = nn.Parameter(torch.zeros(replicas, 2, 1))

    def path(self, sde: SDE) -> ForwardPath:
        return Range(sde, self.moves, self.eps)


@dataclass(frozen=True)
class Range(Schedules):
    r"""A VP diffusion whose log-SNR has learned ends, as in :class:`indm.diffusion.learned_range.LearnedRange`.

    .. math:: A_i = A_\epsilon + a + (A_T - A_\epsilon + b - a)\, u, \qquad u = \frac{A - A_\epsilon}{A_T - A_\epsilon}

    Arguments:
        coefficients: the moves a of :math:`A_\epsilon` and b of :math:`A_T`, shape (R, 2, 1).
    """

    def paths(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return :math:`A_i` and :math:`\mathrm dA_i/\mathrm dA` at the times (R B,): (R B, 1) each, float64."""
        u, low, high = self.place(t)
        first, last = self.coefficients.double().repeat_interleave(len(t) // len(self.coefficients), 0).unbind(1)
        return low + first + (high - low + last - first) * u, 1 + (last - first) / (high - low) + 0 * u

    def prior(self, z0: Tensor) -> Tensor:
        r"""Return the expected :math:`-\log p_T(z_T)` given :math:`z_0` in nats, (R B, D) to (R B,).

        .. math:: \tfrac D2\log 2\pi + \tfrac12\big(\|\alpha_T z_0\|^2 + D\sigma_T^2\big)
        """
        alpha, sigma = self._ends(z0, T)
        return gaussian_nll(alpha * z0, 1.0) + z0.shape[1] * sigma.squeeze(1) ** 2 / 2

    def entropy(self, z0: Tensor, z: float | Tensor, eps: float) -> Tensor:
        r"""Return :math:`-D\log(\sigma_T/\sigma_\epsilon)` in nats, (R B, D) to (R B,); ``z`` is not used."""
        return -z0.shape[1] * (self._ends(z0, T)[1] / self._ends(z0, eps)[1]).log().squeeze(1)

    def volume(self, z0: Tensor, eps: float) -> Tensor:
        r"""Return :math:`D\log\alpha_\epsilon` in nats, (R B, D) to (R B,)."""
        return z0.shape[1] * self._ends(z0, eps)[0].log().squeeze(1)

    def _ends(self, z0: Tensor, t: float) -> tuple[Tensor, Tensor]:
        alpha, sigma = self._scales(torch.full((len(z0),), t, dtype=torch.float64))
        return alpha.to(z0.dtype), sigma.to(z0.dtype)


class EncoderMover(Mover):
    """DiffEnc's encoder: a perceptron of the point and the log-SNR, zero at the start."""

    def __init__(self, replicas: int, dims: int, layers: int, width: int) -> None:
        super().__init__(replicas)
        self.mlp = StackedMLP(replicas, dims + 2 * FREQUENCIES, *[width] * layers, dims)

    def path(self, sde: SDE) -> ForwardPath:
        return MovedMean(sde, self._move)

    def _move(self, x: Tensor, a: Tensor) -> Tensor:
        x, a = (values.unflatten(0, (len(self.factor), -1)) for values in (x, a))
        return self.mlp(torch.cat([x, waves(-a.to(x.dtype))], -1)).flatten(0, 1)
