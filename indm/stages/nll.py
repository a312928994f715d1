"""Stage ``nll``: the four likelihood numbers of a run on the test split."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Generator, Tensor

from indm.artifacts import Layout, read_json, write_json, write_table
from indm.data import bits_per_dim, dequantise
from indm.diffusion import ImplicitNonlinearDiffusion, load_model
from indm.errors import DataError, DivergenceError
from indm.likelihood import four_numbers
from indm.seeding import derive_seed
from indm.stages.common import bar, read_split, set_up

if TYPE_CHECKING:
    from indm.params import NllParams, Suite


def run(suite: "Suite", layout: Layout, name: str) -> Path:
    """Write ``nll.csv`` (bits/dim of each test image) and ``nll.json`` (means and standard errors)."""
    device = set_up(suite.device, suite.threads)
    run, parameters, folder = suite.runs[name], suite.nll, layout.run(name)
    levels = read_json(layout.data(run.dataset) / "dataset.json")["levels"]
    images = first_images(read_split(layout.data(run.dataset), "test"), parameters.images, "nll.images")
    model = load_model(folder / "checkpoint.safetensors", device)
    table = likelihoods(model, images, levels, parameters, (run.dataset, run.seed), device, name, uncorrected=True)
    write_table(folder / "nll.csv", table.rename_axis("image").reset_index())
    result = {
        "run": name,
        "unit": "bits/dim",
        "split": "test",
        "images": len(table),
        "weights": "ema",
        "divergence": "Hutchinson, one Rademacher probe",
        "log_det": parameters.log_det if run.model == "indm" else None,
        "tolerance": parameters.tolerance,
        "ode_steps": parameters.ode_steps,
        "time_draws": parameters.time_draws,
        "dtype": "float32",
        "seed": run.seed,
    }
    result |= {str(key): table[key].mean() for key in table}
    result |= {f"{key}_se": table[key].sem() for key in table}
    write_json(folder / "nll.json", result)
    return folder


def first_images(images: Tensor, count: int | None, key: str) -> Tensor:
    """Take the first ``count`` images of a split (N, C, H, W), or all of them.

    Raises:
        DataError: if there are fewer; the message names the ``key`` of the suite.
    """
    if count is not None and count > len(images):
        raise DataError(f"key {key}: found {count}; allowed: at most the split's {len(images)}")
    return images[:count]


def likelihoods(
    model: ImplicitNonlinearDiffusion,
    images: Tensor,
    levels: int,
    parameters: "NllParams",
    seed: tuple[str, int],
    device: torch.device,
    description: str,
    *,
    uncorrected: bool,
) -> pd.DataFrame:
    """Evaluate the four numbers and the gap of images as levels (N, C, H, W): in bits/dim, one row an image.

    Arguments:
        model: the model.
        images: levels, uint8, shape (N, C, H, W).
        levels: number of levels.
        parameters: the protocol.
        seed: dataset and seed of the run. Without the model or the training's step in it: all of one seed are evaluated
            on the same dequantised images and noise.
        device: where to compute.
        description: for the progress bar.
        uncorrected: whether to evaluate ``nll_uncorrected`` too.

    Raises:
        DivergenceError: if a number is not finite.
    """
    batches = []
    for start in bar(description)(range(0, len(images), parameters.batch_size)):
        generator = Generator().manual_seed(derive_seed(*seed, "nll", start))
        batch = images[start : start + parameters.batch_size]
        batches.append(_evaluate(model, batch, levels, parameters, generator, device, uncorrected))
    table = pd.concat(batches, ignore_index=True)
    table["gap"] = table["nelbo"] - table["nll"]
    if not torch.isfinite(torch.from_numpy(table.to_numpy())).all():
        raise DivergenceError("a likelihood is not finite: train longer, or lower the tolerance of the ODE")
    return table


def _evaluate(
    model: ImplicitNonlinearDiffusion,
    batch: Tensor,
    levels: int,
    parameters: "NllParams",
    generator: Generator,
    device: torch.device,
    uncorrected: bool,
) -> pd.DataFrame:
    """Evaluate the four numbers of a batch of images as levels (B, C, H, W): columns in bits/dim, one row an image."""
    nats = four_numbers(
        model.noise,
        model.sde,
        partial(model.flow, log_det=parameters.log_det, generator=generator),
        dequantise(batch, levels, generator, model.centered).to(device),
        eps=model.eps,
        time_draws=parameters.time_draws,
        tolerance=parameters.tolerance,
        ode_steps=parameters.ode_steps or 1,
        uncorrected=uncorrected,
        generator=generator,
    )
    dims = batch[0].numel()
    return pd.DataFrame({key: bits_per_dim(value, dims, levels, model.centered).numpy() for key, value in nats.items()})
