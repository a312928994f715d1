r"""Steps that samplers share: corrections at a time, and the final denoising step.

References:
    | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
    | https://arxiv.org/abs/2011.13456, section 4, appendix G
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from indm.diffusion.objectives import NoiseFn, per_sample
from indm.diffusion.sde import SDE


def langevin(noise_fn: NoiseFn, sde: SDE, z: Tensor, t: Tensor, snr: float, generator: Generator) -> Tensor:
    r"""Correct z, (B, *) to (B, *), by a Langevin step at the times t (B,), whose size a signal-to-noise ratio sets.

    .. math:: z' = z + a s_\theta + \sqrt{2a}\,\xi, \qquad a = 2\alpha\,\big(\mathrm{snr}\,\|\xi\|/\|s_\theta\|\big)^2

    with batch means of the norms, and :math:`\alpha = 1 - \beta(t)/1000` under VP and 1 under VE.

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
    r"""Return the mean of :math:`z_0` given :math:`z_t`, (B, *) to (B, *), at the times t (B,).

    .. math:: E[z_0 \mid z_t] = \frac{z_t - \sigma_t\epsilon_\theta}{\alpha_t}

    References:
        | Tweedie's Formula and Selection Bias (Efron, 2011), https://doi.org/10.1198/jasa.2011.tm11181, equation 1.4
    """
    return (z - per_sample(sde.sigma(t), z) * noise_fn(z, t)) / per_sample(sde.alpha(t), z)


def released_ve_denoising(noise_fn: NoiseFn, sde: SDE, z: Tensor, t: Tensor) -> Tensor:
    r"""Take the last step of the released VE runs, which is longer than :func:`tweedie`; (B, *) to (B, *) at the times t (B,).

    .. math:: z + \tfrac12 g(t)^2 (t + 1)\, s_\theta = z - \tfrac{g^2(t + 1)}{2\sigma_t}\,\epsilon_\theta

    It is half a step of the reverse SDE from t to ``sampling.pc_denoise_time = -1`` (``sampling.py``, ``denoise_update_fn``).
    Near t = 0 it is :math:`\ln(\sigma_{\max}/\sigma_{\min})` times as long as the step of :func:`tweedie`.
    """
    return z - per_sample(sde.diffusion(t) ** 2 * (t + 1) / (2 * sde.sigma(t)), z) * noise_fn(z, t)


def no_denoising(noise_fn: NoiseFn, sde: SDE, z: Tensor, t: Tensor) -> Tensor:
    """Return the latents unchanged, (B, *) to (B, *)."""
    return z


DENOISERS: dict[str, Callable[[NoiseFn, SDE, Tensor, Tensor], Tensor]] = {
    "tweedie": tweedie,
    "released_ve": released_ve_denoising,
    "none": no_denoising,
}


def standard_normal(shape: tuple[int, ...], like: Tensor, generator: Generator) -> Tensor:
    """Draw from N(0, I), with a shape, and the type and device of ``like``; the generator is on the CPU."""
    # Drawn on the CPU, so that a seed gives the same noise on every device.
    return torch.randn(shape, generator=generator, dtype=like.dtype).to(like.device)
