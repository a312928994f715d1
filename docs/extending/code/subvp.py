"""The sub-VP diffusion: the drift of VP, and less noise."""

from dataclasses import dataclass

import torch
from torch import Tensor

from indm.diffusion.registered.vp import VP


@dataclass(frozen=True)
class SubVP(VP):
    r"""Sub-VP SDE: the drift of VP, and less noise; arguments as of VP.

    .. math:: \alpha_t = e^{-B/2}, \quad \sigma_t = 1 - e^{-B}, \quad g^2 = \beta (1 - e^{-2B}), \quad A = 2 \ln(2 \sinh(B/2))

    References:
        | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
        | https://arxiv.org/abs/2011.13456, section 3.4
    """

    def sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(-self.integral_beta(t))

    def diffusion(self, t: Tensor) -> Tensor:
        return torch.sqrt(-self.beta(t) * torch.expm1(-2 * self.integral_beta(t)))

    def antiderivative(self, t: Tensor) -> Tensor:
        return 2 * torch.log(2 * torch.sinh(self.integral_beta(t) / 2))

    def time(self, a: Tensor) -> Tensor:
        # The antiderivative of VP at the same B, which VP inverts.
        big_b = 2 * torch.asinh(torch.exp(a / 2) / 2)
        return super().time(torch.log(torch.expm1(big_b)))

    def interval(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        r"""Exact form :math:`G^2 = \sigma_t^2 - (\alpha_t \sigma_s / \alpha_s)^2`."""
        shrink = self.alpha(t) / self.alpha(s)
        return shrink, torch.sqrt(self.sigma(t) ** 2 - (shrink * self.sigma(s)) ** 2)


DIFFUSION = SubVP
