"""Sampling of images: a sampler generates batches of latents, each with its own seed, and the flow's inverse maps them."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from indm.arrays import read_array
from indm.data.levels import Rounding, dequantise, quantise
from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.diffusion.objectives import NoiseFn
from indm.diffusion.samplers.draw import draw_latents, prior_draw
from indm.errors import DivergenceError
from indm.seeding import derive_seed
from indm.store.files import read_json


class CountedNoise:
    """A noise prediction that counts its calls, so that NFE is measured instead of assumed."""

    def __init__(self, noise_fn: NoiseFn) -> None:
        self.noise_fn = noise_fn
        self.calls = 0

    def __call__(self, z: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return self.noise_fn(z, t)


def draw_batch(
    model: ImplicitNonlinearDiffusion,
    start: int,
    count: int,
    *,
    temperature: float,
    seed: tuple[str | int, ...],
    device: torch.device,
    mean: Tensor | None,
    **settings: Any,
) -> tuple[Tensor, int]:
    r"""Sample a batch of images without rounding them: the sampler's latents, mapped by the flow's inverse.

    .. math:: x = h_\phi^{-1}(\text{temperature} \cdot z_0)

    Arguments:
        model: the model.
        start: number of the batch's first image; a batch's noise does not depend on the others.
        count: number of images B.
        temperature: factor by which the latents are multiplied.
        seed: identity from which the noise of all batches is derived.
        device: where the model is.
        mean: mean latent of the data, on which the prior is centred, shape (C, H, W), or ``None``.
        settings: ``sampler`` (a name in :data:`indm.registry.SAMPLERS`), ``steps`` (grid points), ``grid``, ``corrector_snr``,
            ``corrector_steps``, ``tolerance``, ``denoise``.

    Returns:
        Model-space images, shape (B, C, H, W), on the device, and the number of network calls.

    Raises:
        DivergenceError: if a pixel is not finite.
        ConvergenceError: if the adaptive steps of the sampler find no solution, or the flow cannot be inverted at the
            sampled latents.
    """
    noise = CountedNoise(model.noise)
    generator = Generator().manual_seed(derive_seed(*seed, start))
    with torch.no_grad():
        z = prior_draw(model.sde, (count, *model.shape), generator, device, mean)
        z0 = draw_latents(noise, model.path, z, generator, eps=model.eps, **settings)
        x = model.flow.inverse(temperature * z0, generator=generator)
    if not torch.isfinite(x).all():
        wrong = int((~torch.isfinite(x)).sum())
        raise DivergenceError(f"{wrong} pixels are not finite: more steps, or a lower corrector_snr")
    return x, noise.calls


def draw_images(
    model: ImplicitNonlinearDiffusion,
    *,
    num_samples: int,
    batch_size: int,
    progress: Callable[[range], Iterable[int]],
    **settings: Any,
) -> Iterator[tuple[Tensor, int]]:
    """Sample ``num_samples`` images by :func:`draw_batch`, ``batch_size`` at a time; ``progress`` wraps the batch starts.

    It yields model-space images, shape (B, C, H, W), and the number of network calls of each batch.
    """
    for start in progress(range(0, num_samples, batch_size)):
        yield draw_batch(model, start, min(batch_size, num_samples - start), **settings)


Batch = dict[str, Tensor]


def draw_batches(
    model: ImplicitNonlinearDiffusion,
    levels: int,
    *,
    num_samples: int,
    batch_size: int,
    rounding: Rounding,
    progress: Callable[[range], Iterable[int]],
    once: Callable[[str, Callable[[], Batch]], Batch] = lambda name, make: make(),
    share: slice = slice(None),
    **settings: Any,
) -> list[Batch]:
    """Sample batches of B images by :func:`draw_batch`, rounded to ``levels``: uint8 (B, C, H, W) and the network calls.

    Arguments:
        model: the model.
        levels: number of levels.
        num_samples: total number N of images.
        batch_size: number of images sampled at a time.
        rounding: see :func:`~indm.data.levels.quantise`.
        progress: wraps the range of the batches' starts, for a progress bar.
        once: samples the batch of a name (its start), or returns the result of an earlier execution.
        share: the batches to sample.
        settings: see :func:`draw_batch`.
    """

    def batch(start: int) -> Batch:
        x, calls = draw_batch(model, start, min(batch_size, num_samples - start), **settings)
        return {"images": quantise(x, levels, model.centered, rounding).cpu(), "calls": torch.tensor(calls)}

    starts = range(0, num_samples, batch_size)[share]
    return [once(str(start), partial(batch, start)) for start in progress(starts)]


def draw_levels(model: ImplicitNonlinearDiffusion, levels: int, **settings: Any) -> tuple[NDArray[np.uint8], float]:
    """Sample images by :func:`draw_batches`; return them, uint8 (N, C, H, W), and the mean network calls per image."""
    batches = draw_batches(model, levels, **settings)
    images = np.concatenate([batch["images"].numpy() for batch in batches])
    calls = sum(int(batch["calls"]) * len(batch["images"]) for batch in batches) / len(images)
    return images, round(calls, 1)


@torch.no_grad()
def mean_latent(
    model: ImplicitNonlinearDiffusion, images: Tensor, levels: int, batch_size: int, device: torch.device
) -> Tensor:
    """Return the mean latent, shape (C, H, W), float64, on the CPU, of training images as levels, uint8, shape (N, C, H, W)."""
    generator = Generator().manual_seed(derive_seed("mean latent"))
    total = torch.zeros(model.shape, dtype=torch.float64)
    for batch in images.split(batch_size):
        z, _ = model.flow(dequantise(batch, levels, generator, model.centered).to(device), "none", generator)
        total += z.double().sum(0).cpu()
    return total / len(images)


def prior_mean(
    model: ImplicitNonlinearDiffusion, data: Path, device: torch.device, *, centre_prior: bool, batch_size: int
) -> Tensor | None:
    """Compute the mean latent of a prepared dataset by :func:`mean_latent`, (C, H, W); ``None`` without ``centre_prior``."""
    if not centre_prior:
        return None
    levels, images = read_json(data / "dataset.json")["levels"], torch.from_numpy(read_array(data / "train.npy"))
    return mean_latent(model, images, levels, batch_size, device)
