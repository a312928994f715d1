"""The probability-flow ODE, whose marginals are those of the diffusion: samplers and likelihoods integrate it."""

from torch import Tensor

from indm.diffusion.objectives import NoiseFn
from indm.diffusion.sde import SDE


def ode_drift(noise_fn: NoiseFn, sde: SDE, z: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    r"""Probability-flow ODE in the variable :math:`A = -\log\mathrm{SNR}`, in which it is not stiff near :math:`t = 0`.

    .. math:: \frac{\mathrm d z}{\mathrm d A} = \frac{f\sigma^2}{g^2}\, z + \frac{\sigma}{2}\,\epsilon_\theta(z, t(A))

    Arguments:
        noise_fn: the noise prediction.
        sde: the diffusion.
        z: latents, shape (B, *).
        a: the variable, a scalar tensor.

    Returns:
        The derivative, shape (B, *), and the coefficient :math:`f\sigma^2/g^2` of its linear part, a scalar tensor.

    References:
        | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
        | https://arxiv.org/abs/2011.13456, equation 13
    """
    t = sde.time(a.double())
    linear = sde.drift(t) * (sde.sigma(t) / sde.diffusion(t)) ** 2
    times = t.expand(len(z))
    return linear.to(z.dtype) * z + 0.5 * sde.sigma(t).to(z.dtype) * noise_fn(z, times), linear
