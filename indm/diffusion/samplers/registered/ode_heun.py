"""The probability-flow ODE, by Heun's method."""

from torch import Tensor

from indm.diffusion.samplers.loops import Derivative, FixedStepOde

LABEL = "ODE, Heun"
CALLS = 2
CORRECTOR = False


def heun(derivative: Derivative, z: Tensor, a: Tensor, b: Tensor) -> Tensor:
    r"""Heun step of an ODE from ``a`` to ``b``.

    .. math:: z_b = z_a + \tfrac{b - a}2 \big(\dot z(z_a, a) + \dot z(z_a + (b - a)\, \dot z(z_a, a),\, b)\big)

    References:
        | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022)
        | https://arxiv.org/abs/2206.00364, algorithm 1
    """
    step, slope = (b - a).to(z.dtype), derivative(z, a)
    end = derivative(z + step * slope, b)
    return z + step * ((slope + end) / 2)


SAMPLER = FixedStepOde(heun)
