"""Data of others as the referee evaluates them: levels, which are dequantised or stay where they are, or continuous data."""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from indm.diffusion.draws import Draws, uniform
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
    r"""Images as levels, whose numbers are bits/dim.

    .. math:: x = l + (h - l)\,\frac{\xi + u}{L}, \qquad
        \mathrm{bits/dim} = \frac{-\log p(x)}{D \ln 2} + \log_2 L - \overline{\log_2(h - l)}

    Arguments:
        pixels: whole numbers :math:`\xi` from 0 to L - 1, shape (N, *).
        levels: number of levels L.
        ends: both ends l and h of the range to which they are scaled, each for all channels, shape (), or for each of them,
            shape (C, 1, …), float64.
        grid: where levels lie that are not dequantised.
    """

    pixels: Tensor
    levels: int
    ends: tuple[Tensor, Tensor]
    grid: Grid
    unit: ClassVar[float] = math.log(2)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.pixels.shape[1:])

    @property
    def offset(self) -> float:
        """The constant of bits/dim that changes density in model space to probability of levels."""
        return math.log2(self.levels) - float(torch.log2(self.ends[1] - self.ends[0]).mean())

    def inputs(self, part: slice, draws: Draws, device: torch.device) -> Tensor:
        """Return dequantised and scaled data of a batch, shape (B, *), float32."""
        batch = self.pixels[part]
        return self._in_range((batch + uniform(draws, batch.shape, torch.float32)) / self.levels).to(device)

    def per_dim(self, nats: Tensor) -> Tensor:
        """Change negative log-densities of scaled data, in nats, shape (B,), to bits/dim of levels, shape (B,)."""
        return nats / (math.prod(self.shape) * self.unit) + self.offset

    def scaled(self, part: slice, device: torch.device) -> Tensor:
        """Return levels that are only scaled, shape (B, *), float32."""
        return self._in_range(places(self.pixels[part].float(), self.levels, self.grid)).to(device)

    @property
    def places(self) -> Tensor | None:
        """The places of all levels, shape (L,), float64; ``None`` if they differ from channel to channel."""
        if self.ends[0].dim() or self.ends[1].dim():
            return None
        return self._in_range(places(torch.arange(self.levels, dtype=torch.float64), self.levels, self.grid))

    def _in_range(self, share: Tensor) -> Tensor:
        """Scale shares in [0, 1] to the range, (*) to (*)."""
        low, high = (end.to(share.dtype) for end in self.ends)
        return low + (high - low) * share

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
