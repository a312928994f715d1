"""Gaussian data, for which the bound and the moments of samples are integrals that quadrature finds."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from indm.diffusion.checks.findings import differ
from indm.diffusion.checks.points import EPS, Points, middles, points, target
from indm.diffusion.path import ForwardPath
from indm.diffusion.sde import T

# The bound may be as far below the truth, in nats per dimension.
BELOW = 1e-3
# Dimensions with which Gaussian data take a second or so, of paths that are affine, and of others, which have many more nodes.
MOST_AFFINE, MOST_OTHERS = 12, 1


def hermite(nodes: int, dims: int) -> tuple[Tensor, Tensor]:
    """Return the nodes (N, D) and weights (N,) of the normal distribution, exact for polynomials."""
    off = torch.arange(1, nodes, dtype=torch.float64).sqrt()
    found, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    grid = torch.cartesian_prod(*[found] * dims).view(-1, dims)
    return grid, torch.cartesian_prod(*[vectors[0] ** 2] * dims).view(-1, dims).prod(1)


@dataclass(frozen=True)
class Gaussian:
    """Data N(mean, F F^T) in D dimensions, by its mean (D,) and factor F (D, D)."""

    mean: Tensor
    factor: Tensor

    @property
    def entropy(self) -> float:
        """Entropy in nats."""
        return len(self.mean) / 2 * math.log(2 * math.pi * math.e) + torch.linalg.slogdet(self.factor).logabsdet.item()


def gaussian(dims: int, seed: int) -> Gaussian:
    generator = Generator().manual_seed(seed)
    factor = torch.randn(dims, dims, generator=generator, dtype=torch.float64) / math.sqrt(dims)
    scale = 0.3 * 2 ** torch.rand(1, generator=generator, dtype=torch.float64)
    mean = 0.3 * torch.randn(dims, generator=generator, dtype=torch.float64)
    return Gaussian(mean, scale * (factor + torch.eye(dims, dtype=torch.float64)))


def nodes_of(data: Gaussian, shape: tuple[int, ...], affine: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return data and noises (N, *) and weights (N,), whose weighted means are the means over data and noise.

    For an affine path, the cubature of degree three; otherwise the rule of Gauss and Hermite, which needs few dimensions.
    """
    dims = len(data.mean)
    if affine:
        unit = math.sqrt(2 * dims) * torch.eye(2 * dims, dtype=torch.float64)
        white, weights = torch.cat([unit, -unit]), torch.full((4 * dims,), 1 / (4 * dims), dtype=torch.float64)
    else:
        white, weights = hermite(9, 2 * dims)
    first, noise = white.chunk(2, 1)
    x = data.mean + first @ data.factor.T
    return x.reshape(-1, *shape), noise.reshape(-1, *shape), weights


@dataclass(frozen=True)
class Linear:
    """Linear noise predictions, one for each of K times, each of which serves B/K samples in a row; (B, *) to (B, *).

    Arguments:
        weights: matrix and, in the last row, shift of each prediction, shape (K, D + 1, D).
    """

    weights: Tensor

    def __call__(self, z: Tensor, t: Tensor) -> Tensor:
        each = z.reshape(len(self.weights), -1, math.prod(z.shape[1:]))
        return (each @ self.weights[:, :-1] + self.weights[:, -1:]).reshape(z.shape)


def best(path: ForwardPath, nodes: tuple[Tensor, Tensor, Tensor], times: Tensor) -> Linear:
    """Return the linear prediction with the least error at each of K times, shape (K,), given :func:`nodes_of` some data.

    It is exact for Gaussian data and an affine path.
    """
    x, noise, weights = nodes
    many = [values.repeat(len(times), *[1] * (values.dim() - 1)) for values in (x, noise)]
    at = Points(path, many[0], many[1], many[1], times.repeat_interleave(len(x)))
    root = weights.sqrt()[:, None]
    z, wanted = (values.view(len(times), len(x), -1) * root for values in (at.z, target(at, len(x))))
    design = torch.cat([z, root.expand(len(times), -1, 1)], -1)
    return Linear(torch.linalg.lstsq(design, wanted).solution)


def gap(
    path: ForwardPath,
    shape: tuple[int, ...],
    data: Gaussian,
    eps: float = EPS,
    *,
    affine: bool = True,
    count: int = 150,
) -> float:
    """Return the bound of Gaussian data with the best linear prediction minus their entropy, in nats per dimension.

    It is the mean over nodes and over ``count`` times at the middles of equal parts of A.
    """
    nodes = x, noise, weights = nodes_of(data, shape, affine)
    times, length = middles(path.sde, eps, count)
    many = [values.repeat(count, *[1] * (values.dim() - 1)) for values in (x, noise)]
    error = path.error(best(path, nodes, times), many[0], times.repeat_interleave(len(x)), many[1])
    error = error.view(count, -1).mean(0)
    end = best(path, nodes, torch.tensor([eps], dtype=torch.float64))
    bound = path.prior(x) + length / 2 * error + path.entropy(x, length, eps) + path.decoder(end, x, eps, noise)
    return ((weights * bound).sum().item() - data.entropy) / len(data.mean)


def is_affine(path: ForwardPath, shape: tuple[int, ...], eps: float) -> bool:
    """Return whether the perturbed latent is affine in the latent."""
    at = points(path, shape, eps)
    two, middle = at.x.flip(0), at.x / 2 + at.x.flip(0) / 2
    first, second, third = (path.perturb(x, at.t, at.noise) for x in (at.x, two, middle))
    return not differ(third, (first + second) / 2, 1e-9).any()


def check_gaussian_data(path: ForwardPath, shape: tuple[int, ...], eps: float) -> Iterator[str]:
    """The bound is not below the truth; steps and ODE have the moments of perturb."""
    dims, affine = math.prod(shape), is_affine(path, shape, eps)
    if dims > (MOST_AFFINE if affine else MOST_OTHERS):
        return
    for seed in range(3 if affine else 1):
        found = gap(path, shape, gaussian(dims, seed), eps, affine=affine)
        if not found >= -BELOW:
            expected = f"expected at least {-BELOW:g}; correct error, prior, entropy or decoder"
            yield f"the bound: found {found:.4g} nats per dimension above the entropy of Gaussian data, {expected}"
    if affine:
        yield from _moments(path, shape, gaussian(dims, 0), eps)


def _moments(path: ForwardPath, shape: tuple[int, ...], data: Gaussian, eps: float) -> Iterator[str]:
    """Ancestral steps with the best prediction, without random numbers: the mean and the covariance of each step."""
    nodes = nodes_of(data, shape, True)
    mean, covariance = _marginal(path, nodes, eps)
    coarse, fine = (_sampled(path, shape, nodes, eps, steps) for steps in (100, 200))
    size = covariance.diagonal().max()
    pairs = {"mean": (0, mean, size.sqrt()), "covariance": (1, covariance, size)}
    for name, (place, expected, unit) in pairs.items():
        # Twice the finer minus the coarser: the error of a step is of first order.
        found = ((2 * fine[place] - coarse[place] - expected).abs().max() / unit).item()
        if not found <= 0.02:
            yield f"reverse_step: found a {name} of samples that is {found:.2g} off in units of the data's, expected below 0.02"


def _marginal(path: ForwardPath, nodes: tuple[Tensor, Tensor, Tensor], t: float) -> tuple[Tensor, Tensor]:
    """Return mean (D,) and covariance (D, D) of the perturbed data."""
    x, noise, weights = nodes
    z = path.perturb(x, torch.full((len(x),), t, dtype=torch.float64), noise).flatten(1)
    mean = weights @ z
    return mean, (z - mean).T @ (weights[:, None] * (z - mean))


def _sampled(
    path: ForwardPath, shape: tuple[int, ...], nodes: tuple[Tensor, Tensor, Tensor], eps: float, steps: int
) -> tuple[Tensor, Tensor]:
    """Return mean and covariance of samples by steps equidistant in A with the best prediction, from the marginal at T."""
    dims = math.prod(shape)
    low, high = path.sde.antiderivative(torch.tensor([eps, T], dtype=torch.float64)).tolist()
    times = path.sde.time(torch.linspace(high, low, steps + 1, dtype=torch.float64)).clamp(eps, T)
    predict = best(path, nodes, times[:-1])
    # The step is affine in the latent: zero and unit vectors give its matrix.
    z = torch.cat([torch.zeros(1, dims), torch.eye(dims)]).double().repeat(steps, 1).view(-1, *shape)
    t, s = (values.repeat_interleave(dims + 1) for values in (times[:-1], times[1:]))
    moved, scale = path.reverse_step(z, predict(z, t), t, s)
    each = moved.reshape(steps, dims + 1, dims)
    noises = scale.expand_as(z).reshape(steps, dims + 1, dims)[:, 0] ** 2
    mean, covariance = _marginal(path, nodes, T)
    for rows, noise in zip(each, noises, strict=True):
        matrix = (rows[1:] - rows[0]).T
        mean, covariance = rows[0] + matrix @ mean, matrix @ covariance @ matrix.T + torch.diag(noise)
    return mean, covariance
