"""Data of others as the referee evaluates them: levels, which are dequantised or stay where they are, or continuous data."""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from indm.data.levels import bits_per_dim
from indm.diffusion.draws import Draws
from indm.diffusion.evaluation import dequantised
from indm.foreign.kinds import Grid
from indm.foreign.lossless import places


class Data(Protocol):
    """N samples of D dimensions each, shape (N, *)."""

    unit: ClassVar[float]
    """The unit of a number of a dimension, in nats: ln 2 for bits."""

    def __len__(self) -> int: ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (*) of a sample."""

    def inputs(self, part: slice, draws: Draws, device: torch.device) -> Tensor:
        """Return samples as the network's density sees them, shape (B, *), float32."""

    def per_dim(self, nats: Tensor) -> Tensor:
        """Change negative log-densities of :meth:`inputs`, in nats, shape (B,), to numbers of a dimension, shape (B,)."""


@dataclass(frozen=True)
class Levels:
    """Images as levels, whose numbers are bits/dim.

    Arguments:
        pixels: whole numbers from 0 to L - 1, shape (N, *).
        levels: number of levels L.
        centered: whether data is scaled to [-1, 1]; otherwise to [0, 1].
        grid: where levels lie that are not dequantised.
    """

    pixels: Tensor
    levels: int
    centered: bool
    grid: Grid
    unit: ClassVar[float] = math.log(2)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.pixels.shape[1:])

    def inputs(self, part: slice, draws: Draws, device: torch.device) -> Tensor:
        """Return dequantised and scaled data of a batch, shape (B, *), float32."""
        return dequantised(self.pixels[part], self.levels, draws, self.centered, device)

    def per_dim(self, nats: Tensor) -> Tensor:
        """Change negative log-densities of scaled data, in nats, shape (B,), to bits/dim of levels, shape (B,)."""
        return bits_per_dim(nats, math.prod(self.shape), self.levels, self.centered)

    def scaled(self, part: slice, device: torch.device) -> Tensor:
        """Return levels that are only scaled, shape (B, *), float32."""
        return places(self.pixels[part].float(), self.levels, self.centered, self.grid).to(device)

    @property
    def places(self) -> Tensor:
        """The places of all levels, shape (L,), float64."""
        return places(torch.arange(self.levels, dtype=torch.float64), self.levels, self.centered, self.grid)

    def code_length(self, nats: Tensor) -> Tensor:
        """Change negative log-probabilities of levels, in nats, shape (B,), to bits/dim, shape (B,)."""
        return nats / (math.prod(self.shape) * self.unit)


@dataclass(frozen=True)
class Continuous:
    """Data with a density, as they are, whose numbers are nats per dimension.

    Arguments:
        values: the data, shape (N, *), float32.
    """

    values: Tensor = field(repr=False)
    unit: ClassVar[float] = 1.0

    def __len__(self) -> int:
        return len(self.values)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape[1:])

    def inputs(self, part: slice, draws: Draws, device: torch.device) -> Tensor:
        """Return the data of a batch as they are, shape (B, *), float32."""
        return self.values[part].to(device)

    def per_dim(self, nats: Tensor) -> Tensor:
        """Change negative log-densities, in nats, shape (B,), to nats per dimension, shape (B,)."""
        return nats / math.prod(self.shape)
