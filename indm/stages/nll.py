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
    description = read_json(layout.data(run.dataset) / "dataset.json")
    images = read_split(layout.data(run.dataset), "test")
    count = len(images) if parameters.images is None else parameters.images
    if count > len(images):
        raise DataError(f"key nll.images: found {count}; allowed: at most the test split's {len(images)}")
    model = load_model(folder / "checkpoint.safetensors", device)
    batches = []
    for start in bar(name)(range(0, count, parameters.batch_size)):
        # Without the model in it: every run of one seed is evaluated on the same dequantised images and noise.
        generator = Generator().manual_seed(derive_seed(run.dataset, run.seed, "nll", start))
        batch = images[start : min(start + parameters.batch_size, count)]
        batches.append(_evaluate(model, batch, description["levels"], parameters, generator, device))
    table = pd.concat(batches, ignore_index=True)
    table["gap"] = table["nelbo"] - table["nll"]
    if not torch.isfinite(torch.from_numpy(table.to_numpy())).all():
        raise DivergenceError("a likelihood is not finite: train longer, or lower the tolerance of the ODE")
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
        "time_draws": parameters.time_draws,
        "dtype": "float32",
        "seed": run.seed,
    }
    result |= {str(key): table[key].mean() for key in table}
    result |= {f"{key}_se": table[key].sem() for key in table}
    write_json(folder / "nll.json", result)
    return folder


def _evaluate(
    model: ImplicitNonlinearDiffusion,
    batch: Tensor,
    levels: int,
    parameters: "NllParams",
    generator: Generator,
    device: torch.device,
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
        generator=generator,
    )
    dims = batch[0].numel()
    return pd.DataFrame({key: bits_per_dim(value, dims, levels, model.centered).numpy() for key, value in nats.items()})
