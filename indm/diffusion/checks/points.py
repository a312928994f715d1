"""Points of a forward process, and its numbers there that follow from ``perturb`` and ``reverse_step``."""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from indm.diffusion.objectives import squared_norm
from indm.diffusion.path import ForwardPath
from indm.diffusion.sde import SDE, T, importance_time

EPS = 1e-5
# Steps in A of a derivative in time, and of the longest of the extrapolated steps.
SHORT, STEP = 1e-3, 0.02


@dataclass(frozen=True)
class Points:
    """Latents, noises and predictions (N, *) of N points of a forward process at times (N,), float64."""

    path: ForwardPath
    x: Tensor
    noise: Tensor
    prediction: Tensor
    t: Tensor

    @property
    def z(self) -> Tensor:
        """The perturbed latents, shape (N, *)."""
        return self.path.perturb(self.x, self.t, self.noise)

    @property
    def a(self) -> Tensor:
        """A at the times, shape (N,)."""
        return self.path.sde.antiderivative(self.t)

    def alone(self, i: int) -> "Points":
        """Return one of the points."""
        part = slice(i, i + 1)
        return Points(self.path, self.x[part], self.noise[part], self.prediction[part], self.t[part])


def points(path: ForwardPath, shape: tuple[int, ...], eps: float, count: int = 12, seed: int = 0) -> Points:
    """Return ``count`` points at the middles of equal parts of A, with predictions that are not far from the noise.

    Latents have the given shape (*).
    """
    generator = Generator().manual_seed(seed)
    x, noise, off = (torch.randn(count, *shape, generator=generator, dtype=torch.float64) for _ in range(3))
    return Points(path, 0.7 * x + 0.2, noise, noise + 0.5 * off, middles(path.sde, eps, count)[0])


def middles(sde: SDE, eps: float, count: int) -> tuple[Tensor, Tensor]:
    """Return the times at the middles of ``count`` equal parts of A, shape (``count``,), and the length of A's range, a scalar.

    Both are float64.
    """
    return importance_time(sde, (torch.arange(count, dtype=torch.float64) + 0.5) / count, eps)


def jacobian(path: ForwardPath, x: Tensor, t: Tensor) -> Tensor:
    """Return the Jacobian of the perturbed latent in the noise, (N, D, D), for latents (N, *) and times (N,).

    It is exact where the noise enters linearly.
    """
    dims = x[0].numel()
    units = torch.eye(dims, dtype=x.dtype).repeat(len(x), 1).view(len(x) * dims, *x.shape[1:])
    moved = path.perturb(x.repeat_interleave(dims, 0), t.repeat_interleave(dims), units).view(len(x), dims, dims)
    return (moved - path.perturb(x, t, 0 * x).view(len(x), 1, dims)).mT


def both_ways(x: Tensor) -> Tensor:
    """Return the unit vectors and their negatives, (2 D, *), for samples x (N, *)."""
    unit = torch.eye(x[0].numel(), dtype=x.dtype)
    return torch.cat([unit, -unit]).view(-1, *x.shape[1:])


def expected_prior(at: Points) -> Tensor:
    """Return the mean of -log p_T over the noise in nats, (N,), by the cubature of degree three, which is exact."""
    path, x, dims = at.path, at.x, at.x[0].numel()
    last = torch.full((len(x),), T, dtype=torch.float64)
    nodes = math.sqrt(dims) * both_ways(x)
    noise = nodes.repeat(len(x), *[1] * (x.dim() - 1))
    ends = path.perturb(x.repeat_interleave(len(nodes), 0), last.repeat_interleave(len(nodes)), noise)
    constant = dims / 2 * math.log(2 * math.pi * path.sde.prior_std**2)
    return constant + squared_norm(ends).view(len(x), -1).mean(1) / (2 * path.sde.prior_std**2)


def expected_entropy(at: Points, eps: float) -> Tensor:
    """Return the entropy given the latent at ``eps`` minus the entropy at T in nats, (N,), by determinants."""
    first, last = (torch.full((len(at.x),), t, dtype=torch.float64) for t in (eps, T))
    start, end = (torch.linalg.slogdet(jacobian(at.path, at.x, t)).logabsdet for t in (first, last))
    return start - end


def velocity(at: Points) -> Tensor:
    """Return the derivative of the perturbed latent in A, (N, *), at a fixed noise, by differences of fourth order."""

    def moved(step: float) -> Tensor:
        return at.path.perturb(at.x, at.path.sde.time(at.a + step), at.noise)

    first, second = ((moved(step) - moved(-step)) / (2 * step) for step in (SHORT, 2 * SHORT))
    return (4 * first - second) / 3


def reverse(at: Points) -> tuple[Tensor, Tensor]:
    """Return drift and squared volatility in A of the model, (N, *) each: the limit of short steps, by extrapolation."""
    z, drifts, volatilities = at.z, [], []
    for halvings in range(4):
        s = at.path.sde.time(at.a - STEP / 2**halvings)
        length = (at.a - at.path.sde.antiderivative(s)).view(-1, *[1] * (z.dim() - 1))
        mean, scale = at.path.reverse_step(z, at.prediction, at.t, s)
        drifts.append((z - mean) / length)
        volatilities.append((scale**2 / length).expand_as(z))
    return extrapolate(drifts), extrapolate(volatilities)


def extrapolate(values: list[Tensor]) -> Tensor:
    """Return the limit of values at halved steps, whose error is a polynomial of the step (Richardson), in their shape."""
    for order in range(1, len(values)):
        values = [(2**order * fine - coarse) / (2**order - 1) for coarse, fine in itertools.pairwise(values)]
    return values[0]


def expected_error(at: Points) -> Tensor:
    """Return the squared distance of the two reverse drifts in units of the volatility, (N,)."""
    model, volatility = reverse(at)
    pulled = torch.linalg.solve(jacobian(at.path, at.x, at.t).mT, at.noise.flatten(1)).view_as(at.x)
    return ((velocity(at) + volatility * pulled / 2 - model) ** 2 / volatility).flatten(1).sum(1)


def target(at: Points, each: int = 1) -> Tensor:
    """Return the prediction (N, *) for which the error is least.

    The error is a quadratic form of the prediction, with the same matrix for ``each`` points in a row.
    """
    first = Points(at.path, at.x[::each], at.noise[::each], at.prediction[::each], at.t[::each])
    slope, start = _gradient(at, 0 * at.x), _gradient(first, 0 * first.x)
    units = torch.eye(start.shape[1], dtype=start.dtype)
    matrix = torch.stack([_gradient(first, 0 * first.x + unit.view(at.x.shape[1:])) - start for unit in units], -1)
    return -torch.linalg.solve(matrix, slope.view(*start.shape[:1], each, -1).mT).mT.reshape(at.x.shape)


def _gradient(at: Points, prediction: Tensor) -> Tensor:
    """Return the gradient (N, D) of the error in the prediction."""
    with torch.enable_grad():
        prediction = prediction.clone().requires_grad_()
        return torch.autograd.grad(error_of(at, prediction).sum(), prediction)[0].flatten(1)


def error_of(at: Points, prediction: Tensor) -> Tensor:
    """Return the path's error of a prediction (N, *) at the points, (N,)."""
    return at.path.error(lambda z, t: prediction, at.x, at.t, at.noise)
