"""The probability-flow ODE, by Euler's method."""

from torch import Tensor

from indm.diffusion.samplers.loops import Derivative, FixedStepOde

LABEL = "ODE, Euler"
CALLS = 1
CORRECTOR = False


def euler(derivative: Derivative, z: Tensor, a: Tensor, b: Tensor) -> Tensor:
    r"""Euler step of an ODE from ``a`` to ``b``.

    .. math:: z_b = z_a + (b - a)\, \dot z(z_a, a)
    """
    return z + (b - a).to(z.dtype) * derivative(z, a)


SAMPLER = FixedStepOde(euler)
