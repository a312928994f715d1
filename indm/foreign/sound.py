r"""What every network must do before it is evaluated: give an output of the right shape that repeats and depends on the noise.

The network is called at a few late times, because early noise cannot be predicted well:

- its output has the shape of its input, finite real numbers, and a derivative by the input;
- it depends on the condition;
- it is the same when the network is called again (dropout changes it), and in halves of the batch (batch norm in training mode
  changes it), because an output that varies has no likelihood.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from indm.diffusion.objectives import perturb
from indm.diffusion.sde import SDE
from indm.errors import DivergenceError, ParamsError
from indm.foreign.conventions import Called, Network, output, second_inputs

# Times at which a network is tried.
TRIED = (0.3, 0.6, 0.9)
# Share of an output's size by which it may vary: a rounding step of bfloat16, which networks may use inside.
ROUNDING = 2**-8
EVAL = "call .eval() on the network, and on every module that its function calls"


@dataclass(frozen=True)
class Variation:
    """How much an output varies, as shares of its root mean square.

    Arguments:
        calls: between two calls with the same arguments.
        halves: between the whole batch and its halves.
    """

    calls: float = 0.0
    halves: float = 0.0

    def words(self) -> str:
        """Describe the variation and its likely cause; empty if it is rounding."""
        if self.calls > ROUNDING:
            return (
                f"its output changes by {self.calls:.1%} of its size when it is called again with the same arguments, as "
                "dropout in training mode makes it"
            )
        if self.halves > ROUNDING:
            return (
                f"its output for an image changes by {self.halves:.1%} of its size with the other images of the batch, as "
                "batch norm in training mode makes it"
            )
        return ""


def check_network(network: Called, sde: SDE, kind: str, x: Tensor, generator: Generator) -> Variation:
    """Try a network, as it is described, at three times.

    Arguments:
        network: the network.
        sde: the diffusion.
        kind: the network's convention.
        x: dequantised images in the range of the network's data, shape (B, *), B at least 2.
        generator: source of the noise, on the CPU.

    Returns:
        How much its output varies.

    Raises:
        ParamsError: if the network fails, or its output has another shape, is not real, cannot be differentiated, or does not
            depend on the condition.
        DivergenceError: if its output is not finite.
    """
    inputs = second_inputs(kind, network.second)
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
    found = []
    for time in TRIED:
        t = torch.full((len(x),), time, dtype=torch.float64, device=x.device)
        z = perturb(sde, x, t, noise)

        def call(part: slice, z: Tensor = z, t: Tensor = t) -> Tensor:
            return _sound_output(lambda z, t: output(network.of(part), sde, inputs, z, t), z[part], t[part])

        found.append(_variation(call, len(x)))
    _check_condition(network, sde, kind, x)
    return Variation(max(one.calls for one in found), max(one.halves for one in found))


def _variation(call: Callable[[slice], Tensor], count: int) -> Variation:
    """Call a network twice for the whole batch, and then for its halves."""
    whole, again = call(slice(count)), call(slice(count))
    first, second = call(slice(count // 2)), call(slice(count // 2, count))
    return Variation(_share(again, whole), _share(torch.cat([first, second]), whole))


def _share(found: Tensor, expected: Tensor) -> float:
    """Return the root mean square difference of two outputs, (B, *) each, as a share of the size of the second one."""
    size = expected.double().square().mean().sqrt()
    return float((found.double() - expected.double()).square().mean().sqrt() / size.clamp(min=1e-30))


def _sound_output(call: Network, z: Tensor, t: Tensor) -> Tensor:
    """Call a network as the ODE does, and return its output without gradient."""
    with torch.enable_grad():
        try:
            out = call(z.clone().requires_grad_(), t)
        except Exception as error:
            raise ParamsError(
                f"network: called with an input {tuple(z.shape)} and a condition {tuple(t.shape)} of type {z.dtype}, it raised "
                f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            ) from error
    found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
    if not isinstance(out, Tensor) or out.shape != z.shape:
        raise ParamsError(f"network: found an output {found}, expected the shape of its input, {tuple(z.shape)}")
    if not out.is_floating_point():
        raise ParamsError(f"network: found an output of {out.dtype}, expected real numbers, such as {z.dtype}")
    if out.device != z.device:
        raise ParamsError(f"network: found an output on {out.device}, expected {z.device}; set device to the network's")
    if not out.isfinite().all():
        raise DivergenceError(f"network: found numbers that are not finite at t = {t[0]:g}, expected finite ones")
    if not out.requires_grad:
        raise ParamsError(
            "network: found an output that cannot be differentiated by its input, as the ODE's divergence needs; remove "
            "torch.no_grad, inference_mode and detach from it"
        )
    return out.detach()


def _check_condition(network: Called, sde: SDE, kind: str, x: Tensor) -> None:
    """Compare the outputs for one input at the first and the last time."""
    inputs = second_inputs(kind, network.second)
    times = torch.tensor([TRIED[0], TRIED[-1]], dtype=torch.float64, device=x.device)
    _, seconds = inputs(times, sde.alpha(times), sde.sigma(times))
    # With an input that does not change with the time.
    first, last = (
        output(network.of(slice(len(x))), sde, lambda t, a, s: (a / a, inputs(t, a, s)[1]), x, t) for t in times
    )
    if torch.equal(first, last) and first.any():
        raise ParamsError(
            f"network: found the same output for the second arguments {seconds[0]:g} and {seconds[1]:g}, expected one that "
            "depends on its second argument; if it takes another one, set `second`"
        )
