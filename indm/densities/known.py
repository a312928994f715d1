"""Densities whose exact log-density is known, each of which samples fresh points.

Points have no unit. The root mean square of a coordinate is near 0.5, as of images scaled to :math:`[-1, 1]`. All numbers that
look arbitrary come from a generator with a fixed seed, so that every machine has the same densities.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from indm.densities.models import CouplingFlow

STD, DIMS = 0.5, 8
# The largest and the smallest variance of the steep Gaussian, relative to each other, and of the swirled one in each plane.
STEEPNESS, FLATNESS = 100.0, 10.0
# The size of the weights of the fixed couplings.
GAIN = 1.0
# Nodes of the quadrature along each half circle, at most half a blur apart.
NODES = 128
F64 = torch.float64


class Density(Protocol):
    """A density in D dimensions."""

    @property
    def dims(self) -> int:
        """The number of dimensions."""

    def sample(self, count: int, generator: Generator) -> Tensor:
        """Sample independent points, shape (count, D), float64."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density of points in nats, (B, D) to (B,), float64."""


class Mixture:
    r"""Gaussian mixture :math:`\sum_k w_k\, \mathcal N(m_k, A_k A_k^\top)`.

    Arguments:
        weights: w, shape (K,); they need not sum to 1.
        means: m, shape (K, D).
        factors: A, shape (K, D, D).
    """

    def __init__(self, weights: Tensor, means: Tensor, factors: Tensor) -> None:
        self.weights, self.means, self.factors = weights / weights.sum(), means, factors
        self.dims = means.shape[1]
        self._normal = torch.distributions.MultivariateNormal(means, factors @ factors.mT)

    def sample(self, count: int, generator: Generator) -> Tensor:
        """Sample independent points, shape (count, D), float64."""
        which = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, self.dims, generator=generator, dtype=F64)
        return self.means[which] + (self.factors[which] @ noise[..., None]).squeeze(-1)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density of points in nats, (B, D) to (B,), float64."""
        return (self._normal.log_prob(x.double()[:, None]) + self.weights.log()).logsumexp(-1)


class Moons:
    """Two interleaved half circles of radius 0.6 with uniform angles, blurred; the log-density is a quadrature over the angle."""

    dims = 2
    noise = 0.05

    def sample(self, count: int, generator: Generator) -> Tensor:
        """Sample independent points, shape (count, 2), float64."""
        angle = math.pi * torch.rand(count, generator=generator, dtype=F64)
        upper = torch.randint(0, 2, (count,), generator=generator) == 1
        blur = self.noise * torch.randn(count, 2, generator=generator, dtype=F64)
        return torch.where(upper[:, None], *_half_circles(angle)) + blur

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density of points in nats, (B, 2) to (B,), float64."""
        nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(NODES))
        centres = torch.cat(_half_circles(math.pi * (nodes + 1) / 2))
        blur = torch.distributions.Normal(0.0, self.noise, validate_args=False)
        return (blur.log_prob(x.double()[:, None] - centres).sum(-1) + (weights.repeat(2) / 4).log()).logsumexp(-1)


def _half_circles(angle: Tensor) -> tuple[Tensor, Tensor]:
    upper, lower = torch.stack([angle.cos(), angle.sin()], 1), torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1)
    return 0.6 * (upper - angle.new_tensor([0.5, 0.25])), 0.6 * (lower - angle.new_tensor([0.5, 0.25]))


class Checkerboard:
    """The uniform density on the eight dark squares of a 4 x 4 board on [-1, 1]^2."""

    dims = 2

    def sample(self, count: int, generator: Generator) -> Tensor:
        """Sample independent points, shape (count, 2), float64."""
        column, half = (torch.randint(0, most, (count,), generator=generator) for most in (4, 2))
        inside = torch.rand(count, 2, generator=generator, dtype=F64)
        return (torch.stack([column, 2 * half + column % 2], 1) + inside) / 2 - 1

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density of points in nats, -log 2 or -inf, (B, 2) to (B,), float64."""
        column, row = ((x.double() + 1) * 2).floor().unbind(-1)
        dark = (x.abs() < 1).all(-1) & ((column + row) % 2 == 0)
        return torch.where(dark, -math.log(2.0), -math.inf).double()


@dataclass(frozen=True)
class Pushed:
    r"""A density behind an invertible map: x = T^-1(u), :math:`\log p(x) = \log p_u(T(x)) + \log|\det\partial T/\partial x|`.

    Arguments:
        base: the density of u.
        forward: T and its log-determinant, points (B, D) to (B, D) and (B,).
        inverse: T^-1.
    """

    base: Density
    forward: Callable[[Tensor], tuple[Tensor, Tensor]]
    inverse: Callable[[Tensor], Tensor]

    @property
    def dims(self) -> int:
        """The number of dimensions."""
        return self.base.dims

    def sample(self, count: int, generator: Generator) -> Tensor:
        """Sample independent points, shape (count, D), float64."""
        return self.inverse(self.base.sample(count, generator))

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density of points in nats, (B, D) to (B,), float64."""
        u, log_det = self.forward(x.double())
        return self.base.log_prob(u) + log_det


def eight_gaussians() -> Density:
    """Make eight equal Gaussians with standard deviation 0.07 on a circle of radius 0.7."""
    angle = math.pi / 4 * torch.arange(8, dtype=F64)
    means = 0.7 * torch.stack([angle.cos(), angle.sin()], 1)
    return Mixture(torch.ones(8, dtype=F64), means, 0.07 * torch.eye(2, dtype=F64).expand(8, 2, 2))


def mixture(dims: int) -> Density:
    """Make five Gaussians with weights 1 to 5, and standard deviations of 0.05 to 0.35 along axes of their own."""
    generator = Generator().manual_seed(dims)
    means = torch.randn(5, dims, generator=generator, dtype=F64)
    spread = 0.05 + 0.3 * torch.rand(5, 1, dims, generator=generator, dtype=F64)
    axes = torch.linalg.qr(torch.randn(5, dims, dims, generator=generator, dtype=F64))[0]
    return Mixture(torch.arange(1, 6, dtype=F64), STD * (means - means.mean(0)), axes * spread)


def gaussian(variances: Tensor) -> Density:
    """Make a Gaussian along axes that a fixed orthogonal matrix turns.

    Arguments:
        variances: the variances along the axes, relative to each other, shape (D,), float64.
    """
    generator = Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(len(variances), len(variances), generator=generator, dtype=F64))[0]
    factor = axes * STD * (variances / variances.mean()).sqrt()
    return Mixture(torch.ones(1, dtype=F64), torch.zeros(1, len(variances), dtype=F64), factor[None])


def coupled(dims: int) -> Density:
    """Make a Gaussian behind two affine couplings, a map in the family of INDM's flow: its best case."""
    generator, flow = Generator().manual_seed(dims), CouplingFlow(1, dims, 2, 8).double().requires_grad_(False)
    for name, parameter in flow.named_parameters():
        if name.endswith("weight"):
            parameter.copy_(
                torch.randn(parameter.shape, generator=generator, dtype=F64) * GAIN / parameter.shape[1] ** 0.5
            )
    white = Mixture(torch.ones(1, dtype=F64), torch.zeros(1, dims, dtype=F64), STD * torch.eye(dims, dtype=F64)[None])

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = flow(x[None])
        return z[0], log_det[0]

    return Pushed(white, forward, lambda u: flow.inverse(u[None])[0])


def swirled(dims: int) -> Density:
    r"""Make a Gaussian whose D/2 planes are turned by an angle that grows with the radius.

    .. math:: T(x) = R(-2 \pi |x| / \sqrt D)\, x, \qquad \det\frac{\partial T}{\partial x} = 1

    This map is outside the family of affine couplings.
    """
    variances = torch.tensor([FLATNESS, 1.0], dtype=F64).repeat_interleave(dims // 2)
    factor = (variances / variances.mean()).sqrt().diag() * STD
    base = Mixture(torch.ones(1, dtype=F64), torch.zeros(1, dims, dtype=F64), factor[None])

    def turned(x: Tensor, sense: float) -> Tensor:
        angle = sense * 2 * math.pi * x.norm(dim=-1, keepdim=True) / dims**0.5
        a, b = x.chunk(2, -1)
        return torch.cat([angle.cos() * a - angle.sin() * b, angle.sin() * a + angle.cos() * b], -1)

    return Pushed(base, lambda x: (turned(x, -1.0), x.new_zeros(len(x))), lambda u: turned(u, 1.0))


DENSITIES: dict[str, Callable[[], Density]] = {
    "moons": Moons,
    "checkerboard": Checkerboard,
    "eight-gaussians": eight_gaussians,
    **{f"mixture-{dims}d": partial(mixture, dims) for dims in (2, DIMS)},
    **{f"coupled-{dims}d": partial(coupled, dims) for dims in (2, DIMS)},
    **{f"swirled-{dims}d": partial(swirled, dims) for dims in (2, DIMS)},
    "white-8d": partial(gaussian, torch.ones(DIMS, dtype=F64)),
    "steep-8d": partial(gaussian, STEEPNESS ** -torch.linspace(0, 1, DIMS, dtype=F64)),
}
