"""The random draws for a training step: the batch, its times and its noise.

They come from a seed derived from the step instead of a running generator, so that models trained with one seed see the same
images, times and noise, and a resumed run sees the same as an undisturbed one. Several processes
(:mod:`indm.training.distributed`) together use the same batch as a single process.

Numbers are drawn on the device that uses them, so that only images, as levels, are copied to a GPU. A GPU's generator
differs from the CPU's: on both, a seed gives the same batches but different times and noise. See :mod:`indm.flows.sources`
for how several processes share the draws.
"""

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Generator, Tensor

from indm.data.levels import dequantise, dequantise_by
from indm.errors import DataError
from indm.flows.sources import PerImage, Share, Source, draw_probe
from indm.seeding import derive_seed


class Batch(Protocol):
    """The input of a step, before it is split."""

    def shares(self, pieces: int, number: int, processes: int) -> list["Draws"]:
        """Split the batch into ``pieces`` micro-batches, and return the share of process ``number`` from each of them."""


@dataclass(frozen=True)
class Draws:
    """All random numbers of one step, drawn in an order that does not depend on the model.

    Arguments:
        x: dequantised images, shape (B, C, H, W).
        u: uniform draws for the times, shape (B,), float64.
        noise: standard normal draws, shape (B, C, H, W).
        truncation: uniform draw for the truncation time of the batch.
        generator: source of the flow's draws.
        size: number of images in the whole batch, of which these may be a part.
    """

    x: Tensor
    u: Tensor
    noise: Tensor
    truncation: float
    generator: Source
    size: int

    def fresh(self) -> "Draws":
        """Return the same images with new times and noise, drawn from the generator."""
        u = torch.special.ndtr(draw_probe(self.u, "gaussian", self.generator))
        return replace(self, u=u, noise=draw_probe(self.noise, "gaussian", self.generator))

    def split(self, pieces: int) -> list["Draws"]:
        """Split the batch into micro-batches of nearly equal size."""
        chunks = zip(*(value.tensor_split(pieces) for value in (self.x, self.u, self.noise)), strict=True)
        return [replace(self, x=x, u=u, noise=noise) for x, u, noise in chunks]

    def share(self, number: int, processes: int) -> "Draws":
        """Return the part of the batch for process ``number``, which is the whole batch for a single process."""
        if processes == 1:
            return self
        samples = _part(len(self.x), number, processes)
        generator = Share(self.generator, samples, len(self.x))
        return replace(self, x=self.x[samples], u=self.u[samples], noise=self.noise[samples], generator=generator)

    def shares(self, pieces: int, number: int, processes: int) -> list["Draws"]:
        return [piece.share(number, processes) for piece in self.split(pieces)]


def _part(size: int, number: int, processes: int) -> slice:
    return slice(size * number // processes, size * (number + 1) // processes)


@dataclass(frozen=True)
class DeviceBatch:
    """A batch for a device, whose random numbers are drawn only after it is split, with a separate seed for each image.

    Arguments:
        images: levels, uint8, shape (B, C, H, W), on the CPU.
        levels: number of levels.
        seed: seed of the step.
        device: where to draw.
        random_flip: flip half of the images left to right.
        centered: see :func:`~indm.data.levels.dequantise`.
    """

    images: Tensor
    levels: int
    seed: int
    device: torch.device
    random_flip: bool
    centered: bool

    def shares(self, pieces: int, number: int, processes: int) -> list[Draws]:
        numbers = Generator().manual_seed(derive_seed(self.seed, "host"))
        truncation = torch.rand((), generator=numbers, dtype=torch.float64).item()
        whole = torch.arange(len(self.images)).tensor_split(pieces)
        return [self._drawn(piece[_part(len(piece), number, processes)], numbers, truncation) for piece in whole]

    def _drawn(self, index: Tensor, numbers: Generator, truncation: float) -> Draws:
        """Draw the random numbers for some images of the batch."""
        # The host does not wait for the device, and may reuse the memory at once.
        images = self.images[index].to(self.device, non_blocking=True)
        source = PerImage((derive_seed(self.seed, image) for image in index.tolist()), self.device, numbers)
        # One call per image.
        uniform = source.uniform([2 + math.prod(images.shape[1:])], torch.float64)
        x = dequantise_by(images, uniform[:, 2:].float().view(images.shape), self.levels, self.centered)
        if self.random_flip:
            x = torch.where(uniform[:, 0, None, None, None] < 0.5, x.flip(-1), x)
        noise = draw_probe(x, "gaussian", source)
        return Draws(x, uniform[:, 1], noise, truncation, source, len(self.images))


def draw(
    images: Tensor,
    levels: int,
    batch_size: int,
    seed: tuple[str | int, ...],
    step: int,
    random_flip: bool = False,
    centered: bool = True,
) -> Draws:
    """Draw the batch, the times and the noise of ``step`` on the CPU, with a new permutation of the images in every epoch.

    Arguments:
        images: training images as levels, uint8, shape (N, C, H, W).
        levels: number of levels.
        batch_size: number of images B in the batch.
        seed: identity from which the seed of the step is derived.
        step: number of the step, from 0.
        random_flip: flip half of the images left to right.
        centered: see :func:`~indm.data.levels.dequantise`.

    Raises:
        DataError: if there are fewer images than a batch needs.
    """
    generator = Generator().manual_seed(derive_seed(*seed, "step", step))
    x = dequantise(_batch(images, batch_size, seed, step), levels, generator, centered)
    u = torch.rand(batch_size, generator=generator, dtype=torch.float64)
    noise = torch.randn(x.shape, generator=generator)
    truncation = torch.rand((), generator=generator, dtype=torch.float64).item()
    if random_flip:
        flipped = torch.rand(batch_size, generator=generator) < 0.5
        x = torch.where(flipped[:, None, None, None], x.flip(-1), x)
    return Draws(x, u, noise, truncation, generator, batch_size)


def step_batch(
    images: Tensor,
    levels: int,
    batch_size: int,
    seed: tuple[str | int, ...],
    step: int,
    device: torch.device,
    random_flip: bool = False,
    centered: bool = True,
) -> Batch:
    """Return the batch of a step, on any device; see :func:`draw`."""
    if device.type == "cpu":
        return draw(images, levels, batch_size, seed, step, random_flip, centered)
    batch, step_seed = _batch(images, batch_size, seed, step), derive_seed(*seed, "step", step)
    return DeviceBatch(batch, levels, step_seed, device, random_flip, centered)


def _batch(images: Tensor, batch_size: int, seed: tuple[str | int, ...], step: int) -> Tensor:
    per_epoch = len(images) // batch_size
    if per_epoch == 0:
        raise DataError(
            f"found {len(images)} training images, expected at least batch_size {batch_size}; lower batch_size"
        )
    epoch, position = divmod(step, per_epoch)
    order = torch.randperm(len(images), generator=Generator().manual_seed(derive_seed(*seed, "epoch", epoch)))
    return images[order[position * batch_size : (position + 1) * batch_size]]
