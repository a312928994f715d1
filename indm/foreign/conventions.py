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

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from indm.diffusion.objectives import NoiseFn, per_sample
from indm.diffusion.sde import SDE

Network = Callable[..., Any]
"""Somebody's network: an input (B, *) and a second argument (B,), both of one floating-point type, to an output (B, *)."""
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

Second = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From t (tau for a velocity), alpha and sigma to the second argument, each (B,)."""
SECOND: dict[str, Second] = {
    "t": lambda t, a, s: t,
    "t/999": lambda t, a, s: t / 999,
    "1-t": lambda t, a, s: 1 - t,
    "sigma": lambda t, a, s: s,
    "alpha_bar": lambda t, a, s: a**2,
    "sigma/alpha": lambda t, a, s: s / a,
    "log(sigma/alpha)/4": lambda t, a, s: torch.log(s / a) / 4,
    "log(sigma/alpha)": lambda t, a, s: torch.log(s / a),
    "2*log(sigma/alpha)": lambda t, a, s: 2 * torch.log(s / a),
    "log_snr": lambda t, a, s: 2 * torch.log(a / s),
    "log_snr/2": lambda t, a, s: torch.log(a / s),
}
"""Those of :data:`~indm.foreign.kinds.SECONDS` that do not count steps."""
COUNTED = re.compile(r"(\d+)\*t(-1)?|\((\d+)\*t\)\.long\(\)")


def find_second(name: str) -> Second | None:
    """Return a second argument by its name, ``None`` if there is none; steps may be of any number N: ``N*t-1``."""
    if name in SECOND:
        return SECOND[name]
    if (found := COUNTED.fullmatch(name)) is None:
        return None
    times, before, whole = found.groups()
    if whole:
        return lambda t, a, s: (int(whole) * t).long().clamp(0, int(whole) - 1)
    first = 1 if before else 0
    return lambda t, a, s: (int(times) * t - first).clamp(min=0)


def own_second(kind: str) -> str:
    """Return the name of the second argument of a kind, one of :data:`~indm.foreign.kinds.SECONDS`."""
    return "sigma/alpha" if CONVENTIONS[kind].inputs is _scaled else "t"


def second_inputs(kind: str, second: str | None) -> Inputs:
    """Return how a kind is called, with another second argument than its own unless that is ``None``."""
    own, found = CONVENTIONS[kind].inputs, None if second is None else find_second(second)
    if found is None:
        return own

    def inputs(t: Tensor, a: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        divisor, condition = own(t, a, s)
        return divisor, found(condition if own is _straight else t, a, s)

    return inputs


@dataclass(frozen=True)
class Called:
    """Somebody's network, with what it gets besides its input and its second argument.

    Arguments:
        network: the network.
        conditions: labels or context of N images, shape (N, *), the third argument; ``None`` if it takes two.
        second: what it gets as its second argument, a name of :data:`~indm.foreign.kinds.SECONDS`; ``None`` for the one of its
            kind.
        has_variances: whether its output has twice the channels of its input, the second half for learned variances.
    """

    network: Network
    conditions: Tensor | None = None
    second: str | None = None
    has_variances: bool = False

    def whole(self, images: Tensor | slice) -> Network:
        """Return the network for images by their numbers: a function of an input and a second argument."""

        def call(z: Tensor, condition: Tensor) -> Tensor:
            if self.conditions is None:
                return tensor_of(self.network(z, condition))
            given = self.conditions[images].to(z.device)
            # The ODE from noisy images and from the images themselves is solved at once: copies of a batch follow one another.
            return tensor_of(self.network(z, condition, torch.cat([given] * (len(z) // len(given)))))

        return call

    def of(self, images: Tensor | slice) -> Network:
        """Return the network for images by their numbers, without learned variances."""
        call = self.whole(images)
        return (lambda z, condition: call(z, condition).chunk(2, 1)[0]) if self.has_variances else call


def tensor_of(out: Any) -> Any:
    """Return the tensor of an output: diffusers' networks return objects with ``sample``, or tuples of one tensor."""
    if isinstance(found := getattr(out, "sample", None), Tensor):
        return found
    return out[0] if isinstance(out, tuple) and len(out) == 1 else out


def noise_fn(network: Network, sde: SDE, kind: str, second: str | None = None) -> NoiseFn:
    """Return the noise prediction of a network whose convention is ``kind``, a key of :data:`CONVENTIONS`."""
    inputs = second_inputs(kind, second)

    def predict(z: Tensor, t: Tensor) -> Tensor:
        return read(output(network, sde, inputs, z, t), sde, kind, z, t)

    return predict


def output(network: Network, sde: SDE, inputs: Inputs, z: Tensor, t: Tensor) -> Tensor:
    """Return the output of a network, (B, *), for z (B, *) at the times t, (B,) or a scalar."""
    t = t.expand(len(z))
    divisor, condition = inputs(t, sde.alpha(t), sde.sigma(t))
    # A copy, because a network may change its arguments, and the times of a batch may share memory.
    dtype = z.dtype if condition.is_floating_point() else condition.dtype
    return network(z / per_sample(divisor, z), condition.to(dtype, copy=True))


def read(out: Tensor, sde: SDE, kind: str, z: Tensor, t: Tensor) -> Tensor:
    """Read an output (B, *) for z (B, *) at the times t, (B,) or a scalar, as a noise prediction (B, *)."""
    alpha, sigma = (per_sample(value(t.expand(len(z))), z) for value in (sde.alpha, sde.sigma))
    return CONVENTIONS[kind].noise(z, out.to(z.dtype), alpha, sigma)
