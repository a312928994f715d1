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

from typing import ClassVar, Protocol

import torch
from torch import Tensor

from indm.errors import ParamsError
from indm.registry import DIFFUSIONS

T = 1.0


class SDE(Protocol):
    """The interface of a linear diffusion for objectives, samplers and likelihoods.

    Times lie in [0, T]. Times, coefficients and the log signal-to-noise ratio have no unit.
    """

    section: ClassVar[str]
    """Section of ``train.sde`` whose keys are the arguments of the diffusion."""

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
        """Inverse of :meth:`antiderivative`: the time at which it equals ``a``, shape of ``a``."""

    def divergence_integral(self, eps: float) -> float | Tensor:
        r"""Integral :math:`\int_\epsilon^T f(t)\, \mathrm d t`, in nats per dimension, a float or a scalar tensor."""

    def interval(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        r"""Coefficients of one reverse step from ``t`` to ``s < t``: shrinkage :math:`\sqrt{1-G^2}` (or 1) and :math:`G`.

        ``t``, ``s`` and both results have the same shape.
        """


def build_sde(name: str, **parameters: float) -> SDE:
    """Build the registered SDE ``name`` from its parameters.

    Raises:
        ParamsError: if the name is not registered.
    """
    if name not in DIFFUSIONS:
        raise ParamsError(f"unknown SDE {name!r}: expected one of {', '.join(DIFFUSIONS)}")
    return DIFFUSIONS[name](**parameters)


def importance_time(sde: SDE, u: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    r"""Map uniform draws to times with density :math:`p(t) \propto g^2/\sigma^2` on :math:`[\epsilon, T]`.

    .. math:: t = A^{-1}\big(A(\epsilon) + u Z\big), \qquad Z = A(T) - A(\epsilon)

    Arguments:
        sde: the diffusion.
        u: uniform draws in [0, 1), shape (B,), float64.
        eps: truncation time.

    Returns:
        The times, shape (B,), float64, and the normalising constant :math:`Z`, a scalar tensor.

    References:
        | Maximum Likelihood Training of Score-Based Diffusion Models (Song et al., 2021)
        | https://arxiv.org/abs/2101.09258, section 4.2
    """
    low, high = sde.antiderivative(torch.tensor([eps, T], dtype=torch.float64))
    return sde.time(low + u * (high - low)).clamp(eps, T), high - low


def uniform_time(u: Tensor, eps: float) -> Tensor:
    r"""Map uniform draws of shape (B,) to uniform times on :math:`[\epsilon, T]`, shape (B,)."""
    return eps + u * (T - eps)


def soft_truncation_time(u: float, eps: float, k: float) -> float:
    r"""Map one uniform draw to a truncation time with density :math:`\propto \tau^{-k}` on :math:`[\epsilon, T]`.

    .. math:: \tau = \epsilon^{1-u} \;(k = 1), \qquad \tau = \epsilon\,\big(1 - u(1-\epsilon^{k-1})\big)^{-1/(k-1)} \;(k \ne 1)

    References:
        | Soft Truncation (Kim et al., 2022), https://arxiv.org/abs/2106.05527, section 4
    """
    if k == 1.0:
        return eps ** (1 - u)
    return eps / (1 - u * (1 - eps ** (k - 1))) ** (1 / (k - 1))
