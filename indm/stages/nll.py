"""Stage ``nll``: the four likelihood numbers of a run on the test split."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Generator, Tensor

from indm.artifacts import Layout, read_json, write_json, write_table
from indm.data import bits_per_dim, dequantise
from indm.diffusion import ImplicitNonlinearDiffusion, load_model
from indm.errors import DataError, DivergenceError
from indm.likelihood import four_numbers
from indm.resume import Once, file_sha256, open_scratch, work_key
from indm.seeding import derive_seed
from indm.stages.common import bar, read_split, set_up

if TYPE_CHECKING:
    from indm.params import NllParams, Suite


def run(suite: "Suite", layout: Layout, name: str) -> Path:
    """Write ``nll.csv`` (bits/dim of each test image) and ``nll.json`` (means and standard errors)."""
    device = set_up(suite.device, suite.threads)
    run, parameters, folder = suite.runs[name], suite.nll, layout.run(name)
    description = read_json(layout.data(run.dataset) / "dataset.json")
    levels = description["levels"]
    images = first_images(read_split(layout.data(run.dataset), "test"), parameters.images, "nll.images")
    model = load_model(folder / "checkpoint.safetensors", device)
    key = work_key(
        "nll",
        run=[run.dataset, run.seed],
        nll=parameters.model_dump(),
        checkpoint=file_sha256(folder / "checkpoint.safetensors"),
        data=description["sha256"],
        machine=[device.type, suite.threads],
    )
    with open_scratch(layout.scratch(name, "nll"), key) as scratch:
        seed = (run.dataset, run.seed)
        table = likelihoods(model, images, levels, parameters, seed, device, name, scratch.once, uncorrected=True)
        write_table(folder / "nll.csv", table.rename_axis("image").reset_index())
        write_json(folder / "nll.json", _summary(suite, name, table))
    return folder


def _summary(suite: "Suite", name: str, table: pd.DataFrame) -> dict[str, Any]:
    """Average the four numbers and the gap over images, and say how they were measured."""
    run, parameters = suite.runs[name], suite.nll
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
    return result | {f"{key}_se": table[key].sem() for key in table}


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
    once: Once,
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
        once: makes a batch of a name (its first image), or knows it from an earlier execution.
        uncorrected: whether to evaluate ``nll_uncorrected`` too.

    Raises:
        DivergenceError: if a number is not finite.
    """
    batches = []
    for start in bar(description)(range(0, len(images), parameters.batch_size)):
        generator = Generator().manual_seed(derive_seed(*seed, "nll", start))
        batch = images[start : start + parameters.batch_size]
        evaluate = partial(_evaluate, model, batch, levels, parameters, generator, device, uncorrected)
        batches.append(pd.DataFrame({key: value.numpy() for key, value in once(str(start), evaluate).items()}))
    table = pd.concat(batches, ignore_index=True)
    table["gap"] = table["nelbo"] - table["nll"]
    return table


def _evaluate(
    model: ImplicitNonlinearDiffusion,
    batch: Tensor,
    levels: int,
    parameters: "NllParams",
    generator: Generator,
    device: torch.device,
    uncorrected: bool,
) -> dict[str, Tensor]:
    """Evaluate the four numbers of a batch of images as levels (B, C, H, W): in bits/dim, shape (B,) each, on the CPU."""
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
    numbers = {key: bits_per_dim(value, dims, levels, model.centered) for key, value in nats.items()}
    if not all(value.isfinite().all() for value in numbers.values()):
        raise DivergenceError("a likelihood is not finite: train longer, or lower the tolerance of the ODE")
    return numbers
