r"""The prior of the latent vector h: a normalising flow f: h -> e onto a standard normal e.

.. math:: \log p(h) = \log \mathcal N(f(h); 0, I) + \log|\det df(h)/dh|

Every layer maps (B, F) to (B, F) and returns log|det| with a shape that broadcasts to (B,). The layers follow the released
code of INDM (github.com/byeonghu-na/INDM, ``flow_models/wolf``), after

References:
    | Glow: Generative Flow with Invertible 1x1 Convolutions (Kingma & Dhariwal, 2018), table 1
    | https://arxiv.org/abs/1807.03039
    | Decoupling Global and Local Representations via Invertible Generative Flows (Ma et al., 2021), section 3
    | https://arxiv.org/abs/2004.11820
"""

import math
from collections.abc import Iterator
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from indm.flows.encoder import WeightNormLinear


class PriorLayer(nn.Module):
    """An invertible map of vectors without a unit."""

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image e of h, (B, F) to (B, F), and log|det de/dh| in nats, a scalar or with shape (B,)."""
        raise NotImplementedError

    def inverse(self, e: Tensor) -> Tensor:
        """Return the h whose image is e, (B, F) to (B, F)."""
        raise NotImplementedError


class ActNorm(PriorLayer):
    """e = exp(s) h + b, with one s and one b per entry."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(0.05 * torch.randn(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return e, (B, F) to (B, F), and the sum of s in nats, a scalar."""
        return h * self.log_scale.exp() + self.bias, self.log_scale.sum()

    def inverse(self, e: Tensor) -> Tensor:
        """Return h = exp(-s) (e - b), (B, F) to (B, F)."""
        return (e - self.bias) * (-self.log_scale).exp()


class InvertibleLinear(PriorLayer):
    """e = W h, with W orthogonal at first, shape (F, F).

    Arguments:
        features: F.
        frozen_inverse: whether :meth:`inverse` always multiplies by the inverse of the *first* W, kept as a buffer. It differs
            from the inverse of W as soon as W changes.
    """

    frozen_inverse: Tensor | None

    def __init__(self, features: int, *, frozen_inverse: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(features, features)))
        self.register_buffer("frozen_inverse", self.weight.detach().inverse() if frozen_inverse else None)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return e, (B, F) to (B, F), and log|det W| in nats, a scalar."""
        return F.linear(h, self.weight), torch.linalg.slogdet(self.weight).logabsdet

    def inverse(self, e: Tensor) -> Tensor:
        """Return e times :meth:`inverse_weight`, (B, F) to (B, F)."""
        return F.linear(e, self.inverse_weight())

    def inverse_weight(self) -> Tensor:
        """Return the matrix of :meth:`inverse`, with shape (F, F)."""
        return self.weight.inverse() if self.frozen_inverse is None else self.frozen_inverse


class Coupling(PriorLayer):
    """An affine map of half of the entries, e_2 = s(h_1) h_2 + m(h_1), given the other half, e_1 = h_1.

    The scale is s = sigmoid(r(h_1) + 2) + 0.001.

    Arguments:
        features: F, even.
        width: hidden units of the network for (m, r).
        split: ``halves`` for the first and the second half, ``parity`` for the even and the odd entries.
        reverse: whether the first part is transformed instead of the second.
    """

    def __init__(self, features: int, width: int, split: Literal["halves", "parity"], *, reverse: bool) -> None:
        super().__init__()
        self.grid, self.axis = ((2, -1), -2) if split == "halves" else ((-1, 2), -1)
        self.reverse = reverse
        self.net = nn.Sequential(
            nn.Linear(features // 2, width),
            nn.ELU(),
            nn.Linear(width, width),
            nn.ELU(),
            WeightNormLinear(width, features),
        )
        for layer in (self.net[0], self.net[2]):
            nn.init.zeros_(cast(nn.Linear, layer).bias)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return e, (B, F) to (B, F), and the sum of log s in nats, shape (B,)."""
        given, moved = self._split(h)
        shift, scale = self._affine(given)
        return self._join(given, scale * moved + shift), scale.log().sum(1)

    def inverse(self, e: Tensor) -> Tensor:
        """Return h, with h_2 = (e_2 - m(e_1)) / s(e_1), (B, F) to (B, F)."""
        given, moved = self._split(e)
        shift, scale = self._affine(given)
        return self._join(given, (moved - shift) / scale)

    def _affine(self, given: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = self.net(given).chunk(2, dim=1)
        return shift, torch.sigmoid(raw + 2) + 1e-3

    def _split(self, h: Tensor) -> tuple[Tensor, Tensor]:
        first, second = h.unflatten(1, self.grid).unbind(self.axis)
        return (second, first) if self.reverse else (first, second)

    def _join(self, given: Tensor, moved: Tensor) -> Tensor:
        parts = (moved, given) if self.reverse else (given, moved)
        return torch.stack(parts, self.axis).flatten(1)


class PriorFlow(nn.Module):
    """The flow f, whose steps are act norm, linear map, two couplings of halves, act norm and two couplings by parity.

    Arguments:
        features: F, even.
        width: hidden units in each coupling.
        steps: number of steps.
        frozen_inverse: see :class:`InvertibleLinear`.
    """

    def __init__(self, features: int, width: int, steps: int, *, frozen_inverse: bool) -> None:
        super().__init__()
        self.steps = nn.ModuleList(
            nn.ModuleList(
                [
                    ActNorm(features),
                    InvertibleLinear(features, frozen_inverse=frozen_inverse),
                    Coupling(features, width, "halves", reverse=False),
                    Coupling(features, width, "halves", reverse=True),
                    ActNorm(features),
                    Coupling(features, width, "parity", reverse=False),
                    Coupling(features, width, "parity", reverse=True),
                ]
            )
            for _ in range(steps)
        )

    def layers(self) -> Iterator[PriorLayer]:
        """Yield the layers in the order of f."""
        for step in self.steps:
            yield from cast(list[PriorLayer], step)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return f(h), (B, F) to (B, F), and log|det df/dh| in nats, shape (B,)."""
        total = h.new_zeros(h.shape[0])
        for layer in self.layers():
            h, log_det = layer(h)
            total = total + log_det
        return h, total

    def inverse(self, e: Tensor) -> Tensor:
        """Return f^-1(e), (B, F) to (B, F), which is a draw from the prior if e is standard normal."""
        for layer in reversed(list(self.layers())):
            e = layer.inverse(e)
        return e

    def log_prob(self, h: Tensor) -> Tensor:
        """Return log p(h) in nats, (B, F) to (B,)."""
        e, log_det = self(h)
        return log_standard_normal(e) + log_det


def log_standard_normal(e: Tensor) -> Tensor:
    r"""Return the log-density of a standard normal vector in nats, (B, F) to (B,).

    .. math:: \log \mathcal N(e; 0, I) = -\tfrac12 \sum_i (e_i^2 + \log 2\pi)
    """
    return -(e.square() + math.log(2 * math.pi)).sum(1) / 2
