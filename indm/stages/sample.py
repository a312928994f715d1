"""Stage ``sample``: images of a trained run."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor

from indm.artifacts import Layout, atomic_write, read_json, write_array, write_json
from indm.data import dequantise, quantise, to_uint8
from indm.diffusion import ImplicitNonlinearDiffusion, load_model
from indm.errors import DivergenceError
from indm.sampling import CountedNoise, prior_draw, sample_ode, sample_ode_fixed, sample_pc, time_grid
from indm.seeding import derive_seed
from indm.stages.common import bar, read_split, set_up

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
    mean = None
    if parameters.centre_prior:
        images = read_split(layout.data(run.dataset), "train")
        mean = _mean_latent(model, images, levels, parameters.batch_size, device)
    noise = CountedNoise(model.noise)
    batches, calls = [], []
    starts = range(0, parameters.num_samples, parameters.batch_size)
    for start in bar(name)(starts):
        count = min(parameters.batch_size, parameters.num_samples - start)
        generator = Generator().manual_seed(derive_seed(run.dataset, run.seed, "sample", start))
        z = prior_draw(model.sde, (count, *model.shape), generator, device, mean)
        before = noise.calls
        batches.append(quantise(_draw(model, noise, parameters, z, generator), levels, model.centered).cpu().numpy())
        calls.append(noise.calls - before)
    samples = np.concatenate(batches)
    write_array(folder / "samples.npy", samples)
    corrected = parameters.corrector_snr is not None
    protocol = {
        "run": name,
        "sampler": parameters.sampler + ("+langevin" if corrected else ""),
        "steps": None if parameters.sampler == "ode" else parameters.steps,
        "grid": None if parameters.sampler == "ode" else parameters.grid,
        "corrector_snr": parameters.corrector_snr,
        "corrector_steps": parameters.corrector_steps if corrected else None,
        "tolerance": parameters.tolerance if parameters.sampler == "ode" else None,
        "denoise": parameters.denoise,
        "centre_prior": parameters.centre_prior,
        "temperature": parameters.temperature,
        "weights": "ema",
        "nfe": round(float(np.mean(calls)), 1),
        "num_samples": len(samples),
        "seed": run.seed,
    }
    write_json(folder / "samples.json", protocol)
    _write_grid(folder / "samples.png", to_uint8(samples[: GRID**2], levels))
    return folder


@torch.no_grad()
def _draw(
    model: ImplicitNonlinearDiffusion, noise: CountedNoise, parameters: "SampleParams", z: Tensor, generator: Generator
) -> Tensor:
    """Draw images from starts z_T, (B, C, H, W) both."""
    sde, sampler, denoise = model.sde, parameters.sampler, parameters.denoise
    if sampler == "ode":
        z0 = sample_ode(noise, sde, z, eps=model.eps, tolerance=parameters.tolerance, denoise=denoise)
    else:
        times = time_grid(sde, parameters.grid, parameters.steps, model.eps)
        if sampler in ("ode_euler", "ode_heun"):
            z0 = sample_ode_fixed(noise, sde, z, times=times, second_order=sampler == "ode_heun", denoise=denoise)
        else:
            snr = parameters.corrector_snr
            z0 = sample_pc(
                noise,
                sde,
                z,
                generator,
                predictor=sampler,
                times=times,
                corrector_snr=None if snr is None else (snr[0], snr[1]),
                corrector_steps=parameters.corrector_steps,
                denoise=denoise,
            )
    x = model.flow.inverse(parameters.temperature * z0, generator=generator)
    if not torch.isfinite(x).all():
        wrong = int((~torch.isfinite(x)).sum())
        raise DivergenceError(f"{wrong} pixels are not finite: more steps, or a lower corrector_snr")
    return x


@torch.no_grad()
def _mean_latent(
    model: ImplicitNonlinearDiffusion, images: Tensor, levels: int, batch_size: int, device: torch.device
) -> Tensor:
    """Mean latent of training images (N, C, H, W) as levels: shape (C, H, W)."""
    generator = Generator().manual_seed(derive_seed("mean latent"))
    total = torch.zeros(model.shape, dtype=torch.float64)
    for batch in images.split(batch_size):
        z, _ = model.flow(dequantise(batch, levels, generator, model.centered).to(device), "none", generator)
        total += z.double().sum(0).cpu()
    return total / len(images)


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
