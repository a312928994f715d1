"""Choose rates and scales for the study of known densities, on pilot seeds that no suite has.

For each length, each model has nine candidates of rates; a model that costs half of INDM's operations has two seeds instead of one,
so that the searches cost about the same. The rates with the lowest NELBO + log p win, averaged over four densities, with a failed
training as infinite. A scale is chosen for each density and length, at the rates of DDPM++, as well, and then best-scale's rates.

    python -m benchmarks.known_densities params/densities.yaml

prints a line for each candidate and the winners.
"""

import itertools
import math
import sys
from functools import cache
from pathlib import Path

import torch
from torch import Generator

from indm.densities.evaluation import bound
from indm.densities.known import DENSITIES
from indm.densities.models import CouplingFlow, Flow, LinearMap, Scale, ScoreMLP, Stack, select
from indm.densities.training import train
from indm.diffusion.sde import build_sde
from indm.process import limit_threads
from indm.seeding import derive_seed
from indm.suite.load import load_suite

SEARCHED = ("moons", "mixture-2d", "mixture-8d", "steep-8d")
SEEDS = [900, 901]
ALONE = [(lr, 0.0) for lr in (0.003, 0.005, 0.0075, 0.012, 0.018, 0.027, 0.04, 0.06, 0.09)]
SCORE = (0.01, 0.02, 0.04)
CANDIDATES = {
    "ddpmpp": ALONE,
    "best-scale": ALONE,
    "same-compute": ALONE,
    "learned-linear": [*itertools.product(SCORE, (0.02, 0.06, 0.18))],
    "indm": [*itertools.product(SCORE, (0.01, 0.025, 0.06))],
}
SCALES = (1.0, 2.0, 3.0, 5.0, 8.0, 12.0)
SUITE = load_suite(Path(sys.argv[1] if len(sys.argv) > 1 else "params/densities.yaml")).toy2d
SDE = build_sde("vp", **SUITE.vp.model_dump())


def fitted(density: str, model: str, rates: tuple[float, float], steps: int, scale: float, seeds: list[int]) -> tuple[Stack, int]:
    """Train a model, and return it with its operations."""
    dims, sizes = DENSITIES[density]().dims, SUITE.training
    flows: dict[str, Flow] = {
        "indm": CouplingFlow(len(seeds), dims, sizes.couplings, sizes.coupling_width),
        "learned-linear": LinearMap(len(seeds), dims),
    }
    flow = flows.get(model, Scale(torch.full((len(seeds),), scale)))
    stack = Stack(ScoreMLP(len(seeds), dims, sizes.width, sizes.layers, SDE), flow)
    recipe = {"eps": SUITE.eps, "batch_size": sizes.batch_size, "ema_decay": sizes.ema_decay}
    known = DENSITIES[density]()
    return train(stack, SDE, known, density, seeds, steps=steps, lr=rates[0], map_lr=rates[1], **recipe)


@cache
def ratio(density: str) -> float:
    """Return the operations of a step of INDM, relative to DDPM++."""
    indm, plain = (fitted(density, model, (0.0, 0.0), 1, 1.0, [0])[1] for model in ("indm", "ddpmpp"))
    return indm / plain


@cache
def excess(density: str, length: str, model: str, rates: tuple[float, float], scale: float = 1.0) -> float:
    """Return the mean of NELBO + log p over the seeds, in bits/dim, without the reconstruction term."""
    seeds = SEEDS[:1] if model in ("indm", "same-compute") else SEEDS
    steps = round(SUITE.lengths[length].steps * (ratio(density) if model == "same-compute" else 1))
    stack, _ = fitted(density, model, rates, steps, scale, seeds)
    known, values = DENSITIES[density](), []
    for i, seed in enumerate(seeds):
        generator = Generator().manual_seed(derive_seed(density, seed, "pilot"))
        x = known.sample(SUITE.test_points, generator)
        nelbo = bound(select(stack, slice(i, i + 1)), SDE, x.float()[None], SUITE.eps, SUITE.time_draws, generator)
        values.append((nelbo[0] + known.log_prob(x)).mean().item() / known.dims / math.log(2))
    mean = sum(values) / len(values)
    return mean if math.isfinite(mean) else math.inf


def searched(length: str, model: str, scales: dict[str, float]) -> tuple[float, float]:
    """Return the best rates of a model at a length, and print all."""
    found = {
        rates: [excess(density, length, model, rates, scales.get(density, 1.0)) for density in SEARCHED]
        for rates in CANDIDATES[model]
    }
    best = min(found, key=lambda rates: sum(found[rates]))
    for rates, values in found.items():
        shown = " ".join(f"{value:.4f}" for value in values)
        print(length, model, *rates, "mean", f"{sum(values) / len(values):.4f}", "of", shown, "*" * (rates == best), flush=True)
    return best


def main() -> None:
    """Search each length."""
    limit_threads(1)
    torch.set_num_threads(1)
    for length in SUITE.lengths:
        plain = searched(length, "ddpmpp", {})
        scales = {}
        for density in DENSITIES:
            found = {scale: excess(density, length, "ddpmpp", plain, scale) for scale in SCALES}
            scales[density] = min(found, key=lambda scale: found[scale])
            print(length, density, "scale", scales[density], {scale: round(value, 4) for scale, value in found.items()}, flush=True)
        for model in ("best-scale", "learned-linear", "indm", "same-compute"):
            searched(length, model, scales if model == "best-scale" else {})


if __name__ == "__main__":
    main()
