r"""Linear diffusions: variance preserving (VP) and variance exploding (VE).

Both are :math:`\mathrm d z_t = f(t)\, z_t\, \mathrm d t + g(t)\, \mathrm d w_t` on :math:`t \in [0, T]`, :math:`T = 1`, with

.. math::
    z_t \mid z_0 \sim \mathcal N(\alpha_t z_0, \sigma_t^2 I), \qquad
    A(t) = \int \frac{g^2}{\sigma^2}\, \mathrm d t = -\log \frac{\alpha_t^2}{\sigma_t^2} + \text{const}.

Times are tensors of any shape; pass float64 wherever :math:`t` comes near :math:`10^{-5}`, where float32 has few digits.

References:
    | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
    | https://arxiv.org/abs/2011.13456, equations 9 to 11 and appendix C
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

T = 1.0


class SDE(Protocol):
    """What objectives, samplers and likelihoods ask of a linear diffusion."""

    @property
    def prior_std(self) -> float:
        """Standard deviation of the prior :math:`p_T`."""

    def alpha(self, t: Tensor) -> Tensor:
        r"""Mean coefficient :math:`\alpha_t`, shape of ``t``."""

    def sigma(self, t: Tensor) -> Tensor:
        r"""Standard deviation :math:`\sigma_t`, shape of ``t``."""

    def log_snr(self, t: Tensor) -> Tensor:
        r"""Log signal-to-noise ratio :math:`\log \alpha_t^2 / \sigma_t^2`, shape of ``t``."""

    def drift(self, t: Tensor) -> Tensor:
        """Coefficient :math:`f(t)` of the drift, shape of ``t``."""

    def diffusion(self, t: Tensor) -> Tensor:
        """Diffusion coefficient :math:`g(t)`, shape of ``t``."""

    def antiderivative(self, t: Tensor) -> Tensor:
        """Antiderivative :math:`A(t)` of :math:`g^2/\\sigma^2`, shape of ``t``."""

    def time(self, a: Tensor) -> Tensor:
        """Inverse of :meth:`antiderivative`: the time at which it equals ``a``."""

    def divergence_integral(self, eps: float) -> float:
        r"""Integral :math:`\int_\epsilon^T f(t)\, \mathrm d t`, per dimension."""

    def interval(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        r"""Coefficients of one reverse step from ``t`` to ``s < t``: shrinkage :math:`\sqrt{1-G^2}` (or 1) and :math:`G`."""


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
    prior_std: ClassVar[float] = 1.0

    def integral_beta(self, t: Tensor) -> Tensor:
        r""":math:`B(t) = \int_0^t \beta`, shape of ``t``."""
        return t * self.beta_min + 0.5 * t**2 * (self.beta_max - self.beta_min)

    def beta(self, t: Tensor) -> Tensor:
        r"""Rate :math:`\beta(t)`, shape of ``t``."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self.integral_beta(t))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self.integral_beta(t)))

    def log_snr(self, t: Tensor) -> Tensor:
        return -self.antiderivative(t)

    def drift(self, t: Tensor) -> Tensor:
        return -0.5 * self.beta(t)

    def diffusion(self, t: Tensor) -> Tensor:
        return torch.sqrt(self.beta(t))

    def antiderivative(self, t: Tensor) -> Tensor:
        return torch.log(torch.expm1(self.integral_beta(t)))

    def time(self, a: Tensor) -> Tensor:
        # B = log(1 + e^a); the quadratic in t is solved without the cancellation of the schoolbook formula.
        big_b = torch.nn.functional.softplus(a, threshold=60)
        return 2 * big_b / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * big_b))

    def divergence_integral(self, eps: float) -> float:
        ends = torch.tensor([eps, T], dtype=torch.float64)
        return -0.5 * torch.diff(self.integral_beta(ends)).item()

    def interval(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        r"""Exact form :math:`G^2 = 1 - e^{-(B(t)-B(s))}`, valid however long the interval is."""
        gap = self.integral_beta(t) - self.integral_beta(s)
        return torch.exp(-0.5 * gap), torch.sqrt(-torch.expm1(-gap))

    def released_interval(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        r"""Form of the released code, :math:`G^2 = (t-s)\beta(t)`: NaN once :math:`G^2 > 1`, that is below 20 steps."""
        g2 = (t - s) * self.beta(t)
        return torch.sqrt(1 - g2), torch.sqrt(g2)


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

    @property
    def log_ratio(self) -> float:
        r""":math:`\ln(\sigma_{\max}/\sigma_{\min})`."""
        return math.log(self.sigma_max / self.sigma_min)

    @property
    def prior_std(self) -> float:
        return self.sigma_max

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * torch.exp(t * self.log_ratio)

    def log_snr(self, t: Tensor) -> Tensor:
        return -self.antiderivative(t)

    def drift(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def diffusion(self, t: Tensor) -> Tensor:
        return self.sigma(t) * math.sqrt(2 * self.log_ratio)

    def antiderivative(self, t: Tensor) -> Tensor:
        return 2 * (math.log(self.sigma_min) + t * self.log_ratio)

    def time(self, a: Tensor) -> Tensor:
        return (0.5 * a - math.log(self.sigma_min)) / self.log_ratio

    def divergence_integral(self, eps: float) -> float:
        return 0.0

    def interval(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        r"""Exact form :math:`G^2 = \sigma_t^2 - \sigma_s^2`; nothing shrinks."""
        return torch.ones_like(t), torch.sqrt(self.sigma(t) ** 2 - self.sigma(s) ** 2)


SDES: dict[str, type[VP] | type[VE]] = {"vp": VP, "ve": VE}


def build_sde(name: str, **parameters: float) -> SDE:
    """Build the registered SDE ``name`` from its parameters."""
    return SDES[name](**parameters)


def importance_time(sde: SDE, u: Tensor, eps: float) -> tuple[Tensor, float]:
    r"""Map uniform draws to times of density :math:`p(t) \propto g^2/\sigma^2` on :math:`[\epsilon, T]`.

    .. math:: t = A^{-1}\big(A(\epsilon) + u Z\big), \qquad Z = A(T) - A(\epsilon)

    Arguments:
        sde: the diffusion.
        u: uniform draws in [0, 1), shape (B,), float64.
        eps: truncation time.

    Returns:
        The times, shape (B,), and the normalising constant :math:`Z`.

    References:
        | Maximum Likelihood Training of Score-Based Diffusion Models (Song et al., 2021)
        | https://arxiv.org/abs/2101.09258, section 4.2
    """
    low, high = sde.antiderivative(torch.tensor([eps, T], dtype=torch.float64)).tolist()
    return sde.time(low + u * (high - low)).clamp(eps, T), high - low


def uniform_time(u: Tensor, eps: float) -> Tensor:
    r"""Map uniform draws of shape (B,) to uniform times on :math:`[\epsilon, T]`, shape (B,)."""
    return eps + u * (T - eps)


def soft_truncation_time(u: float, eps: float, k: float) -> float:
    r"""Map one uniform draw to a truncation time of density :math:`\propto \epsilon^{-k}` on :math:`[\epsilon, T]`.

    .. math:: \tau = \epsilon^{1-u} \;(k = 1), \qquad \tau = \epsilon\,\big(1 - u(1-\epsilon^{k-1})\big)^{-1/(k-1)} \;(k \ne 1)

    References:
        | Soft Truncation (Kim et al., 2022), https://arxiv.org/abs/2106.05527, section 4
    """
    if k == 1.0:
        return eps ** (1 - u)
    return eps / (1 - u * (1 - eps ** (k - 1))) ** (1 / (k - 1))
