"""The variance preserving diffusion (VP)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from indm.diffusion.sde import T


@dataclass(frozen=True)
class VP:
    r"""Variance preserving SDE, :math:`\beta(t) = \beta_0 + t(\beta_1-\beta_0)`.

    .. math::
        B(t) = t\beta_0 + \tfrac12 t^2(\beta_1-\beta_0), \quad \alpha_t = e^{-B/2}, \quad \sigma_t^2 = 1 - e^{-B}, \quad
        A(t) = \log(e^{B} - 1)

    Arguments:
        beta_min: :math:`\beta_0`.
        beta_max: :math:`\beta_1`.

    References:
        | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
        | https://arxiv.org/abs/2011.13456, equations 11 and 32 to 33
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    section: ClassVar[str] = "vp"
    prior_std: ClassVar[float] = 1.0

    def integral_beta(self, t: Tensor) -> Tensor:
        r""":math:`B(t) = \int_0^t \beta`, shape of ``t``."""
        return t * self.beta_min + 0.5 * t**2 * (self.beta_max - self.beta_min)

    def beta(self, t: Tensor) -> Tensor:
        r"""Rate :math:`\beta(t)`, shape of ``t``."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def alpha(self, t: Tensor) -> Tensor:
        r"""Return :math:`\alpha_t = e^{-B(t)/2}`, shape of ``t``."""
        return torch.exp(-0.5 * self.integral_beta(t))

    def sigma(self, t: Tensor) -> Tensor:
        r"""Return :math:`\sigma_t = \sqrt{1 - e^{-B(t)}}`, shape of ``t``."""
        return torch.sqrt(-torch.expm1(-self.integral_beta(t)))

    def log_snr(self, t: Tensor) -> Tensor:
        r"""Return :math:`-A(t)`, shape of ``t``."""
        return -self.antiderivative(t)

    def drift(self, t: Tensor) -> Tensor:
        r"""Return :math:`f(t) = -\beta(t)/2`, shape of ``t``."""
        return -0.5 * self.beta(t)

    def diffusion(self, t: Tensor) -> Tensor:
        r"""Return :math:`g(t) = \sqrt{\beta(t)}`, shape of ``t``."""
        return torch.sqrt(self.beta(t))

    def antiderivative(self, t: Tensor) -> Tensor:
        r"""Return :math:`A(t) = \log(e^{B(t)} - 1)`, shape of ``t``."""
        return torch.log(torch.expm1(self.integral_beta(t)))

    def time(self, a: Tensor) -> Tensor:
        r"""Return the time t at which :math:`A(t) = a`, that is, :math:`B(t) = \log(1 + e^a)`, shape of ``a``."""
        # This solution of the quadratic in t avoids the cancellation in the schoolbook formula.
        big_b = torch.nn.functional.softplus(a, threshold=60)
        return 2 * big_b / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * big_b))

    def divergence_integral(self, eps: float) -> float:
        ends = torch.tensor([eps, T], dtype=torch.float64)
        return -0.5 * torch.diff(self.integral_beta(ends)).item()

    def interval(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return the exact shrinkage and G, :math:`G^2 = 1 - e^{-(B(t)-B(s))}`, of an interval of any length.

        ``t``, ``s`` and both results have the same shape.
        """
        gap = self.integral_beta(t) - self.integral_beta(s)
        return torch.exp(-0.5 * gap), torch.sqrt(-torch.expm1(-gap))


DIFFUSION = VP
