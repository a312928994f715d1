r"""The outputs of other people's networks, read as noise predictions, and the checks of a network before it is evaluated.

With :math:`z = \alpha x + \sigma\epsilon`, a convention fixes the network's input and condition, and reads its output:

- ``noise``: :math:`\epsilon_\theta(z, t)`.
- ``score``: :math:`s_\theta(z, t)`, as in score_sde, so that :math:`\epsilon_\theta = -\sigma s_\theta`.
- ``denoiser``: :math:`D_\theta(z/\alpha;\, \sigma/\alpha)`, as in EDM, so that
  :math:`\epsilon_\theta = (z - \alpha D_\theta)/\sigma`.
- ``velocity``: :math:`u_\theta\big(\tfrac{z}{\alpha + \sigma}, \tau\big)`, an estimate of :math:`\epsilon - x` at
  :math:`\tau = \tfrac{\sigma}{\alpha + \sigma}`, as in rectified flow, where noise is at 1, so that
  :math:`\epsilon_\theta = \tfrac{z + \alpha u_\theta}{\alpha + \sigma}`.
- ``v``: :math:`v_\theta(z, t)`, an estimate of :math:`\alpha\epsilon - \sigma x`, so that
  :math:`\epsilon_\theta = \tfrac{\sigma z + \alpha v_\theta}{\alpha^2 + \sigma^2}`.

References:
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), https://arxiv.org/abs/2206.00364
    | Flow Straight and Fast (Liu et al., 2022), https://arxiv.org/abs/2209.03003
    | Progressive Distillation for Fast Sampling of Diffusion Models (Salimans & Ho, 2022), https://arxiv.org/abs/2202.00512
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from indm.diffusion.objectives import NoiseFn, per_sample, perturb
from indm.diffusion.sde import SDE
from indm.errors import DivergenceError, ParamsError

Network = Callable[[Tensor, Tensor], Tensor]
"""Somebody's network: an input (B, *) and a condition (B,), both of one floating-point type, to an output (B, *)."""
# Times at which a network is tried: late, because early noise cannot be predicted well.
TRIED = (0.3, 0.6, 0.9)
# A right reading has less than this share of the error of an output of 0.
HALF = 0.5


@dataclass(frozen=True)
class Convention:
    """How a network is called and read.

    Arguments:
        inputs: maps t, alpha and sigma, each (B,), to the divisor of z and to the condition, each (B,).
        noise: maps z, the output, alpha and sigma, each broadcast over (B, *), to the noise prediction (B, *).
    """

    inputs: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    noise: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def _as_it_is(t: Tensor, a: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ones_like(a), t


CONVENTIONS = {
    "noise": Convention(_as_it_is, lambda z, out, a, s: out),
    "score": Convention(_as_it_is, lambda z, out, a, s: -s * out),
    "denoiser": Convention(lambda t, a, s: (a, s / a), lambda z, out, a, s: (z - a * out) / s),
    "velocity": Convention(lambda t, a, s: (a + s, s / (a + s)), lambda z, out, a, s: (z + a * out) / (a + s)),
    "v": Convention(_as_it_is, lambda z, out, a, s: (s * z + a * out) / (a**2 + s**2)),
}


def noise_fn(network: Network, sde: SDE, kind: str) -> NoiseFn:
    """Return the noise prediction of a network whose convention is ``kind``, a key of :data:`CONVENTIONS`.

    Raises:
        ParamsError: if there is no such convention.
    """
    if kind not in CONVENTIONS:
        raise ParamsError(f"kind: found {kind!r}, expected one of: {', '.join(CONVENTIONS)}")

    def predict(z: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (per_sample(value(t.expand(len(z))), z) for value in (sde.alpha, sde.sigma))
        return CONVENTIONS[kind].noise(z, _output(network, sde, kind, z, t), alpha, sigma)

    return predict


def _output(network: Network, sde: SDE, kind: str, z: Tensor, t: Tensor) -> Tensor:
    t = t.expand(len(z))
    divisor, condition = CONVENTIONS[kind].inputs(t, sde.alpha(t), sde.sigma(t))
    return network(z / per_sample(divisor, z), condition.to(z.dtype))


def check_network(network: Network, sde: SDE, kind: str, x: Tensor, generator: Generator) -> None:
    """Try a network at three times.

    Arguments:
        network: the network.
        sde: the diffusion.
        kind: the network's convention.
        x: dequantised images, shape (B, *).
        generator: source of the noise, on the CPU.

    Raises:
        ParamsError: if the network fails, its output has another shape, cannot be differentiated, or does not depend on the
            condition, or fits another convention or sign.
        DivergenceError: if its output is not finite.
    """
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
    errors = dict.fromkeys(((name, sign) for name in CONVENTIONS for sign in (1, -1, 0)), 0.0)
    for time in TRIED:
        t = torch.full((len(x),), time, dtype=torch.float64, device=x.device)
        z = perturb(sde, x, t, noise)
        out = _sound_output(network, sde, kind, z, t)
        alpha, sigma = (per_sample(value(t), z) for value in (sde.alpha, sde.sigma))
        for name, sign in errors:
            read = CONVENTIONS[name].noise(z, sign * out, alpha, sigma)
            errors[name, sign] += (read - noise).square().mean().item() / len(TRIED)
    _check_condition(network, sde, kind, x)
    _check_reading(kind, errors)


def _sound_output(network: Network, sde: SDE, kind: str, z: Tensor, t: Tensor) -> Tensor:
    """Call a network as the ODE does, and return its output without gradient."""
    with torch.enable_grad():
        try:
            out = _output(network, sde, kind, z.clone().requires_grad_(), t)
        except Exception as error:
            words = " ".join(str(error).split())[:300]
            raise ParamsError(
                f"network: called with an input {tuple(z.shape)} and a condition {tuple(t.shape)} of type {z.dtype}, it raised "
                f"{type(error).__name__}: {words}"
            ) from error
    found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
    if not isinstance(out, Tensor) or out.shape != z.shape:
        raise ParamsError(f"network: found an output {found}, expected the shape of its input, {tuple(z.shape)}")
    if not out.isfinite().all():
        raise DivergenceError(f"network: found numbers that are not finite at t = {t[0]:g}, expected finite ones")
    if not out.requires_grad:
        raise ParamsError(
            "network: found an output that cannot be differentiated by its input, as the ODE's divergence needs; remove "
            "torch.no_grad, inference_mode and detach from it"
        )
    return out.detach()


def _check_condition(network: Network, sde: SDE, kind: str, x: Tensor) -> None:
    """Compare the outputs for one input at the first and the last time."""
    times = torch.tensor([TRIED[0], TRIED[-1]], dtype=torch.float64, device=x.device)
    _, conditions = CONVENTIONS[kind].inputs(times, sde.alpha(times), sde.sigma(times))
    first, last = (network(x, condition.to(x.dtype).expand(len(x))) for condition in conditions)
    if torch.equal(first, last):
        raise ParamsError(
            f"network: found the same output for the conditions {conditions[0]:g} and {conditions[1]:g}, expected one that "
            "depends on its second argument"
        )


def _check_reading(kind: str, errors: dict[tuple[str, int], float]) -> None:
    """Refuse a network whose output is worse than 0, if with another sign or convention it is much better than 0."""
    shares = {(name, sign): error / errors[name, 0] for (name, sign), error in errors.items()}
    name, sign = best = min(shares, key=lambda reading: shares[reading])
    if shares[kind, 1] > 1 and shares[best] < HALF:
        raise ParamsError(
            f"network: read as {kind}, it predicts noise {shares[kind, 1]:.2f} times as badly as an output of 0, read as "
            f"{'-' if sign < 0 else ''}{name}, {shares[best]:.2f} times; set the kind to {name}"
            + (", and change the sign of the output" if sign < 0 else "")
        )
