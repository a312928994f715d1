"""The Euler-Maruyama method for the reverse SDE."""

import torch
from torch import Tensor

from indm.diffusion.objectives import per_sample
from indm.diffusion.path import ForwardPath
from indm.diffusion.samplers.loops import PredictorCorrector


def euler_maruyama(path: ForwardPath, z: Tensor, noise: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    r"""Euler-Maruyama step of the reverse SDE from ``t`` to ``s``.

    .. math:: z_s = z_t - \big(f z_t + \tfrac{g^2}{\sigma}\epsilon_\theta\big)(t - s) + g\sqrt{t-s}\,\xi

    ``z``, ``noise`` and the mean have shape (B, *), ``t`` and ``s`` (B,), and the scale of the noise (B, 1, ...).

    References:
        | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
        | https://arxiv.org/abs/2011.13456, equation 6 for the reverse SDE
    """
    sde = path.sde
    g = sde.diffusion(t)
    drift = per_sample(sde.drift(t), z) * z + per_sample(g**2 / sde.sigma(t), z) * noise
    return z - per_sample(t - s, z) * drift, per_sample(g * torch.sqrt(t - s), z)


SAMPLER = PredictorCorrector(euler_maruyama)
