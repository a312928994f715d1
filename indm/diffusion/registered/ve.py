"""The variance exploding diffusion (VE)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class VE:
    r"""Variance exploding SDE, :math:`\sigma(t) = \sigma_{\min}(\sigma_{\max}/\sigma_{\min})^t`.

    .. math:: \alpha_t = 1, \quad g^2 = 2\sigma^2 \ln(\sigma_{\max}/\sigma_{\min}), \quad A(t) = 2\ln\sigma(t)

    Arguments:
        sigma_min: :math:`\sigma_{\min}`.
        sigma_max: :math:`\sigma_{\max}`.

    References:
        | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
        | https://arxiv.org/abs/2011.13456, equations 9 and 30 to 31
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    section: ClassVar[str] = "ve"

    @property
    def log_ratio(self) -> float:
        r""":math:`\ln(\sigma_{\max}/\sigma_{\min})`."""
        return math.log(self.sigma_max / self.sigma_min)

    @property
    def prior_std(self) -> float:
        return self.sigma_max

    def alpha(self, t: Tensor) -> Tensor:
        r"""Return :math:`\alpha_t = 1`, shape of ``t``."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        r"""Return :math:`\sigma_t = \sigma_{\min}(\sigma_{\max}/\sigma_{\min})^t`, shape of ``t``."""
        return self.sigma_min * torch.exp(t * self.log_ratio)

    def log_snr(self, t: Tensor) -> Tensor:
        r"""Return :math:`-A(t)`, shape of ``t``."""
        return -self.antiderivative(t)

    def drift(self, t: Tensor) -> Tensor:
        r"""Return :math:`f(t) = 0`, shape of ``t``."""
        return torch.zeros_like(t)

    def diffusion(self, t: Tensor) -> Tensor:
        r"""Return :math:`g(t) = \sigma_t\sqrt{2\ln(\sigma_{\max}/\sigma_{\min})}`, shape of ``t``."""
        return self.sigma(t) * math.sqrt(2 * self.log_ratio)

    def antiderivative(self, t: Tensor) -> Tensor:
        r"""Return :math:`A(t) = 2\ln\sigma_t`, shape of ``t``."""
        return 2 * (math.log(self.sigma_min) + t * self.log_ratio)

    def time(self, a: Tensor) -> Tensor:
        r"""Return :math:`t = (a/2 - \ln\sigma_{\min}) / \ln(\sigma_{\max}/\sigma_{\min})`, shape of ``a``."""
        return (0.5 * a - math.log(self.sigma_min)) / self.log_ratio

    def divergence_integral(self, eps: float) -> float:
        return 0.0

    def interval(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return the exact coefficients, a shrinkage of 1 and :math:`G = \sqrt{\sigma_t^2 - \sigma_s^2}`.

        ``t``, ``s`` and both results have the same shape.
        """
        return torch.ones_like(t), torch.sqrt(self.sigma(t) ** 2 - self.sigma(s) ** 2)


DIFFUSION = VE
