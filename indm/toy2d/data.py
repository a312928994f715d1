r"""Two-dimensional data: each dataset is a density, from which every split is sampled separately.

All points lie roughly in :math:`[-1, 1]^2`, with a standard deviation near 0.5, like images scaled to :math:`[-1, 1]`.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from indm.seeding import derive_seed

GAUSSIANS = 8
RADIUS = 0.7


def moons(count: int, noise: float, seed: int) -> Tensor:
    """Sample uniformly from two interleaved half circles of radius 0.6, with blur: shape (count, 2).

    Scikit-learn's make_moons has the same shape, but its points are equidistant and hence not independent.
    """
    generator = Generator().manual_seed(seed)
    angle = math.pi * torch.rand(count, generator=generator, dtype=torch.float64)
    upper = torch.randint(0, 2, (count,), generator=generator) == 1
    x = torch.where(upper, angle.cos(), 1 - angle.cos())
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
    return 0.6 * torch.stack([x - 0.5, y - 0.25], 1) + noise * _normal(count, seed)


def checkerboard(count: int, noise: float, seed: int) -> Tensor:
    """Sample uniformly from the eight dark squares of a 4 x 4 board on [-1, 1]^2, with blur: shape (count, 2)."""
    generator = Generator().manual_seed(seed)
    column, half = (
        torch.randint(0, 4, (count,), generator=generator),
        torch.randint(0, 2, (count,), generator=generator),
    )
    corner = torch.stack([column, 2 * half + column % 2], 1)
    inside = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    return (corner + inside) / 2 - 1 + noise * _normal(count, seed)


def eight_gaussians(count: int, noise: float, seed: int) -> Tensor:
    """Sample from eight equal Gaussians with standard deviation ``noise`` on a circle of radius 0.7: shape (count, 2)."""
    component = torch.randint(0, GAUSSIANS, (count,), generator=Generator().manual_seed(seed))
    angle = 2 * math.pi * component / GAUSSIANS
    return RADIUS * torch.stack([angle.cos(), angle.sin()], 1) + noise * _normal(count, seed)


DATASETS: dict[str, Callable[[int, float, int], Tensor]] = {
    "moons": moons,
    "checkerboard": checkerboard,
    "eight-gaussians": eight_gaussians,
}


def draw_splits(name: str, count: int, noise: float, seeds: Sequence[int], split: str) -> Tensor:
    """Sample a split of the data for each seed.

    Arguments:
        seeds: the seeds, S of them.
        split: the purpose of the points; different splits of one seed are independent.

    Returns:
        The points, shape (S, count, 2), float32.
    """
    draws = [DATASETS[name](count, noise, derive_seed(name, seed, split)) for seed in seeds]
    return torch.stack(draws).float()


def _normal(count: int, seed: int) -> Tensor:
    # A separate stream, because the points to be blurred are sampled from the seed itself.
    generator = Generator().manual_seed(derive_seed("blur", seed))
    return torch.randn(count, 2, generator=generator, dtype=torch.float64)
