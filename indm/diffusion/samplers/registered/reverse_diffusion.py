"""Reverse diffusion: the reverse SDE with the exact coefficients of each interval."""

from torch import Tensor

from indm.diffusion.objectives import per_sample
from indm.diffusion.path import ForwardPath
from indm.diffusion.samplers.loops import PredictorCorrector


def reverse_diffusion(path: ForwardPath, z: Tensor, noise: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    r"""Reverse-diffusion step with the exact coefficients of the interval.

    .. math:: z_s = \big(2 - \sqrt{1-G^2}\big) z_t - \tfrac{G^2}{\sigma}\epsilon_\theta + G\,\xi \quad (\text{VE: } z_t - \dots)

    ``z``, ``noise`` and the mean have shape (B, *), ``t`` and ``s`` (B,), and the scale of the noise (B, 1, ...).

    References:
        | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
        | https://arxiv.org/abs/2011.13456, equation 46
    """
    sde = path.sde
    shrink, big_g = sde.interval(t, s)
    return per_sample(2 - shrink, z) * z - per_sample(big_g**2 / sde.sigma(t), z) * noise, per_sample(big_g, z)


SAMPLER = PredictorCorrector(reverse_diffusion)
