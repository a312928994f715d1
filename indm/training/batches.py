"""The random draws for a training step: the batch, its times and its noise.

They come from a seed derived from the step instead of a running generator, so that models trained with one seed see the same
images, times and noise, and a resumed run sees the same as an undisturbed one. Several processes
(:mod:`indm.training.distributed`) together use the same batch as a single process.

Numbers are drawn on the device that uses them, so that only images, as levels, are copied to a GPU. A GPU's generator
differs from the CPU's: on both, a seed gives the same batches but different times and noise. See :mod:`indm.flows.sources`
for how several processes share the draws.
"""

import itertools
import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Generator, Tensor

from indm.data.levels import dequantise, dequantise_by
from indm.errors import DataError
from indm.flows.base import LogDet, Subset
from indm.flows.sources import PerImage, Share, Source, draw_probe
from indm.seeding import derive_seed


class Batch(Protocol):
    """The input of a step, before it is split."""

    def shares(self, pieces: int, number: int, processes: int) -> list["Draws"]:
        """Split the batch into ``pieces`` micro-batches, and return the share of process ``number`` from each of them.

        Returns:
            One :class:`Draws` for each micro-batch, in order; the processes' numbers of images differ by at most one.
        """


@dataclass(frozen=True)
class Draws:
    """All random numbers of one step, drawn in an order that does not depend on the model.

    Arguments:
        x: dequantised images in model space, [-1, 1] or [0, 1], float32, shape (B, C, H, W).
        u: draws from U[0, 1) for the times, shape (B,), float64.
        noise: draws from N(0, 1), float32, shape (B, C, H, W).
        truncation: draw from U[0, 1) for the truncation time, the same for the whole batch.
        generator: source of the flow's draws.
        size: number of images in the whole batch, of which these B may be a part.
        chosen: images whose log-determinant enters the gradient, bool, shape (B,), on the CPU; None: all.
        factor: number of images over number of chosen images, in the whole batch.
    """

    x: Tensor
    u: Tensor
    noise: Tensor
    truncation: float
    generator: Source
    size: int
    chosen: Tensor | None = None
    factor: float = 1.0

    @property
    def log_det(self) -> LogDet:
        """The method by which the flow computes the log-determinant in a step that trains it.

        It is ``"train"``, or a :class:`~indm.flows.base.Subset` of the B images if only some of them are chosen.
        """
        if self.chosen is None:
            return "train"
        order = self.chosen.int().argsort(descending=True, stable=True)
        return Subset(order.to(self.x.device, non_blocking=True), int(self.chosen.sum()), self.factor)

    def fresh(self) -> "Draws":
        r"""Return the same images with new times and noise, drawn from the generator, in the shapes of :class:`Draws`.

        .. math:: u = \Phi(v), \qquad v \sim \mathcal N(0, 1)

        with :math:`\Phi` the standard normal distribution function, because :func:`~indm.flows.sources.draw_probe` does not
        draw uniform numbers.
        """
        u = torch.special.ndtr(draw_probe(self.u, "gaussian", self.generator))
        return replace(self, u=u, noise=draw_probe(self.noise, "gaussian", self.generator))

    def split(self, pieces: int) -> list["Draws"]:
        """Split the batch into micro-batches, whose numbers of images differ by at most one."""
        return [self._part(part, self.generator) for part in _slices(len(self.x), pieces)]

    def share(self, number: int, processes: int) -> "Draws":
        """Return the part of the batch for process ``number``, which is the whole batch for a single process.

        The parts of P processes are consecutive: process p has the images from floor(p B / P) to floor((p + 1) B / P) - 1.
        """
        if processes == 1:
            return self
        samples = _part(len(self.x), number, processes)
        return self._part(samples, Share(self.generator, samples, len(self.x)))

    def shares(self, pieces: int, number: int, processes: int) -> list["Draws"]:
        """Split the batch, and return the share of a process; see :meth:`Batch.shares`."""
        return [piece.share(number, processes) for piece in self.split(pieces)]

    def _part(self, samples: slice, generator: Source) -> "Draws":
        chosen = None if self.chosen is None else self.chosen[samples]
        x, u, noise = self.x[samples], self.u[samples], self.noise[samples]
        return replace(self, x=x, u=u, noise=noise, generator=generator, chosen=chosen)


def _part(size: int, number: int, processes: int) -> slice:
    return slice(size * number // processes, size * (number + 1) // processes)


def _slices(size: int, pieces: int) -> list[slice]:
    """Split a batch as ``tensor_split`` does."""
    ends = [0, *itertools.accumulate(len(piece) for piece in torch.empty(size).tensor_split(pieces))]
    return list(itertools.starmap(slice, itertools.pairwise(ends)))


def choose(size: int, share: float, seed: tuple[str | int, ...], step: int) -> tuple[Tensor | None, float]:
    """Choose the images of a whole batch whose log-determinant enters the gradient of a step, with a seed of their own.

    Arguments:
        size: number of images B.
        share: share of the images; the nearest number of images counts, but at least one.
        seed: identity from which the seed is derived.
        step: number of the step.

    Returns:
        ``chosen``, bool, shape (B,), on the CPU, or ``None`` if the share is 1; and ``factor``, the number B over the number
        of chosen images.
    """
    if share == 1:
        return None, 1.0
    order = torch.randperm(size, generator=Generator().manual_seed(derive_seed(*seed, "log-determinant", step)))
    count = max(1, round(share * size))
    # The place of each image in a random order.
    return order < count, size / count


@dataclass(frozen=True)
class DeviceBatch:
    """A batch for a device, whose random numbers are drawn only after it is split, with a separate seed for each image.

    Arguments:
        images: levels 0 … L - 1, uint8, shape (B, C, H, W), on the CPU.
        levels: number of levels L.
        seed: seed of the step.
        device: where to draw.
        random_flip: flip each image left to right with probability 1/2.
        centered: see :func:`~indm.data.levels.dequantise`.
        chosen: see :class:`Draws`.
        factor: see :class:`Draws`.
    """

    images: Tensor
    levels: int
    seed: int
    device: torch.device
    random_flip: bool
    centered: bool
    chosen: Tensor | None = None
    factor: float = 1.0

    def shares(self, pieces: int, number: int, processes: int) -> list[Draws]:
        """Split the batch, and draw the share of a process on the device; see :meth:`Batch.shares`."""
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
        chosen = None if self.chosen is None else self.chosen[index]
        return Draws(x, uniform[:, 1], noise, truncation, source, len(self.images), chosen, self.factor)


def draw(
    images: Tensor,
    levels: int,
    batch_size: int,
    seed: tuple[str | int, ...],
    step: int,
    random_flip: bool = False,
    centered: bool = True,
    log_det_share: float = 1.0,
) -> Draws:
    """Draw the batch, the times and the noise of ``step`` on the CPU, with a new permutation of the images in every epoch.

    Arguments:
        images: training images as levels 0 … L - 1, uint8, shape (N, C, H, W), on the CPU.
        levels: number of levels L.
        batch_size: number of images B in the batch.
        seed: identity from which the seed of the step is derived.
        step: number of the step, from 0.
        random_flip: flip each image left to right with probability 1/2.
        centered: see :func:`~indm.data.levels.dequantise`.
        log_det_share: share of the images whose log-determinant enters the gradient; see :func:`choose`.

    Returns:
        The whole batch: images and noise with shape (B, C, H, W), uniform draws with shape (B,).

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
    return Draws(x, u, noise, truncation, generator, batch_size, *choose(batch_size, log_det_share, seed, step))


def step_batch(
    images: Tensor,
    levels: int,
    batch_size: int,
    seed: tuple[str | int, ...],
    step: int,
    device: torch.device,
    random_flip: bool = False,
    centered: bool = True,
    log_det_share: float = 1.0,
) -> Batch:
    """Return the batch of a step for a device, with the images that :func:`draw` would choose.

    Arguments:
        images: training images as levels 0 … L - 1, uint8, shape (N, C, H, W), on the CPU.
        levels, batch_size, seed, step, random_flip, centered, log_det_share: see :func:`draw`.
        device: where the random numbers are drawn.

    Returns:
        B images: :class:`Draws` for the CPU, and a :class:`DeviceBatch` for other devices.

    Raises:
        DataError: if there are fewer images than a batch needs.
    """
    if device.type == "cpu":
        return draw(images, levels, batch_size, seed, step, random_flip, centered, log_det_share)
    batch, step_seed = _batch(images, batch_size, seed, step), derive_seed(*seed, "step", step)
    chosen, factor = choose(batch_size, log_det_share, seed, step)
    return DeviceBatch(batch, levels, step_seed, device, random_flip, centered, chosen, factor)


def _batch(images: Tensor, batch_size: int, seed: tuple[str | int, ...], step: int) -> Tensor:
    per_epoch = len(images) // batch_size
    if per_epoch == 0:
        raise DataError(
            f"found {len(images)} training images, expected at least batch_size {batch_size}; lower batch_size"
        )
    epoch, position = divmod(step, per_epoch)
    order = torch.randperm(len(images), generator=Generator().manual_seed(derive_seed(*seed, "epoch", epoch)))
    return images[order[position * batch_size : (position + 1) * batch_size]]
