r"""Training objectives as pure functions of tensors.

With :math:`\epsilon_\theta = -\sigma_t s_\theta` the negative evidence lower bound of one image is, in nats,

.. math::
    \mathrm{NELBO} = -\mathbb E \log p_T(z_T) + \tfrac Z2\, \mathbb E_{t,\epsilon}\|\epsilon_\theta(z_t, t) - \epsilon\|^2
    - \tfrac{DZ}2 - D\!\int_\epsilon^T\! f\,\mathrm dt - \log\Big|\det\frac{\partial h_\phi}{\partial x}\Big| + R_\epsilon ,

where :math:`t` is drawn with density :math:`g^2/\sigma^2 / Z`; :func:`indm.diffusion.path.nelbo` adds these terms up.

References:
    | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022)
    | https://arxiv.org/abs/2205.13699, theorem 1
    | Maximum Likelihood Training of Score-Based Diffusion Models (Song et al., 2021)
    | https://arxiv.org/abs/2101.09258, theorem 3
"""

import math
from collections.abc import Callable

from torch import Tensor

from indm.diffusion.sde import SDE

NoiseFn = Callable[[Tensor, Tensor], Tensor]
"""Noise prediction :math:`\\epsilon_\\theta(z_t, t)`: latents (B, *) and times (B,) to (B, *)."""


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Reshape per-sample ``values`` (B,) to (B, 1, ...), which broadcasts over ``like`` (B, *), in its dtype."""
    return values.to(like.dtype).reshape(-1, *[1] * (like.dim() - 1))


def squared_norm(x: Tensor) -> Tensor:
    """Squared Euclidean norm of each sample, (B, *) to (B,)."""
    return x.flatten(1).square().sum(1)


def perturb(sde: SDE, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    r"""Return :math:`z_t = \alpha_t z_0 + \sigma_t \epsilon`; ``z0``, ``noise`` (B, *), ``t`` (B,), result (B, *)."""
    return per_sample(sde.alpha(t), z0) * z0 + per_sample(sde.sigma(t), z0) * noise


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

    Its mean is the part of the bound, in nats, that depends on the prediction. The times must be drawn by
    :func:`indm.diffusion.sde.importance_time`, whose normalising constant, a scalar, is Z.

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
