"""Ancestral sampling: the posterior at the predicted z_0."""

import torch
from torch import Tensor

from indm.diffusion.objectives import per_sample
from indm.diffusion.samplers.loops import PredictorCorrector
from indm.diffusion.sde import SDE

LABEL = "ancestral"
CALLS = 1
CORRECTOR = True
ORDER = 1
SOUND = {("vp", "uniform"): 9, ("vp", "log_snr"): 7, ("ve", "uniform"): 6, ("ve", "log_snr"): 6}


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


SAMPLER = PredictorCorrector(ancestral)
