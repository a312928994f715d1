"""What a forward process returned where a bound was measured, compared with its numbers in float64."""

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from indm.diffusion.checks.findings import entry, where
from indm.diffusion.checks.points import Points, expected_entropy, expected_error, expected_prior
from indm.diffusion.objectives import NoiseFn
from indm.diffusion.path import ForwardPath

# Calls of each method that are kept, and samples of each call, chosen when the path has returned.
CALLS, SAMPLES = 6, 2
# The largest difference between float32 and float64, relative to the dimensions plus the number. Rounding takes less than a tenth.
ROUNDING = 1e-4


class Asked(NamedTuple):
    """Samples of a call: latents, noises and predictions (N, *), times (N,), and what the path returned, (N,).

    The prior and the entropy have neither noises, predictions nor times.
    """

    x: Tensor
    noise: Tensor
    prediction: Tensor
    t: Tensor
    found: Tensor


class Notes:
    """Keeps random calls of a forward process: its error, its decoder, its prior and its entropy.

    Arguments:
        path: the forward process, whose methods note their calls from now on.
        eps: truncation time.
    """

    def __init__(self, path: ForwardPath, eps: float) -> None:
        self.kept: dict[str, list[Asked]] = {}
        self._calls: dict[str, int] = {}
        self._chance = random.SystemRandom()
        error, decoder, prior, entropy = path.error, path.decoder, path.prior, path.entropy

        def noted_error(noise_fn: NoiseFn, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
            last = _Last(noise_fn)
            return self._keep("error", z0, noise, last, t, error(last.ask, z0, t, noise))

        def noted_decoder(noise_fn: NoiseFn, z0: Tensor, at: float, noise: Tensor) -> Tensor:
            last, t = _Last(noise_fn), torch.full((len(z0),), eps, dtype=torch.float64)
            return self._keep("decoder", z0, noise, last, t, decoder(last.ask, z0, at, noise))

        def noted_prior(z0: Tensor) -> Tensor:
            t = torch.full((len(z0),), eps, dtype=torch.float64)
            return self._keep("prior", z0, torch.zeros_like(z0), _Last(lambda z, t: z), t, prior(z0))

        def noted_entropy(z0: Tensor, length: float | Tensor, at: float) -> float | Tensor:
            found, t = entropy(z0, length, at), torch.full((len(z0),), eps, dtype=torch.float64)
            each = torch.as_tensor(found).expand(len(z0))
            self._keep("entropy", z0, torch.zeros_like(z0), _Last(lambda z, t: z), t, each)
            return found

        methods: dict[str, Callable[..., Any]] = {
            "error": noted_error,
            "decoder": noted_decoder,
            "prior": noted_prior,
            "entropy": noted_entropy,
        }
        for name, method in methods.items():
            # Paths are frozen.
            object.__setattr__(path, name, method)

    def _keep(self, name: str, x: Tensor, noise: Tensor, last: "_Last", t: Tensor, found: Tensor) -> Tensor:
        """Keep a call in the place of an earlier one, so that each call has the same chance, and return what was found."""
        kept, number = self.kept.setdefault(name, []), self._calls.get(name, 0)
        self._calls[name] = number + 1
        place = number if number < CALLS else self._chance.randrange(number + 1)
        if place < CALLS:
            rows = torch.tensor(self._chance.sample(range(len(x)), min(SAMPLES, len(x))))
            prediction = noise if last.prediction is None else last.prediction
            asked = Asked(*(part.detach()[rows].double() for part in (x, noise, prediction, t, found)))
            kept[place : place + 1] = [asked]
        return found


class _Last:
    """A network, and its last prediction (B, *); a path cannot tell it from another function."""

    def __init__(self, noise_fn: NoiseFn) -> None:
        self.noise_fn = noise_fn
        self.prediction: Tensor | None = None

    def ask(self, z: Tensor, t: Tensor) -> Tensor:
        self.prediction = self.noise_fn(z, t)
        return self.prediction


@torch.no_grad()
def check_noted(path: ForwardPath, eps: float, notes: Notes) -> Iterator[str]:
    """Compare what was noted with the same forward process in float64: its decoder by itself, all else by independent formulas.

    Yields:
        What was found and expected, a line each.
    """
    for name, calls in notes.kept.items():
        asked = Asked(*(torch.cat(parts) for parts in zip(*calls, strict=True)))
        at, dims = Points(path, asked.x, asked.noise, asked.prediction, asked.t), asked.x[0].numel()
        expected = _expected(name, at, eps)
        if (off := ~((asked.found - expected).abs() <= ROUNDING * (dims + expected.abs()))).any():
            yield (
                f"{name}: found {entry(asked.found, off)} where the bound was measured, expected {entry(expected, off)} as in "
                f"float64, {where(at, off)}"
            )


def _expected(name: str, at: Points, eps: float) -> Tensor:
    if name == "error":
        return expected_error(at)
    if name == "prior":
        return torch.cat([expected_prior(at.alone(i)) for i in range(len(at.x))])
    if name == "entropy":
        return torch.cat([expected_entropy(at.alone(i), eps) for i in range(len(at.x))])
    return at.path.decoder(lambda z, t: at.prediction, at.x, eps, at.noise)
