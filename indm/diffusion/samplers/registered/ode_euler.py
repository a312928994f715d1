"""The probability-flow ODE, by Euler's method in t."""

from torch import Tensor

from indm.diffusion.samplers.loops import Derivative, FixedStepOde


def euler(derivative: Derivative, z: Tensor, t: Tensor, s: Tensor) -> Tensor:
    r"""Euler step of an ODE from ``t`` to ``s``.

    .. math:: z_s = z_t + (s - t)\, \dot z(z_t, t)

    The latents and the derivative have shape (B, *), ``t`` and ``s`` are scalar tensors, and the result has shape (B, *).
    """
    return z + (s - t).to(z.dtype) * derivative(z, t)


SAMPLER = FixedStepOde(euler)
