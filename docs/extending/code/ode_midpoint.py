"""The probability-flow ODE, by the midpoint method."""

from torch import Tensor

from indm.diffusion.samplers.loops import Derivative, FixedStepOde


def midpoint(derivative: Derivative, z: Tensor, t: Tensor, s: Tensor) -> Tensor:
    r"""Midpoint step of an ODE from ``t`` to ``s``.

    .. math:: z_s = z_t + (s - t)\, \dot z\big(z_t + \tfrac{s - t}2 \dot z(z_t, t),\, \tfrac{t + s}2\big)
    """
    step = (s - t).to(z.dtype)
    return z + step * derivative(z + step / 2 * derivative(z, t), (t + s) / 2)


SAMPLER = FixedStepOde(midpoint)
