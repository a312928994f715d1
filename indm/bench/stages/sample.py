"""Stage ``sample``: images sampled from a trained run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator

from indm.arrays import read_array, write_array
from indm.data.levels import dequantise, quantise, to_uint8
from indm.diffusion.generate import draw_batches, draw_levels, prior_mean
from indm.diffusion.model import ImplicitNonlinearDiffusion, load_model
from indm.diffusion.shown import forward_images
from indm.process import precision_now, set_up
from indm.progress import bar
from indm.seeding import derive_seed
from indm.store.files import atomic_write, read_json, write_json
from indm.store.layout import TRAINING_PICTURES, Layout
from indm.store.provenance import Finished
from indm.store.scratch import Work, open_scratch
from indm.store.shards import gather, open_shard, share

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite


GRID = 8
GRID_PIXELS = 512
CHUNK = 1024
# Times in the picture of the diffusion, which has one column per time and two rows per image.
TIMES = [0.0, 0.03, 0.08, 0.15, 0.25, 0.4, 0.6, 1.0]
DIFFUSED = 4


def run(suite: "Suite", layout: Layout, name: str, shard: int | None = None, *, work: Work) -> Finished:
    """Write ``samples.npy`` (levels, uint8), ``samples.json`` and the pictures samples, neighbours and diffusion.

    The last two show training images. If the dataset forbids such pictures, they are empty files, as both engines expect the same
    files from all runs.
    A shard samples its share of the images instead, and writes it to its folder.
    """
    count = suite.shards.sample
    gathers = shard is None and count > 1
    # Gathering the shards does not need a GPU.
    device = set_up("cpu" if gathers else suite.device, suite.threads)
    data, folder = layout.data(suite.runs[name].dataset), layout.run(name)
    description = read_json(data / "dataset.json")
    levels = description["levels"]
    model = load_model(folder / "checkpoint.safetensors", device, suite.weights.model_dump())
    settings = _settings(suite, name, device)
    if not gathers:
        centre = suite.sample_params(name).model_dump(include={"centre_prior", "batch_size"})
        settings["mean"] = prior_mean(model, data, device, **centre)
    if shard is not None:
        with open_shard(layout, name, "sample", shard, work) as part:
            draw_batches(model, levels, once=part.once, share=share(shard, count), **settings)
        return part.finished
    with open_scratch(work) as scratch:
        source = gather(layout, name, "sample", count, work.code) if gathers else scratch
        samples, nfe = draw_levels(model, levels, once=source.once, **settings)
        _write(suite, layout, name, samples, nfe, levels)
        # The batches are kept until the last picture is written.
        if description.get("pictures", True):
            train = read_array(data / "train.npy")
            _write_grid(folder / "neighbours.png", to_uint8(_beside(samples[:GRID], train, levels), levels))
            diffused = _diffused(model, train[:DIFFUSED], levels, suite.runs[name].dataset)
            _write_grid(folder / "diffusion.png", to_uint8(diffused, levels))
        else:
            for picture in TRAINING_PICTURES:
                with atomic_write(folder / f"{picture}.png"):
                    pass
    return Finished(folder, source.earlier, source.computed_on)


def _settings(suite: "Suite", name: str, device: torch.device) -> dict[str, Any]:
    """Return the settings for sampling, without the mean of the prior, which gathering does not need."""
    run = suite.runs[name]
    return suite.sample_params(name).model_dump(exclude={"centre_prior"}) | {
        "seed": (run.dataset, run.seed, "sample"),
        "device": device,
        "mean": None,
        "progress": bar(name),
    }


def _write(suite: "Suite", layout: Layout, name: str, samples: NDArray[np.uint8], nfe: float, levels: int) -> None:
    """Write the images, levels (N, C, H, W), the settings with which they were sampled, and a picture of the first ones."""
    run, parameters, folder = suite.runs[name], suite.sample_params(name), layout.run(name)
    write_array(folder / "samples.npy", samples)
    corrected, adaptive = parameters.is_corrected, parameters.is_adaptive
    protocol = {
        "run": name,
        "sampler": parameters.sampler + ("+langevin" if corrected else ""),
        "steps": None if adaptive else parameters.steps,
        "grid": None if adaptive else parameters.grid,
        "corrector_snr": parameters.corrector_snr if corrected else None,
        "corrector_steps": parameters.corrector_steps if corrected else None,
        "tolerance": parameters.tolerance if adaptive else None,
        "denoise": parameters.denoise,
        "centre_prior": parameters.centre_prior,
        "temperature": parameters.temperature,
        "rounding": parameters.rounding,
        "weights": suite.weights_of(name),
        "dtype": precision_now(),
        "nfe": nfe,
        "num_samples": len(samples),
        "seed": run.seed,
    }
    write_json(folder / "samples.json", protocol)
    _write_grid(folder / "samples.png", to_uint8(samples[: GRID**2], levels))


def _beside(images: NDArray[np.uint8], train: NDArray[np.uint8], levels: int) -> NDArray[np.uint8]:
    """Return a row of images and below it their nearest training images, (2 ``GRID``, C, H, W); cells without one are white."""
    pair = np.full((2 * GRID, *images.shape[1:]), levels - 1, dtype=np.uint8)
    pair[: len(images)] = images
    pair[GRID : GRID + len(images)] = _nearest(images, train)
    return pair


def _diffused(
    model: ImplicitNonlinearDiffusion, images: NDArray[np.uint8], levels: int, dataset: str
) -> NDArray[np.uint8]:
    """Diffuse training images (N, C, H, W), with a row in data space for each image and a row of latents below it.

    Latents are shown with the mean and the deviation of the images. All runs of a dataset show the same images.
    """
    generator = Generator().manual_seed(derive_seed(dataset, "sample", "diffusion"))
    device = next(model.parameters()).device
    x = dequantise(torch.from_numpy(images.copy()), levels, generator, model.centered).to(device)
    shown, latents = forward_images(model, x, TIMES, generator)
    latents = (latents - latents[:, 0].mean()) * (x.std() / latents[:, 0].std()) + x.mean()
    # Images that cannot be shown are white.
    rows = torch.stack([shown, latents], 1).flatten(0, 2).nan_to_num(nan=1.0)
    return quantise(rows.cpu(), levels, model.centered).numpy()


def _nearest(images: NDArray[np.uint8], train: NDArray[np.uint8]) -> NDArray[np.uint8]:
    r"""Find each image's nearest training image in Euclidean distance, both (N, C, H, W); the first one of equals.

    .. math:: \arg\min_j \|x_i - y_j\|^2 = \arg\min_j \|y_j\|^2 - 2 x_i^T y_j
    """
    x = images.reshape(len(images), -1).astype(np.float64)
    distances = []
    for start in range(0, len(train), CHUNK):
        # Sums of integers, which are exact in float64.
        y = train[start : start + CHUNK].reshape(-1, x.shape[1]).astype(np.float64)
        distances.append((y**2).sum(1) - 2 * x @ y.T)
    return train[np.concatenate(distances, axis=1).argmin(1)]


def _write_grid(path: Path, images: NDArray[np.uint8]) -> None:
    """Write images (N, 3, H, W) in rows of eight, with one white pixel between them, enlarged without smoothing."""
    size = images.shape[-1] + 1
    grid = np.full((-(-len(images) // GRID) * size + 1, GRID * size + 1, 3), 255, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = 1 + (i // GRID) * size, 1 + (i % GRID) * size
        grid[top : top + size - 1, left : left + size - 1] = image.transpose(1, 2, 0)
    scale = max(1, GRID_PIXELS // grid.shape[1])
    with atomic_write(path) as file:
        Image.fromarray(grid.repeat(scale, 0).repeat(scale, 1)).save(file, format="PNG")
