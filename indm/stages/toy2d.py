"""Stage ``toy2d``: INDM, DDPM++ and its controls on a two-dimensional dataset, with a row for every seed."""

from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Generator, Tensor

from indm.diffusion.sde import SDE, T, build_sde
from indm.errors import DivergenceError
from indm.process import set_up
from indm.seeding import derive_seed
from indm.store.files import write_arrays, write_table
from indm.store.layout import Layout
from indm.store.provenance import Finished
from indm.toy2d.cells import Cell, train_cells
from indm.toy2d.data import draw_splits
from indm.toy2d.evaluation import bound, likelihood, path_ratio, sample, sliced_wasserstein, trajectories
from indm.toy2d.figures import forward_clouds, forward_coefficients, log_density, reverse_paths, square_grid
from indm.toy2d.models import DIMS, Stack, select

if TYPE_CHECKING:
    from indm.suite.schema.studies import Toy2dParams
    from indm.suite.schema.suite import Suite


# For the path ratio: number of paths per seed, and number of points on a path.
PATHS, PATH_POINTS = 200, 128
# For the figures: times of the forward diffusion, half the side of the square shown, and sizes.
TIMES = [0.0, 0.05, 0.15, 0.3, 1.0]
LIMIT, ARROW_LIMIT = 2.0, 1.3
DENSITY_GRID, ARROW_GRID, CLOUD, SHOWN_PATHS = 64, 11, 250, 40


def run(suite: "Suite", layout: Layout, name: str) -> Finished:
    """Write ``<dataset>.csv`` (a row per model, variant and seed) and ``<dataset>.safetensors`` (the figures' arrays)."""
    set_up("cpu", suite.threads)
    parameters, sde = suite.toy2d, build_sde("vp", **suite.toy2d.vp.model_dump())
    splits = _splits(parameters, name)
    cells = train_cells(
        name, parameters.seeds, splits["train"], sde, eps=parameters.eps, **parameters.training.model_dump()
    )
    tables = [_evaluate(cell, sde, splits, parameters, name) for cell in cells]
    floor = 1000 * sliced_wasserstein(splits["floor"], splits["reference"])
    tables.append(_table("data", "", parameters.seeds, dict.fromkeys(_distances(parameters), floor)))
    write_table(layout.toy2d / f"{name}.csv", pd.concat(tables, ignore_index=True))
    write_arrays(layout.toy2d / f"{name}.safetensors", _arrays(cells, sde, splits["test"][0], parameters, name))
    return Finished(layout.toy2d / name)


def _splits(parameters: "Toy2dParams", name: str) -> dict[str, Tensor]:
    """Draw all splits, each with shape (S, N, 2); ``floor`` and ``reference`` are samples for the Wasserstein distance."""
    counts = {"train": parameters.train_points, "valid": parameters.valid_points, "test": parameters.test_points}
    counts |= dict.fromkeys(("reference", "floor"), parameters.samples)
    noise = parameters.datasets[name].noise
    return {split: draw_splits(name, count, noise, parameters.seeds, split) for split, count in counts.items()}


def _evaluate(cell: Cell, sde: SDE, splits: dict[str, Tensor], parameters: "Toy2dParams", name: str) -> pd.DataFrame:
    """Measure a cell for all its seeds; all cells are evaluated on the same draws."""

    def draws(purpose: str) -> Generator:
        return Generator().manual_seed(derive_seed(name, "toy2d", purpose))

    eps, stack = parameters.eps, cell.stack
    metrics = likelihood(
        stack,
        sde,
        splits["test"],
        eps=eps,
        time_draws=parameters.time_draws,
        tolerance=parameters.tolerance,
        generator=draws("test"),
    )
    metrics["gap"] = metrics["nelbo"] - metrics["nll"]
    metrics["valid_nelbo"] = bound(stack, sde, splits["valid"], eps, parameters.time_draws, draws("valid")).mean(1)
    for steps in parameters.sample_steps:
        x = sample(stack, sde, parameters.samples, steps, grid=parameters.grid, eps=eps, generator=draws("sample"))
        metrics[f"w1_{steps}"] = 1000 * sliced_wasserstein(x, splits["reference"])
    start = sde.prior_std * torch.randn(stack.replicas, PATHS, DIMS, generator=draws("paths"))
    metrics["path_ratio"] = path_ratio(trajectories(stack, sde, start, PATH_POINTS, eps))
    if wrong := ", ".join(metric for metric, values in metrics.items() if not values.isfinite().all()):
        place = f"toy2d.datasets.{name}: {cell.model} {cell.variant}".rstrip()
        raise DivergenceError(
            f"{place}: {wrong} not finite, expected finite numbers; lower toy2d.training's lr, flow_lr or map_lr, or "
            "toy2d.tolerance"
        )
    size = {"parameters": cell.parameters, "train_flops": cell.flops}
    return _table(
        cell.model, cell.variant, parameters.seeds, size | {metric: metrics[metric] for metric in _columns(parameters)}
    )


def _columns(parameters: "Toy2dParams") -> list[str]:
    return ["nelbo", "nll", "gap", "valid_nelbo", *_distances(parameters), "path_ratio", "latent_std"]


def _distances(parameters: "Toy2dParams") -> list[str]:
    return [f"w1_{steps}" for steps in parameters.sample_steps]


def _table(model: str, variant: str, seeds: list[int], columns: dict[str, Any]) -> pd.DataFrame:
    """Make a row for each of the S seeds from tensors (S,), and from numbers that hold for all seeds."""
    values = {key: value.tolist() if isinstance(value, Tensor) else value for key, value in columns.items()}
    return pd.DataFrame({"model": model, "variant": variant, "seed": seeds, **values})


def _arrays(cells: list[Cell], sde: SDE, x: Tensor, parameters: "Toy2dParams", name: str) -> dict[str, Tensor]:
    """Collect the figures' arrays: the data (N, 2), and results of INDM, DDPM++ and its learned maps for the first seed."""
    arrays = {"data": x, "times": torch.tensor(TIMES), "limit": torch.tensor(LIMIT)}
    arrays["arrows"] = square_grid(ARROW_LIMIT, ARROW_GRID)
    for cell in cells:
        if cell.variant == "" or cell.variant.startswith("learned-"):
            shown = _shown(select(cell.stack, slice(1)), sde, arrays, parameters, name)
            arrays |= {f"{cell.model}/{cell.variant}/{key}": value.float() for key, value in shown.items()}
    return arrays


def _shown(
    stack: Stack, sde: SDE, arrays: dict[str, Tensor], parameters: "Toy2dParams", name: str
) -> dict[str, Tensor]:
    generator = Generator().manual_seed(derive_seed(name, "toy2d", "figures"))
    eps = parameters.eps
    drift, volatility = forward_coefficients(stack.flow, sde, arrays["arrows"], T)
    return {
        "clouds": forward_clouds(stack, sde, arrays["data"][:CLOUD], TIMES, generator),
        "paths": reverse_paths(stack, sde, SHOWN_PATHS, PATH_POINTS, eps, generator),
        "log_density": log_density(stack, sde, square_grid(LIMIT, DENSITY_GRID), eps, parameters.tolerance),
        "drift": drift,
        "volatility": volatility,
    }
