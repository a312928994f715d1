"""Stage ``toy2d``: INDM, DDPM++ and its controls on a known density at one length, with a row for every seed."""

import math
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Generator, Tensor

from indm.densities.cells import RIVALS, Cell, train_cells
from indm.densities.evaluation import (
    energy_distance,
    likelihood,
    midpoint,
    moved,
    path_ratio,
    sample,
    trajectories,
    true_gap,
)
from indm.densities.figures import forward_clouds, forward_coefficients, log_density, reverse_paths, square_grid
from indm.densities.known import DENSITIES, Density
from indm.densities.models import Stack, select
from indm.diffusion.path import LinearPath
from indm.diffusion.sde import SDE, T, build_sde
from indm.errors import ConvergenceError, DivergenceError
from indm.process import set_up
from indm.seeding import derive_seed
from indm.store.files import write_arrays, write_table
from indm.store.layout import Layout
from indm.store.provenance import Finished

if TYPE_CHECKING:
    from indm.bench.suite.schema.studies import Toy2dParams
    from indm.bench.suite.schema.suite import Suite

# Of the ODE, and of the sampler's steps.
TOLERANCE, GRID = 1e-4, "uniform"
# For the path ratio: number of paths per seed, and number of points on a path.
PATHS, PATH_POINTS = 200, 64
# For the figures: times of the forward diffusion, half the side of the square shown, and sizes.
TIMES = [0.0, 0.05, 0.15, 0.3, 1.0]
LIMIT, ARROW_LIMIT = 2.0, 1.3
DENSITY_GRID, ARROW_GRID, CLOUD, SHOWN_PATHS = 64, 11, 250, 40


def run(suite: "Suite", layout: Layout, name: str) -> Finished:
    """Write ``<name>.csv`` (a row per model, variant and seed) and ``<name>.safetensors`` (the figures' arrays)."""
    set_up("cpu", suite.threads)
    parameters, sde = suite.toy2d, build_sde("vp", **suite.toy2d.vp.model_dump())
    job = parameters.datasets[name]
    cells = train_cells(
        job.density,
        job.seeds,
        sde,
        scale=job.scale,
        eps=parameters.eps,
        **parameters.lengths[job.length].model_dump(),
        **parameters.training.model_dump(),
    )
    rows, arrays = [], _frame(job.density, job.seeds[0])
    # A study of rivals also has the cost of a step, and how far a forward process has moved.
    rivals = not RIVALS.keys().isdisjoint(parameters.lengths[job.length].rates)
    for cell in cells:
        rows += [_row(cell, i, seed, sde, parameters, job.density, rivals) for i, seed in enumerate(job.seeds)]
        # Pictures are of the plane, of the first seed, and of linear diffusions of a latent.
        if arrays["data"].shape[1] == 2 and _is_linear(cell.stack, sde):
            shown = _shown(select(cell.stack, slice(1)), sde, arrays, parameters, job.density)
            arrays |= {f"{cell.model}/{cell.variant}/{key}": value.float() for key, value in shown.items()}
    table = pd.DataFrame(rows)
    if "nelbo_excess" not in table:
        raise DivergenceError(
            f"toy2d.datasets.{name}: found no seed with finite numbers; lower toy2d.lengths.{job.length}.rates"
        )
    write_table(layout.toy2d / f"{name}.csv", table)
    write_arrays(layout.toy2d / f"{name}.safetensors", arrays)
    return Finished(layout.toy2d / name)


def _is_linear(stack: Stack, sde: SDE) -> bool:
    return type(stack.path(sde)) is LinearPath


def _row(cell: Cell, i: int, seed: int, sde: SDE, parameters: "Toy2dParams", name: str, rivals: bool) -> dict[str, Any]:
    """Measure a cell for one seed, alone, so that other seeds do not matter; without numbers if it has failed."""
    stack = select(cell.stack, slice(i, i + 1))
    try:
        numbers = _numbers(stack, sde, parameters, name, seed, gap=cell.variant == "", rivals=rivals)
    except ConvergenceError:
        numbers = {}
    sound = numbers if all(math.isfinite(value) for value in numbers.values()) else {}
    identity = {"model": cell.model, "variant": cell.variant, "seed": seed}
    sizes = {"parameters": cell.parameters, "train_flops": cell.flops}
    return identity | sizes | ({"step_flops": cell.step_flops} if rivals else {}) | sound


def _numbers(
    stack: Stack, sde: SDE, parameters: "Toy2dParams", name: str, seed: int, *, gap: bool, rivals: bool
) -> dict[str, float]:
    """Measure a stack of one replica; all models of a seed are measured on the same draws. Likelihoods are in bits/dim.

    The variational gap, the samples and their paths are those of a linear diffusion of the latent, and absent for other paths.
    """

    def draws(purpose: str) -> Generator:
        return Generator().manual_seed(derive_seed(name, seed, "toy2d", purpose))

    density, eps = DENSITIES[name](), parameters.eps
    x = density.sample(parameters.test_points, draws("test")).float()[None]
    log_p, bits = density.log_prob(x[0]), 1 / (density.dims * math.log(2))
    nelbo, nll = likelihood(
        stack,
        sde,
        x,
        eps=eps,
        time_draws=parameters.time_draws,
        tolerance=TOLERANCE,
        generator=draws("likelihood"),
    )
    found = {"nelbo_excess": bits * (nelbo + log_p).mean()}
    if stack.path(sde).has_ode:
        found |= {"nll_excess": bits * (nll + log_p).mean()}
        found |= {"gap": found["nelbo_excess"] - found["nll_excess"]}
    if rivals:
        found["moved"] = moved(stack, sde, x, eps, draws("moved"))
    if not _is_linear(stack, sde):
        return {key: float(value) for key, value in found.items()}
    if gap and density.dims == 2:
        importance = parameters.importance
        points = x[:, : importance.points]
        gaps = true_gap(
            stack, sde, points, eps=eps, paths=importance.paths, steps=importance.steps, generator=draws("importance")
        )
        found |= {key: value if key == "ess" else bits * value for key, value in gaps.items()}
    truth = density.sample(parameters.samples, draws("reference")).float()[None]
    for steps in parameters.sample_steps:
        drawn = sample(stack, sde, parameters.samples, steps, grid=GRID, eps=eps, generator=draws("sample"))
        found[f"energy_{steps}"] = energy_distance(drawn, truth)
    start = sde.prior_std * torch.randn(1, PATHS, density.dims, generator=draws("paths"))
    found["path_ratio"] = path_ratio(trajectories(stack, sde, start, PATH_POINTS, eps))
    found["midpoint"] = midpoint(stack, x)
    found["latent_std"] = stack.flow(x)[0].var(1).mean().sqrt()
    return {key: float(value) for key, value in found.items()}


def _frame(name: str, seed: int) -> dict[str, Tensor]:
    """Return the arrays that all models of a figure share; the data has shape (N, D)."""
    density: Density = DENSITIES[name]()
    data = density.sample(CLOUD, Generator().manual_seed(derive_seed(name, seed, "toy2d", "shown"))).float()
    arrows = square_grid(ARROW_LIMIT, ARROW_GRID)
    return {"data": data, "times": torch.tensor(TIMES), "limit": torch.tensor(LIMIT), "arrows": arrows}


def _shown(
    stack: Stack, sde: SDE, arrays: dict[str, Tensor], parameters: "Toy2dParams", name: str
) -> dict[str, Tensor]:
    """Compute the arrays of a model's row."""
    generator = Generator().manual_seed(derive_seed(name, "toy2d", "figures"))
    eps = parameters.eps
    drift, volatility = forward_coefficients(stack.flow, sde, arrays["arrows"], T)
    return {
        "clouds": forward_clouds(stack, sde, arrays["data"], TIMES, generator),
        "paths": reverse_paths(stack, sde, SHOWN_PATHS, PATH_POINTS, eps, generator),
        "log_density": log_density(stack, sde, square_grid(LIMIT, DENSITY_GRID), eps),
        "drift": drift,
        "volatility": volatility,
    }
