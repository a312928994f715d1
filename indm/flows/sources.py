"""Where the draws of a flow come from, and that of several processes each draws for its own images alone.

On the CPU one running generator draws for a whole batch, image after image, and cannot skip what others use: there each
process draws all of it and takes its :class:`Share`. On other devices each image has a generator of its own,
:class:`PerImage`, seeded by the step and the image's place in the batch. So the numbers of an image are the same whoever
draws them, however many processes there are, and whatever the micro-batches; nobody draws those of another.

A draw is then as many calls of the device as there are images, so the flow asks once for the probes of all its blocks
(:func:`draw_series`). A counter-based generator written in operators of tensors would need one call for all images, but
some hundred operators of it, each of which reads and writes as many integers.
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
    """A source of draws for some samples of a batch: each sample gets its draw of the whole batch.

    Arguments:
        generator: of the whole batch.
        samples: those of the share.
        size: B, of the whole batch.
    """

    generator: "Source"
    samples: slice
    size: int


class PerImage:
    """A source of draws on a device, with a generator for each image.

    Arguments:
        seeds: of the images, one each.
        device: where to draw.
        numbers: generator on the CPU, of what the host needs to know of a batch: it waits for no device.
    """

    def __init__(self, seeds: Iterable[int], device: torch.device, numbers: Generator) -> None:
        self.device, self.numbers = device, numbers
        self.generators = [Generator(device).manual_seed(seed) for seed in seeds]

    def uniform(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Draw from [0, 1) for every image: ``shape`` is of one image, and the result (B, \\*shape)."""
        return torch.stack([torch.rand(shape, generator=g, dtype=dtype, device=self.device) for g in self.generators])

    def normal(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Draw from N(0, 1) for every image; see :meth:`uniform`."""
        return torch.stack([torch.randn(shape, generator=g, dtype=dtype, device=self.device) for g in self.generators])


Source = Generator | Share | PerImage | None
"""A generator, a share of one, one for each image, or torch's global generator (None)."""


def draw_roulette(mean: float, generator: Source) -> int:
    """Draw N ~ Poisson(``mean``), the same for every share of a batch."""
    if isinstance(generator, Share):
        return draw_roulette(mean, generator.generator)
    if isinstance(generator, PerImage):
        return draw_roulette(mean, generator.numbers)
    device = "cpu" if generator is None else generator.device
    return int(torch.poisson(torch.tensor(mean, device=device), generator=generator).item())


def draw_probe(x: Tensor, probe: Probe, generator: Source) -> Tensor:
    """Draw v with independent entries of mean 0 and variance 1, N(0, 1) or -1/+1, with the shape of ``x``."""
    if isinstance(generator, Share):
        whole = x.new_empty(1).expand(generator.size, *x.shape[1:])
        return draw_probe(whole, probe, generator.generator)[generator.samples]
    if isinstance(generator, PerImage):
        v = generator.normal(x.shape[1:], x.dtype)
        return v if probe == "gaussian" else (v < 0).to(x.dtype) * 2 - 1
    device = x.device if generator is None else generator.device
    if probe == "gaussian":
        v = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=device)
    else:
        v = 2 * torch.randint(2, x.shape, generator=generator, dtype=x.dtype, device=device) - 1
    return v.to(x.device)


def draw_series(x: Tensor, count: int, mean: float, probe: Probe, generator: Source) -> Iterator[tuple[int, Tensor]]:
    """Draw for each of ``count`` series :func:`draw_roulette` and :func:`draw_probe`, with as many entries as ``x`` has."""
    if isinstance(generator, PerImage):
        probes = draw_probe(x.new_empty(1).expand(len(x), count, math.prod(x.shape[1:])), probe, generator)
        yield from ((draw_roulette(mean, generator), v.reshape(x.shape)) for v in probes.unbind(1))
    else:
        yield from ((draw_roulette(mean, generator), draw_probe(x, probe, generator)) for _ in range(count))
