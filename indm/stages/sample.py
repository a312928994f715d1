"""Stage ``sample``: images of a trained run."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor

from indm.artifacts import Layout, atomic_write, read_json, write_array, write_json
from indm.data import quantise, to_uint8
from indm.diffusion import ImplicitNonlinearDiffusion, load_model
from indm.errors import DivergenceError
from indm.sampling import CountedNoise, sample_ode, sample_pc
from indm.seeding import derive_seed
from indm.stages.common import bar, set_up

if TYPE_CHECKING:
    from indm.params import SampleParams, Suite

GRID = 8
GRID_PIXELS = 512


def run(suite: "Suite", layout: Layout, name: str) -> Path:
    """Write ``samples.npy`` (levels, uint8), ``samples.json`` and ``samples.png`` (the first 64)."""
    device = set_up(suite.device, suite.threads)
    run, parameters, folder = suite.runs[name], suite.sample_params(name), layout.run(name)
    levels = read_json(layout.data(run.dataset) / "dataset.json")["levels"]
    model = load_model(folder / "checkpoint.safetensors", device)
    noise = CountedNoise(model.noise)
    batches, calls = [], []
    starts = range(0, parameters.num_samples, parameters.batch_size)
    for start in bar(name)(starts):
        count = min(parameters.batch_size, parameters.num_samples - start)
        generator = Generator().manual_seed(derive_seed(run.dataset, run.seed, "sample", start))
        before = noise.calls
        batches.append(quantise(_draw(model, noise, parameters, count, generator, device), levels).cpu().numpy())
        calls.append(noise.calls - before)
    images = np.concatenate(batches)
    write_array(folder / "samples.npy", images)
    protocol = {
        "run": name,
        "sampler": parameters.sampler + ("" if parameters.corrector_snr is None else "+langevin"),
        "steps": parameters.steps if parameters.sampler != "ode" else None,
        "corrector_snr": parameters.corrector_snr,
        "tolerance": parameters.tolerance if parameters.sampler == "ode" else None,
        "temperature": parameters.temperature,
        "weights": "ema",
        "nfe": round(float(np.mean(calls)), 1),
        "num_samples": len(images),
        "seed": run.seed,
    }
    write_json(folder / "samples.json", protocol)
    _write_grid(folder / "samples.png", to_uint8(images[: GRID**2], levels))
    return folder


@torch.no_grad()
def _draw(
    model: ImplicitNonlinearDiffusion,
    noise: CountedNoise,
    parameters: "SampleParams",
    count: int,
    generator: Generator,
    device: torch.device,
) -> Tensor:
    shape = (count, *model.shape)
    if parameters.sampler == "ode":
        tolerance = parameters.tolerance
        z0 = sample_ode(noise, model.sde, shape, generator, tolerance=tolerance, eps=model.eps, device=device)
    else:
        z0 = sample_pc(
            noise,
            model.sde,
            shape,
            generator,
            predictor=parameters.sampler,
            steps=parameters.steps,
            corrector_snr=parameters.corrector_snr,
            eps=model.eps,
            device=device,
        )
    x = model.flow.inverse(parameters.temperature * z0)
    if not torch.isfinite(x).all():
        raise DivergenceError(
            f"{int((~torch.isfinite(x)).sum())} pixels are not finite: more steps, or a lower corrector_snr"
        )
    return x


def _write_grid(path: Path, images: NDArray[np.uint8]) -> None:
    """Write up to 64 images (N, 3, H, W) as a grid, with one white pixel between them, enlarged without smoothing."""
    size = images.shape[-1] + 1
    grid = np.full((GRID * size + 1, GRID * size + 1, 3), 255, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = 1 + (i // GRID) * size, 1 + (i % GRID) * size
        grid[top : top + size - 1, left : left + size - 1] = image.transpose(1, 2, 0)
    scale = max(1, GRID_PIXELS // len(grid))
    with atomic_write(path) as file:
        Image.fromarray(grid.repeat(scale, 0).repeat(scale, 1)).save(file, format="PNG")
