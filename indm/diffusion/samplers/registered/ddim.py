"""DDIM: deterministic steps, exact where the noise prediction is constant."""

import torch
from torch import Tensor

from indm.diffusion.objectives import per_sample
from indm.diffusion.path import ForwardPath
from indm.diffusion.samplers.loops import PredictorCorrector


def ddim(path: ForwardPath, z: Tensor, noise: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    r"""Deterministic step of the probability-flow ODE, exact where the noise prediction is constant.

    .. math:: z_s = \frac{\alpha_s}{\alpha_t}(z_t - \sigma_t\epsilon_\theta) + \sigma_s\epsilon_\theta

    ``z``, ``noise`` and the mean have shape (B, *), ``t`` and ``s`` (B,), and the scale of the noise, which is 0, (B, 1, ...).

    References:
        | Denoising Diffusion Implicit Models (Song et al., 2021), https://arxiv.org/abs/2010.02502, equation 12
    """
    sde = path.sde
    ratio, sigma_t, sigma_s = (
        per_sample(value, z) for value in (sde.alpha(s) / sde.alpha(t), sde.sigma(t), sde.sigma(s))
    )
    return ratio * (z - sigma_t * noise) + sigma_s * noise, per_sample(torch.zeros_like(t), z)


SAMPLER = PredictorCorrector(ddim, corrector=False)
