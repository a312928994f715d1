r"""One step of a sampler: from a latent at one time to the next, corrections at a time, and the last, denoising step.

References:
    | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
    | https://arxiv.org/abs/2011.13456, section 4, appendices D, E and G
    | Denoising Diffusion Probabilistic Models (Ho et al., 2020), https://arxiv.org/abs/2006.11239, equation 7
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from indm.diffusion.objectives import NoiseFn, per_sample
from indm.diffusion.sde import SDE

Predictor = Callable[[SDE, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""One reverse step: (sde, z_t, noise prediction at t, t, s) to the mean (B, *) and the noise scale (B,)."""


def euler_maruyama(sde: SDE, z: Tensor, noise: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    r"""Euler-Maruyama step of the reverse SDE from ``t`` to ``s``.

    .. math:: z_s = z_t - \big(f z_t + \tfrac{g^2}{\sigma}\epsilon_\theta\big)(t - s) + g\sqrt{t-s}\,\xi
    """
    g = sde.diffusion(t)
    drift = per_sample(sde.drift(t), z) * z + per_sample(g**2 / sde.sigma(t), z) * noise
    return z - per_sample(t - s, z) * drift, g * torch.sqrt(t - s)


def reverse_diffusion(sde: SDE, z: Tensor, noise: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    r"""Reverse-diffusion step with the exact coefficients of the interval.

    .. math:: z_s = \big(2 - \sqrt{1-G^2}\big) z_t - \tfrac{G^2}{\sigma}\epsilon_\theta + G\,\xi \quad (\text{VE: } z_t - \dots)

    References:
        | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
        | https://arxiv.org/abs/2011.13456, equation 46
    """
    shrink, big_g = sde.interval(t, s)
    return per_sample(2 - shrink, z) * z - per_sample(big_g**2 / sde.sigma(t), z) * noise, big_g


def ancestral(sde: SDE, z: Tensor, noise: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    r"""Ancestral step: the Gaussian posterior :math:`q(z_s \mid z_t, z_0)` at the predicted :math:`z_0`.

    .. math::
        \mu = \frac1{\alpha_{t|s}}\Big(z_t - \frac{\sigma^2_{t|s}}{\sigma_t}\epsilon_\theta\Big), \quad
        \text{std} = \frac{\sigma_{t|s}\sigma_s}{\sigma_t}, \quad
        \alpha_{t|s} = \frac{\alpha_t}{\alpha_s},\; \sigma^2_{t|s} = \sigma_t^2 - \alpha_{t|s}^2\sigma_s^2

    References:
        | Denoising Diffusion Probabilistic Models (Ho et al., 2020), https://arxiv.org/abs/2006.11239, equations 7 and 11
    """
    sigma_t, sigma_s, ratio = sde.sigma(t), sde.sigma(s), sde.alpha(t) / sde.alpha(s)
    variance = sigma_t**2 - ratio**2 * sigma_s**2
    mean = (z - per_sample(variance / sigma_t, z) * noise) / per_sample(ratio, z)
    return mean, torch.sqrt(variance) * sigma_s / sigma_t


def ddim(sde: SDE, z: Tensor, noise: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    r"""Deterministic step of the probability-flow ODE, exact where the noise prediction is constant.

    .. math:: z_s = \frac{\alpha_s}{\alpha_t}(z_t - \sigma_t\epsilon_\theta) + \sigma_s\epsilon_\theta

    References:
        | Denoising Diffusion Implicit Models (Song et al., 2021), https://arxiv.org/abs/2010.02502, equation 12
    """
    ratio, sigma_t, sigma_s = (
        per_sample(value, z) for value in (sde.alpha(s) / sde.alpha(t), sde.sigma(t), sde.sigma(s))
    )
    return ratio * (z - sigma_t * noise) + sigma_s * noise, torch.zeros_like(t)


PREDICTORS: dict[str, Predictor] = {
    "euler_maruyama": euler_maruyama,
    "reverse_diffusion": reverse_diffusion,
    "ancestral": ancestral,
    "ddim": ddim,
}


def langevin(noise_fn: NoiseFn, sde: SDE, z: Tensor, t: Tensor, snr: float, generator: Generator) -> Tensor:
    r"""One Langevin correction at time ``t``, its step set by a signal-to-noise ratio (batch means of the norms).

    .. math:: z' = z + a s_\theta + \sqrt{2a}\,\xi, \qquad a = 2\alpha\,\big(\mathrm{snr}\,\|\xi\|/\|s_\theta\|\big)^2

    with :math:`\alpha = 1 - \beta(t)/1000` under VP and 1 under VE.

    References:
        | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
        | https://arxiv.org/abs/2011.13456, algorithms 4 and 5
    """
    score = -noise_fn(z, t) / per_sample(sde.sigma(t), z)
    xi = standard_normal(z.shape, z, generator)
    ratio = snr * xi.flatten(1).norm(dim=1).mean() / score.flatten(1).norm(dim=1).mean()
    step = 2 * per_sample(1 + 2 * sde.drift(t) / 1000, z) * ratio**2
    return z + step * score + torch.sqrt(2 * step) * xi


def tweedie(noise_fn: NoiseFn, sde: SDE, z: Tensor, t: Tensor) -> Tensor:
    r"""Mean of :math:`z_0` given :math:`z_t`: :math:`(z_t - \sigma_t\epsilon_\theta)/\alpha_t`; (B, *) to (B, *).

    References:
        | Tweedie's Formula and Selection Bias (Efron, 2011), https://doi.org/10.1198/jasa.2011.tm11181, equation 1.4
    """
    return (z - per_sample(sde.sigma(t), z) * noise_fn(z, t)) / per_sample(sde.alpha(t), z)


def released_ve_denoising(noise_fn: NoiseFn, sde: SDE, z: Tensor, t: Tensor) -> Tensor:
    r"""Last step of the released VE runs on CIFAR-10, :math:`\ln(\sigma_{\max}/\sigma_{\min})` = 8.5 times :func:`tweedie`'s.

    .. math:: z + \tfrac12 g(t)^2 (t + 1)\, s_\theta = z - \tfrac{g^2(t + 1)}{2\sigma_t}\,\epsilon_\theta

    It is half a step of the reverse SDE from t to ``sampling.pc_denoise_time = -1`` (``sampling.py``, ``denoise_update_fn``).
    """
    return z - per_sample(sde.diffusion(t) ** 2 * (t + 1) / (2 * sde.sigma(t)), z) * noise_fn(z, t)


def no_denoising(noise_fn: NoiseFn, sde: SDE, z: Tensor, t: Tensor) -> Tensor:
    """Leave the latents as they are."""
    return z


DENOISERS: dict[str, Callable[[NoiseFn, SDE, Tensor, Tensor], Tensor]] = {
    "tweedie": tweedie,
    "released_ve": released_ve_denoising,
    "none": no_denoising,
}


def standard_normal(shape: tuple[int, ...], like: Tensor, generator: Generator) -> Tensor:
    # Drawn on the CPU, so that a seed means the same noise on every device.
    return torch.randn(shape, generator=generator, dtype=like.dtype).to(like.device)
