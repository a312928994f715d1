r"""Training objectives as pure functions of tensors.

With :math:`\epsilon_\theta = -\sigma_t s_\theta` the negative evidence lower bound of one image is, in nats,

.. math::
    \mathrm{NELBO} = -\mathbb E \log p_T(z_T) + \tfrac Z2\, \mathbb E_{t,\epsilon}\|\epsilon_\theta(z_t, t) - \epsilon\|^2
    - \tfrac{DZ}2 - D\!\int_\epsilon^T\! f\,\mathrm dt - \log\Big|\det\frac{\partial h_\phi}{\partial x}\Big| + R_\epsilon ,

where :math:`t` is drawn with density :math:`g^2/\sigma^2 / Z`.

References:
    | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022)
    | https://arxiv.org/abs/2205.13699, theorem 1
    | Maximum Likelihood Training of Score-Based Diffusion Models (Song et al., 2021)
    | https://arxiv.org/abs/2101.09258, theorem 3
"""

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from indm.diffusion.sde import SDE, T

NoiseFn = Callable[[Tensor, Tensor], Tensor]
"""Noise prediction :math:`\\epsilon_\\theta(z_t, t)`: latents (B, *) and times (B,) to (B, *)."""


@runtime_checkable
class Multivariate(Protocol):
    r"""Additional methods of a diffusion with a separate schedule :math:`A_i(t)` for each dimension i.

    At the ends :math:`\epsilon` and T, every :math:`A_i` and its derivative equal :math:`A(t)` and its derivative, and all
    coefficients agree.
    """

    def noise_error(self, noise_fn: NoiseFn, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        r"""Return :math:`\sum_i \frac{\mathrm dA_i}{\mathrm dA} (\epsilon_{\theta,i} - \epsilon_i)^2`, as :func:`noise_error`."""

    def ode_drift(self, noise_fn: NoiseFn, z: Tensor, a: Tensor) -> Tensor:
        r"""Return :math:`\mathrm dz/\mathrm dA`, as :func:`indm.diffusion.ode.ode_drift`."""


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Reshape per-sample ``values`` (B,) to broadcast over ``like`` (B, *), in its dtype."""
    return values.to(like.dtype).reshape(-1, *[1] * (like.dim() - 1))


def squared_norm(x: Tensor) -> Tensor:
    """Squared Euclidean norm of each sample, (B, *) to (B,)."""
    return x.flatten(1).square().sum(1)


def perturb(sde: SDE, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    r"""Return :math:`z_t = \alpha_t z_0 + \sigma_t \epsilon`; ``z0``, ``noise`` (B, *), ``t`` (B,), result (B, *)."""
    return per_sample(sde.alpha(t), z0) * z0 + per_sample(sde.sigma(t), z0) * noise


def noise_error(noise_fn: NoiseFn, sde: SDE, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    r"""Return the squared error :math:`\|\epsilon_\theta(z_t, t) - \epsilon\|^2` of the noise prediction.

    A :class:`Multivariate` diffusion defines its own error.

    Arguments:
        noise_fn: the noise prediction.
        sde: the diffusion.
        z0: clean latents, shape (B, *).
        t: times, shape (B,).
        noise: standard normal draws, shape (B, *).

    Returns:
        The error of each sample, shape (B,).
    """
    if isinstance(sde, Multivariate):
        return sde.noise_error(noise_fn, z0, t, noise)
    return squared_norm(noise_fn(perturb(sde, z0, t, noise), t) - noise)


def variance_weighted(error: Tensor) -> Tensor:
    r"""Return the variance-weighted loss :math:`\tfrac12\|\epsilon_\theta-\epsilon\|^2` from the error, (B,) to (B,).

    The ``fid`` objective trains the score with it, because it favours sample quality; it does not bound the likelihood.

    References:
        | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
        | https://arxiv.org/abs/2011.13456, equation 7 with :math:`\lambda = \sigma_t^2`
    """
    return 0.5 * error


def likelihood_weighted(error: Tensor, z: float | Tensor) -> Tensor:
    r"""Return the likelihood-weighted loss :math:`\tfrac Z2\|\epsilon_\theta-\epsilon\|^2` from the error, (B,) to (B,).

    The times must be drawn by :func:`indm.diffusion.sde.importance_time`, whose normalising constant is Z.

    References:
        | Maximum Likelihood Training of Score-Based Diffusion Models (Song et al., 2021)
        | https://arxiv.org/abs/2101.09258, equation 8 and section 4.2
    """
    return 0.5 * z * error


def gaussian_nll(z: Tensor, std: float) -> Tensor:
    r"""Return the negative log-density under :math:`\mathcal N(0, s^2 I)`, in nats, (B, *) to (B,).

    .. math:: \tfrac D2\log 2\pi s^2 + \frac{\|z\|^2}{2 s^2}
    """
    return 0.5 * z[0].numel() * math.log(2 * math.pi * std**2) + squared_norm(z) / (2 * std**2)


def prior_cross_entropy(sde: SDE, z0: Tensor) -> Tensor:
    r"""Return the expected :math:`-\log p_T(z_T)` given :math:`z_0`, in closed form, in nats.

    .. math:: \tfrac D2\log 2\pi s^2 + \frac{\|\alpha_T z_0\|^2 + D\sigma_T^2}{2 s^2}, \qquad p_T = \mathcal N(0, s^2 I)

    Arguments:
        sde: the diffusion.
        z0: clean latents, shape (B, *).

    Returns:
        The cross entropy of each sample, in nats, shape (B,).
    """
    end = torch.tensor(T, dtype=torch.float64)
    alpha, sigma, std = sde.alpha(end), sde.sigma(end), sde.prior_std
    dims = z0[0].numel()
    constant = 0.5 * dims * (math.log(2 * math.pi * std**2) + (sigma / std) ** 2)
    return constant + squared_norm(z0) * (alpha / std) ** 2 / 2


def reconstruction(noise_fn: NoiseFn, sde: SDE, z0: Tensor, eps: float, noise: Tensor) -> Tensor:
    r"""Return the cost :math:`R_\epsilon` of decoding :math:`z_0` from :math:`z_\epsilon`, for one noise draw, in nats.

    .. math:: -D\ln\alpha_\epsilon + \tfrac12\big(\|\epsilon_\theta(z_\epsilon, \epsilon)-\epsilon\|^2 - \|\epsilon\|^2\big)

    Arguments:
        noise_fn: the noise prediction.
        sde: the diffusion.
        z0: clean latents, shape (B, *).
        eps: truncation time.
        noise: standard normal draws, shape (B, *).

    Returns:
        The reconstruction term of each sample, in nats, shape (B,).

    References:
        | Soft Truncation (Kim et al., 2022), https://arxiv.org/abs/2106.05527, appendix on the reconstruction term
    """
    t = torch.full((len(z0),), eps, dtype=torch.float64, device=z0.device)
    log_alpha = sde.alpha(t[0]).log()
    return 0.5 * (noise_error(noise_fn, sde, z0, t, noise) - squared_norm(noise)) - z0[0].numel() * log_alpha


def nelbo(sde: SDE, z0: Tensor, log_det: Tensor, error: Tensor, z: float | Tensor, eps: float) -> Tensor:
    r"""Return the negative evidence lower bound without the reconstruction term, in nats.

    Arguments:
        sde: the diffusion.
        z0: clean latents :math:`h_\phi(x)`, shape (B, *).
        log_det: :math:`\log|\det \partial h_\phi/\partial x|`, shape (B,).
        error: :func:`noise_error` at importance-sampled times, from one draw or averaged over several, shape (B,).
        z: normalising constant of the importance distribution.
        eps: truncation time.

    Returns:
        The bound for each sample, in nats, shape (B,).

    References:
        | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022)
        | https://arxiv.org/abs/2205.13699, theorem 1
    """
    dims = z0[0].numel()
    constant = -dims * (0.5 * z + sde.divergence_integral(eps))
    return prior_cross_entropy(sde, z0) + likelihood_weighted(error, z) + constant - log_det
