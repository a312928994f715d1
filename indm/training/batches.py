"""What is drawn for a training step: the batch, its times and its noise.

They are drawn from a seed derived from the step, not from a running generator: models trained with one seed see the same images,
times and noise, and a resumed run sees what an undisturbed one would. Several processes
(:mod:`indm.training.distributed`) together do what one process does.

Numbers are drawn where they are used, those of a GPU by the GPU: only images, as levels, are copied there. Its generator
has other numbers than the CPU's, so that a seed means the same batches on both, but not the same times and noise. Which
process draws what is another question: see :mod:`indm.flows.sources`.
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
    """What a step is given, before it is split."""

    def shares(self, pieces: int, number: int, processes: int) -> list["Draws"]:
        """Split the batch into micro-batches; return what one of several processes takes of each, all of it if alone."""


@dataclass(frozen=True)
class Draws:
    """Everything random of one step, drawn in an order that does not depend on the model.

    Arguments:
        x: dequantised images, shape (B, C, H, W).
        u: uniform draws for the times, shape (B,), float64.
        noise: standard normal draws, shape (B, C, H, W).
        truncation: uniform draw for the truncation time of the batch.
        generator: source of the flow's own draws.
        size: images of the whole batch, of which these may be some.
    """

    x: Tensor
    u: Tensor
    noise: Tensor
    truncation: float
    generator: Source
    size: int

    def fresh(self) -> "Draws":
        """Return the same images with other times and noise, drawn from the generator."""
        u = torch.special.ndtr(draw_probe(self.u, "gaussian", self.generator))
        return replace(self, u=u, noise=draw_probe(self.noise, "gaussian", self.generator))

    def split(self, pieces: int) -> list["Draws"]:
        """Split the batch into micro-batches of nearly equal size."""
        chunks = zip(*(value.tensor_split(pieces) for value in (self.x, self.u, self.noise)), strict=True)
        return [replace(self, x=x, u=u, noise=noise) for x, u, noise in chunks]

    def share(self, number: int, processes: int) -> "Draws":
        """Return what one of several processes takes of the batch: all of it, if it is the only one."""
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
    """A batch for a device, for which nothing is drawn before it is known who takes which images; each draws from its own seed.

    Arguments:
        images: levels, uint8, shape (B, C, H, W), on the CPU.
        levels: number of levels.
        seed: of the step.
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
        """Draw for some images of the batch."""
        # The host need not wait for the device, and may use the memory again at once.
        images = self.images[index].to(self.device, non_blocking=True)
        source = PerImage((derive_seed(self.seed, image) for image in index.tolist()), self.device, numbers)
        # In one call for each image.
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
    """Draw the batch, the times and the noise of ``step`` on the CPU: a fresh permutation of the images in every epoch.

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
    """Give a step its batch, on any device; see :func:`draw`."""
    if device.type == "cpu":
        return draw(images, levels, batch_size, seed, step, random_flip, centered)
    batch, step_seed = _batch(images, batch_size, seed, step), derive_seed(*seed, "step", step)
    return DeviceBatch(batch, levels, step_seed, device, random_flip, centered)


def _batch(images: Tensor, batch_size: int, seed: tuple[str | int, ...], step: int) -> Tensor:
    per_epoch = len(images) // batch_size
    if per_epoch == 0:
        raise DataError(f"found {len(images)} training images, expected at least batch_size {batch_size}: lower it")
    epoch, position = divmod(step, per_epoch)
    order = torch.randperm(len(images), generator=Generator().manual_seed(derive_seed(*seed, "epoch", epoch)))
    return images[order[position * batch_size : (position + 1) * batch_size]]
