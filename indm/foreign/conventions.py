r"""The outputs of other people's networks, read as noise predictions.

With :math:`z = \alpha x + \sigma\epsilon`, a convention fixes the network's input and condition, and reads its output:

- ``noise``: :math:`\epsilon_\theta(z, t)`.
- ``score``: :math:`s_\theta(z, t)`, as in score_sde, so that :math:`\epsilon_\theta = -\sigma s_\theta`.
- ``clean``: :math:`x_\theta(z, t)`, an estimate of :math:`x`, so that
  :math:`\epsilon_\theta = (z - \alpha x_\theta)/\sigma`.
- ``v``: :math:`v_\theta(z, t)`, an estimate of :math:`\alpha\epsilon - \sigma x`, so that
  :math:`\epsilon_\theta = \tfrac{\sigma z + \alpha v_\theta}{\alpha^2 + \sigma^2}`.
- ``denoiser``: :math:`D_\theta(z/\alpha;\, \sigma/\alpha)`, as in EDM, so that
  :math:`\epsilon_\theta = (z - \alpha D_\theta)/\sigma`.
- ``velocity``: :math:`u_\theta\big(\tfrac{z}{\alpha + \sigma}, \tau\big)`, an estimate of :math:`\epsilon - x` at
  :math:`\tau = \tfrac{\sigma}{\alpha + \sigma}`, as in rectified flow, where noise is at 1, so that
  :math:`\epsilon_\theta = \tfrac{z + \alpha u_\theta}{\alpha + \sigma}`.

References:
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), https://arxiv.org/abs/2206.00364
    | Flow Straight and Fast (Liu et al., 2022), https://arxiv.org/abs/2209.03003
    | Progressive Distillation for Fast Sampling of Diffusion Models (Salimans & Ho, 2022), https://arxiv.org/abs/2202.00512
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from indm.diffusion.objectives import NoiseFn, per_sample
from indm.diffusion.sde import SDE

Network = Callable[[Tensor, Tensor], Tensor]
"""Somebody's network: an input (B, *) and a condition (B,), both of one floating-point type, to an output (B, *)."""
Inputs = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""From t, alpha and sigma, each (B,), to the divisor of z and to the condition, each (B,)."""


@dataclass(frozen=True)
class Convention:
    """How a network is called and read.

    Arguments:
        inputs: maps t, alpha and sigma, each (B,), to the divisor of z and to the condition, each (B,).
        noise: maps z, the output, alpha and sigma, each broadcast over (B, *), to the noise prediction (B, *).
    """

    inputs: Inputs
    noise: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def _as_it_is(t: Tensor, a: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ones_like(a), t


def _scaled(t: Tensor, a: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    return a, s / a


def _straight(t: Tensor, a: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    return a + s, s / (a + s)


CONVENTIONS = {
    "noise": Convention(_as_it_is, lambda z, out, a, s: out),
    "score": Convention(_as_it_is, lambda z, out, a, s: -s * out),
    "clean": Convention(_as_it_is, lambda z, out, a, s: (z - a * out) / s),
    "v": Convention(_as_it_is, lambda z, out, a, s: (s * z + a * out) / (a**2 + s**2)),
    "denoiser": Convention(_scaled, lambda z, out, a, s: (z - a * out) / s),
    "velocity": Convention(_straight, lambda z, out, a, s: (z + a * out) / (a + s)),
}
"""The convention of each of :data:`~indm.foreign.kinds.KINDS`."""


def noise_fn(network: Network, sde: SDE, kind: str) -> NoiseFn:
    """Return the noise prediction of a network whose convention is ``kind``, a key of :data:`CONVENTIONS`."""

    def predict(z: Tensor, t: Tensor) -> Tensor:
        return read(output(network, sde, CONVENTIONS[kind].inputs, z, t), sde, kind, z, t)

    return predict


def output(network: Network, sde: SDE, inputs: Inputs, z: Tensor, t: Tensor) -> Tensor:
    """Return the output of a network, (B, *), for z (B, *) at the times t, (B,) or a scalar."""
    t = t.expand(len(z))
    divisor, condition = inputs(t, sde.alpha(t), sde.sigma(t))
    # A copy, because a network may change its arguments, and the times of a batch may share memory.
    return network(z / per_sample(divisor, z), condition.to(z.dtype, copy=True))


def read(out: Tensor, sde: SDE, kind: str, z: Tensor, t: Tensor) -> Tensor:
    """Read an output (B, *) for z (B, *) at the times t, (B,) or a scalar, as a noise prediction (B, *)."""
    alpha, sigma = (per_sample(value(t.expand(len(z))), z) for value in (sde.alpha, sde.sigma))
    return CONVENTIONS[kind].noise(z, out.to(z.dtype), alpha, sigma)
