"""What is drawn for a training step: the batch, its times and its noise.

They are drawn from a seed derived from the step, not from a running generator: models trained with one seed see the same images,
times and noise, and a resumed run sees what an undisturbed one would. Of several processes
(:mod:`indm.training.distributed`), each draws all of it and takes its share, so that together they do what one process does.
"""

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from indm.data.levels import dequantise
from indm.errors import DataError
from indm.flows.log_det import Share, draw_probe
from indm.seeding import derive_seed


@dataclass(frozen=True)
class Draws:
    """Everything random of one step, drawn in an order that does not depend on the model.

    Arguments:
        x: dequantised images, shape (B, C, H, W).
        u: uniform draws for the times, shape (B,), float64.
        noise: standard normal draws, shape (B, C, H, W).
        truncation: uniform draw for the truncation time of the batch.
        generator: source of the flow's own draws.
    """

    x: Tensor
    u: Tensor
    noise: Tensor
    truncation: float
    generator: Generator | Share

    def fresh(self) -> "Draws":
        """Return the same images with other times and noise, drawn from the generator."""
        u = torch.special.ndtr(draw_probe(self.u, "gaussian", self.generator))
        return replace(self, u=u, noise=draw_probe(self.noise, "gaussian", self.generator))

    def split(self, pieces: int) -> list["Draws"]:
        """Split the batch into micro-batches of nearly equal size."""
        chunks = zip(*(value.tensor_split(pieces) for value in (self.x, self.u, self.noise)), strict=True)
        return [Draws(x, u, noise, self.truncation, self.generator) for x, u, noise in chunks]

    def share(self, number: int, processes: int) -> "Draws":
        """Return what one of several processes takes of the batch: all of it, if it is the only one."""
        if processes == 1:
            return self
        samples = slice(len(self.x) * number // processes, len(self.x) * (number + 1) // processes)
        generator = Share(self.generator, samples, len(self.x))
        return Draws(self.x[samples], self.u[samples], self.noise[samples], self.truncation, generator)


def draw(
    images: Tensor,
    levels: int,
    batch_size: int,
    seed: tuple[str | int, ...],
    step: int,
    device: torch.device,
    random_flip: bool = False,
    centered: bool = True,
) -> Draws:
    """Draw the batch, the times and the noise of ``step``: a fresh permutation of the images in every epoch.

    Raises:
        DataError: if there are fewer images than a batch needs.
    """
    per_epoch = len(images) // batch_size
    if per_epoch == 0:
        raise DataError(f"found {len(images)} training images, expected at least batch_size {batch_size}: lower it")
    epoch, position = divmod(step, per_epoch)
    order = torch.randperm(len(images), generator=Generator().manual_seed(derive_seed(*seed, "epoch", epoch)))
    index = order[position * batch_size : (position + 1) * batch_size]
    generator = Generator().manual_seed(derive_seed(*seed, "step", step))
    x = dequantise(images[index], levels, generator, centered)
    u = torch.rand(batch_size, generator=generator, dtype=torch.float64)
    noise = torch.randn(x.shape, generator=generator)
    truncation = torch.rand((), generator=generator, dtype=torch.float64).item()
    if random_flip:
        flipped = torch.rand(batch_size, generator=generator) < 0.5
        x = torch.where(flipped[:, None, None, None], x.flip(-1), x)
    return Draws(x.to(device), u.to(device), noise.to(device), truncation, generator)
