"""The random draws of an evaluation: from one generator for a batch, or from a generator for each image.

A generator for a batch draws for all of its images at once, so that the draws of an image depend on the images next to it.
The generator of an image is seeded by the image's number, so that its draws, and with them its likelihood, do not depend on
the size of a batch.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Generator, Tensor

from indm.flows.sources import PerImage
from indm.seeding import derive_seed

CPU = torch.device("cpu")

Draws = Generator | PerImage
"""A generator for a batch, or a generator for each of its images, both on the CPU."""


def of_images(numbers: Iterable[int], *identity: str | int) -> PerImage:
    """Make a generator for each image, seeded by an identity and the image's number."""
    return PerImage((derive_seed(*identity, "image", number) for number in numbers), CPU, Generator())


def beside(draws: Draws) -> Draws:
    """Make separate draws for a flow, so that the noise of an image is the same with every flow."""
    if isinstance(draws, PerImage):
        return PerImage((_flow_seed(generator) for generator in draws.generators), CPU, Generator())
    return Generator().manual_seed(_flow_seed(draws))


def _flow_seed(generator: Generator) -> int:
    return derive_seed(generator.initial_seed(), "flow")


def uniform(draws: Draws, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Draw from U[0, 1), with the given shape (B, *), on the CPU."""
    if isinstance(draws, PerImage):
        return draws.uniform(shape[1:], dtype)
    return torch.rand(shape, generator=draws, dtype=dtype)


def normal(draws: Draws, like: Tensor) -> Tensor:
    """Draw from N(0, 1) with the shape (B, *), the type and the device of a tensor."""
    if isinstance(draws, PerImage):
        return draws.normal(like.shape[1:], like.dtype).to(like.device)
    return torch.randn(like.shape, generator=draws, dtype=like.dtype).to(like.device)


def signs(draws: Draws, like: Tensor) -> Tensor:
    """Draw -1 or 1 with the shape (B, *), the type and the device of a tensor."""
    if isinstance(draws, PerImage):
        return (uniform(draws, like.shape, like.dtype) < 0.5).to(like) * 2 - 1
    return torch.randint(0, 2, like.shape, generator=draws).to(like) * 2 - 1
