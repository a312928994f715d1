"""Sources of a flow's random draws, which give an image the same numbers with any number of processes.

On the CPU a running generator draws for a whole batch, image after image, and cannot skip the images of other processes;
each process therefore draws the whole batch and takes its :class:`Share`. On other devices each image has its generator,
:class:`PerImage`, seeded by the step and the image's place in the batch, so that a process draws only for its images and
the numbers depend on neither the number of processes nor the micro-batches.

A draw on a device takes one call per image, so the flow requests the probes of all its blocks at once
(:func:`draw_series`). A counter-based generator written in tensor operators would need one call for all images, but that call
has many operators, each of which reads and writes as many integers as there are draws.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

Probe = Literal["gaussian", "rademacher"]


@dataclass(frozen=True)
class Share:
    """A source of draws for some samples of a batch: each sample gets the same draw as in the whole batch.

    Arguments:
        generator: generator for the whole batch.
        samples: places of the share's samples in the batch.
        size: B, the size of the whole batch.
    """

    generator: "Source"
    samples: slice
    size: int


class PerImage:
    """A source of draws on a device, with a generator for each image.

    Arguments:
        seeds: one seed per image.
        device: where to draw.
        numbers: generator on the CPU for numbers that the host needs, so that it does not wait for the device.
    """

    def __init__(self, seeds: Iterable[int], device: torch.device, numbers: Generator) -> None:
        self.device, self.numbers = device, numbers
        self.generators = [Generator(device).manual_seed(seed) for seed in seeds]

    def uniform(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Draw from U[0, 1) for every image, with ``shape`` per image: (B, \\*shape)."""
        return torch.stack([torch.rand(shape, generator=g, dtype=dtype, device=self.device) for g in self.generators])

    def normal(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        r"""Draw from N(0, 1) for every image, with ``shape`` per image: (B, \*shape)."""
        return torch.stack([torch.randn(shape, generator=g, dtype=dtype, device=self.device) for g in self.generators])


Source = Generator | Share | PerImage | None
"""A generator, a share of a generator, a generator for each image, or torch's global generator (None)."""


def draw_roulette(mean: float, generator: Source) -> int:
    """Draw N ~ Poisson(``mean``), the same for every share of a batch."""
    if isinstance(generator, Share):
        return draw_roulette(mean, generator.generator)
    if isinstance(generator, PerImage):
        return draw_roulette(mean, generator.numbers)
    device = "cpu" if generator is None else generator.device
    return int(torch.poisson(torch.tensor(mean, device=device), generator=generator).item())


def draw_probe(x: Tensor, probe: Probe, generator: Source) -> Tensor:
    """Draw v with independent entries of mean 0 and variance 1, N(0, 1) or -1/+1.

    Arguments:
        x: gives the shape (B, ...), the dtype and the device; its values are not used.
        probe: the distribution.
        generator: source of the draw; torch's global generator if None.

    Returns:
        v with shape (B, ...).
    """
    if isinstance(generator, Share):
        whole = x.new_empty(1).expand(generator.size, *x.shape[1:])
        return draw_probe(whole, probe, generator.generator)[generator.samples]
    if isinstance(generator, PerImage):
        v = generator.normal(x.shape[1:], x.dtype).to(x.device)
        return v if probe == "gaussian" else (v < 0).to(x.dtype) * 2 - 1
    device = x.device if generator is None else generator.device
    if probe == "gaussian":
        v = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=device)
    else:
        v = 2 * torch.randint(2, x.shape, generator=generator, dtype=x.dtype, device=device) - 1
    return v.to(x.device)


def draw_series(x: Tensor, count: int, mean: float, probe: Probe, generator: Source) -> Iterator[tuple[int, Tensor]]:
    """Yield the draws of :func:`draw_roulette` and :func:`draw_probe` for each of ``count`` series.

    Arguments:
        x: gives the shape (B, ...), the dtype and the device of a probe; its values are not used.
        count: number of series.
        mean: mean of the Poisson number.
        probe: distribution of the probes.
        generator: source of the draws; torch's global generator if None.

    Yields:
        The Poisson number, and the probe with shape (B, ...).
    """
    if isinstance(generator, PerImage):
        probes = draw_probe(x.new_empty(1).expand(len(x), count, math.prod(x.shape[1:])), probe, generator)
        yield from ((draw_roulette(mean, generator), v.reshape(x.shape)) for v in probes.unbind(1))
    else:
        yield from ((draw_roulette(mean, generator), draw_probe(x, probe, generator)) for _ in range(count))
