"""The probability-flow ODE, by Heun's method in t."""

from torch import Tensor

from indm.diffusion.samplers.loops import Derivative, FixedStepOde


def heun(derivative: Derivative, z: Tensor, t: Tensor, s: Tensor) -> Tensor:
    r"""Heun step of an ODE from ``t`` to ``s``.

    .. math:: z_s = z_t + \tfrac{s - t}2 \big(\dot z(z_t, t) + \dot z(z_t + (s - t)\, \dot z(z_t, t),\, s)\big)

    The latents and the derivative have shape (B, *), ``t`` and ``s`` are scalar tensors, and the result has shape (B, *).

    The last step of algorithm 1, from the last time above 0 to 0, is an Euler step; here it is the sampler's denoising.

    References:
        | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022)
        | https://arxiv.org/abs/2206.00364, algorithm 1
    """
    step, slope = (s - t).to(z.dtype), derivative(z, t)
    end = derivative(z + step * slope, s)
    return z + step * ((slope + end) / 2)


SAMPLER = FixedStepOde(heun)
