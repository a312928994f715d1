r"""Small times at which a network was not trained: there, it predicts noise worse than an output of 0.

As t falls, noisy images tell less and less of their noise. The best prediction therefore has an error
:math:`\mathbb E\|\epsilon_\theta - \epsilon\|^2 \le D`, the error of an output of 0, at every time and for all data. With
:math:`e(t)` the error per dimension, the times from :math:`\epsilon` to t cost the bound with the fixed decoder

.. math:: C(t) = \frac1{2\ln 2} \int_{\epsilon}^{t} (e - 1)\, \mathrm dA

bits/dim more than the fixed decoder at t does. An exact network has no positive cost anywhere. A network whose largest cost is
positive, by more than chance, should be evaluated from the time of this cost on: it is another valid bound, and a lower one.
Networks of DDPM are trained from the first of their steps on, such as t = 1/1000, and give numbers below it all the same.
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from indm.diffusion.objectives import NoiseFn, perturb
from indm.diffusion.sde import SDE

# Times that are tried have two digits, eight in each power of ten, and end here.
DIGITS, LATEST = (1.0, 1.3, 1.8, 2.4, 3.2, 4.2, 5.6, 7.5), 0.05
# Draws of noise for each image and time; smallest cost in bits/dim, and in standard errors over images.
DRAWS, SMALLEST, ERRORS = 2, 0.01, 3.0


@dataclass(frozen=True)
class Untrained:
    """Small times of a network that should be left out.

    Arguments:
        first: the time from which on the network is to be used.
        cost: by how much the bound, with the learned decoder, is lower from this time on; infinite where the network
            gives no finite numbers.
        eps: truncation time of the evaluation.
        unit: unit of the cost.
    """

    first: float
    cost: float
    eps: float
    unit: str = "bits/dim"

    def words(self) -> str:
        """Describe the finding and its remedy in a sentence."""
        by = (
            f", which costs {self.cost:.3f} {self.unit}" if math.isfinite(self.cost) else ", or gives no finite numbers"
        )
        return (
            f"The network was probably not trained, or hardly, below t = {self.first:g}: from t = {self.eps:g} to there, it "
            f"predicts noise worse than an output of 0{by}; set eps to {self.first:g}"
        )


def tried_times(eps: float) -> list[float]:
    """Return eps, and the times above it that are tried."""
    lattice = [digit * 10.0**power for power in range(-9, 0) for digit in DIGITS]
    return [eps, *(float(f"{time:.2g}") for time in lattice if eps < time <= LATEST)]


@torch.no_grad()
def find_untrained(noise_fn: NoiseFn, sde: SDE, eps: float, x: Tensor, generator: Generator) -> Untrained | None:
    """Return the small times of a network that should be left out, or ``None`` if there are none.

    Arguments:
        noise_fn: the noise prediction.
        sde: the diffusion.
        eps: truncation time of the evaluation.
        x: a few images as the network sees them, shape (N, *), N at least 2.
        generator: source of the noise, on the CPU.
    """
    times = tried_times(eps)
    if len(times) < 2:
        return None
    excess = torch.stack([_excess(noise_fn, sde, time, x, generator) for time in times], 1)
    costs = _costs(excess, sde.antiderivative(torch.tensor(times, dtype=torch.float64)))
    if not excess.isfinite().all():
        last = int((~excess.isfinite()).any(0).nonzero()[-1])
        return Untrained(times[min(last + 1, len(times) - 1)], math.inf, eps)
    at = int(costs.mean(0).argmax())
    cost = costs[:, at]
    if float(cost.mean()) <= max(SMALLEST, ERRORS * float(cost.std() / len(cost) ** 0.5)):
        return None
    # The learned decoder, which this time has too, is at eps as bad as the network there.
    decoders = (excess[:, 0] - excess[:, at]) / (2 * math.log(2))
    return Untrained(times[at], float((cost + decoders).mean()), eps)


def _excess(noise_fn: NoiseFn, sde: SDE, time: float, x: Tensor, generator: Generator) -> Tensor:
    """Return the error of the prediction minus the error of an output of 0, per dimension, for each image (N,), on the CPU."""
    t = torch.full((len(x),), time, dtype=torch.float64, device=x.device)
    found = []
    for _ in range(DRAWS):
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
        # Somebody's network may raise anything where it was not trained, such as an index out of its table.
        try:
            out = noise_fn(perturb(sde, x, t, noise), t).double()
        except Exception:
            out = torch.full_like(x, math.nan, dtype=torch.float64)
        # The squared noise of both errors cancels.
        found.append((out * (out - 2 * noise)).flatten(1).mean(1))
    return torch.stack(found).mean(0).cpu()


def _costs(excess: Tensor, a: Tensor) -> Tensor:
    """Return the cost of all times before each time, by the rule of trapezia, in bits/dim: (N, K) to (N, K)."""
    parts = 0.5 * (excess[:, 1:] + excess[:, :-1]) * a.diff() / (2 * math.log(2))
    return torch.cat([torch.zeros_like(excess[:, :1]), parts.cumsum(1)], 1)
