"""Choose rates and scales for the study of known densities, and for its rivals, on pilot seeds that no suite has.

For each length, each model has nine candidates of rates, each trained with two seeds, and more where the best of two rates lies
at an end. The rates with the lowest NELBO + log p win, averaged over three densities, with a failed training as infinite. A
scale is chosen for each density and length, at the rates of DDPM++, and then the rates of best-scale.

    python -m benchmarks.known_densities params/densities.yaml LENGTH [MODEL ...]

prints a line for each candidate and the winners.
"""

import math
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from indm.densities.cells import trained_flow
from indm.densities.evaluation import bound
from indm.densities.known import DENSITIES
from indm.densities.models import Scale, ScoreMLP, Stack, initialise, select
from indm.densities.training import draws, nelbo_loss, train
from indm.diffusion.sde import build_sde
from indm.seeding import derive_seed
from indm.suite.load import load_suite
from indm.training.ema import ExponentialMovingAverage
from indm.training.flat import Flat
from indm.training.loop import learning_rate
from indm.training.trainer import BETAS

SEARCHED = ("moons", "mixture-8d", "steep-8d")
SEEDS = [900, 901]
ALONE = [(lr, 0.0) for lr in (0.003, 0.005, 0.0075, 0.012, 0.018, 0.027, 0.04, 0.06, 0.09)]
# Rates of a score network, a linear map or a few numbers, and a flow or an encoder, whose products are searched.
GRIDS = {
    "short": ((0.02, 0.04, 0.08), (0.02, 0.06, 0.18), (0.01, 0.03, 0.09)),
    "long": ((0.005, 0.01, 0.02), (0.006, 0.02, 0.06), (0.003, 0.01, 0.03)),
}
# Models with a second rate, and whether networks have it (a flow or an encoder) or a few numbers do.
WITH_A_MAP = {"indm": True, "learned-linear": False, "learned-range": False, "mulan": False, "diffenc": True}
SCALES = (0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0)
SUITE = load_suite(Path(sys.argv[1])).toy2d
SDE = build_sde("vp", **SUITE.vp.model_dump())


def built(model: str, dims: int, scales: list[float]) -> Stack:
    """Build a stack with a replica per scale, of which only models without a map make use."""
    sizes, replicas = SUITE.training, len(scales)
    couplings = {"couplings": sizes.couplings, "coupling_width": sizes.coupling_width}
    alone = model not in WITH_A_MAP
    flow = Scale(torch.tensor(scales)) if alone else trained_flow(model, replicas, dims, eps=SUITE.eps, **couplings)
    return Stack(ScoreMLP(replicas, dims, sizes.width, sizes.layers, SDE), flow)


def excess(density: str, model: str, steps: int, rates: list[tuple[float, float]], scales: list[float]) -> list[float]:
    """Train a replica per pair of rates, scale and seed; return means over seeds of NELBO + log p, in bits/dim."""
    known, seeds = DENSITIES[density](), SEEDS * len(rates)
    stack = built(model, known.dims, [scale for scale in scales for _ in SEEDS])
    if model == "same-compute":
        recipe: dict[str, Any] = {
            "eps": SUITE.eps,
            "batch_size": SUITE.training.batch_size,
            "ema_decay": 0.0,
            "lr": 0.0,
            "map_lr": 0.0,
        }
        one, other = (
            train(built(name, known.dims, [1.0]), SDE, known, density, [0], steps=1, **recipe)[1]
            for name in ("indm", "ddpmpp")
        )
        steps = round(steps * one / other)
    for part, label in ((stack.noise, "score"), (stack.flow, "flow")):
        initialise(part, [derive_seed(density, seed, "initialisation", label) for seed in seeds])
    average, weights = ExponentialMovingAverage(stack, SUITE.training.ema_decay), Flat(stack)
    peaks = [torch.tensor([pair[i] for pair in rates for _ in SEEDS]) for i in (0, 1)]
    parts = [
        (p, peak.view(-1, *[1] * (p.dim() - 1)))
        for part, peak in zip((stack.noise, stack.flow), peaks, strict=True)
        for p in part.parameters()
    ]
    state = [(torch.zeros_like(p), torch.zeros_like(p)) for p, _ in parts]
    for step, draw in enumerate(draws(known, density, seeds, steps, SUITE.training.batch_size)):
        gradients = torch.autograd.grad(nelbo_loss(stack, SDE, SUITE.eps, draw).sum(), [p for p, _ in parts])
        share = learning_rate(step, steps, 0, "cosine")
        for (p, peak), (first, second), gradient in zip(parts, state, gradients, strict=True):
            adam(p.data, gradient, first, second, share * peak, step + 1)
        average.update(weights)
    found = []
    for i, seed in enumerate(seeds):
        generator = Generator().manual_seed(derive_seed(density, seed, "pilot"))
        x = known.sample(SUITE.test_points, generator)
        alone = select(average.module, slice(i, i + 1))
        nelbo = bound(alone, SDE, x.float()[None], SUITE.eps, SUITE.time_draws, generator) + decoder(
            alone, x, generator
        )
        found.append((nelbo[0] + known.log_prob(x)).mean().item() / known.dims / math.log(2))
    means = [sum(found[i : i + len(SEEDS)]) / len(SEEDS) for i in range(0, len(found), len(SEEDS))]
    return [mean if math.isfinite(mean) else math.inf for mean in means]


@torch.no_grad()
def decoder(stack: Stack, x: Tensor, generator: Generator) -> Tensor:
    """Return the reconstruction term of a single replica's points (B, D), shape (1, B); learned ends of the noise move it."""
    z0 = stack.flow(x.float()[None])[0].flatten(0, 1)
    return stack.path(SDE).decoder(stack.noise_fn(), z0, SUITE.eps, torch.randn(z0.shape, generator=generator))[None]


def adam(p: Tensor, gradient: Tensor, first: Tensor, second: Tensor, rate: Tensor, step: int) -> None:
    """Take a step of Adam with a rate for each replica."""
    first.lerp_(gradient, 1 - BETAS[0])
    second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
    root = (second / (1 - BETAS[1] ** step)).sqrt_().add_(1e-8)
    p.sub_(rate * (first / (1 - BETAS[0] ** step)) / root)


def searched(name: str, steps: int, model: str, scales: dict[str, float]) -> tuple[float, float]:
    """Return the best rates of a model at a length, and print all.

    While the best of two rates lies at an end, candidates beyond that end follow, at most twice.
    """
    _, linear, flow = grids = GRIDS[name]
    score: Sequence[float] = grids[0]
    other: Sequence[float] = flow if WITH_A_MAP.get(model) else linear
    known = dict[tuple[float, float], float]()
    for _ in range(3):
        candidates = [*product(score, other)] if model in WITH_A_MAP else ALONE
        rates = [pair for pair in candidates if pair not in known]
        scaled = [[scales.get(density, 1.0)] * len(rates) for density in SEARCHED]
        if not rates:
            break
        found = [excess(density, model, steps, rates, scale) for density, scale in zip(SEARCHED, scaled, strict=True)]
        for pair, *values in zip(rates, *found, strict=True):
            known[pair] = sum(values) / len(values)
            print(name, model, *pair, f"mean {known[pair]:.4f} of", *(f"{value:.4f}" for value in values), flush=True)
        best = min(known, key=known.__getitem__)
        score, other = centred(score, best[0]), centred(other, best[1])
    print(name, model, *best, f"mean {known[best]:.4f} *", flush=True)
    return best


def centred(rates: Sequence[float], best: float) -> Sequence[float]:
    """Move three rates, each a factor apart, by one place if the best is at an end."""
    factor = rates[1] / rates[0]
    moves = {rates[0]: 1 / factor, rates[-1]: factor}
    return [float(f"{rate * moves.get(best, 1.0):.2g}") for rate in rates]


def main() -> None:
    """Search a length: all models, or the named ones."""
    torch.set_num_threads(1)
    name, *chosen = sys.argv[2:]
    length, scales = SUITE.lengths[name], dict[str, float]()
    steps, searching = length.steps, "best-scale" in length.rates
    for model in chosen or [model for model in length.rates if model != "frozen-flow"]:
        rates = searched(name, steps, model, scales if model == "best-scale" else {})
        for density in DENSITIES if model == "ddpmpp" and searching else ():
            found = excess(density, model, steps, [rates] * len(SCALES), [*SCALES])
            scales[density] = SCALES[found.index(min(found))]
            print(name, density, "scale", scales[density], *(f"{value:.4f}" for value in found), flush=True)


if __name__ == "__main__":
    main()
