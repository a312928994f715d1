"""The bound of fading pixels on Gaussian data, against the integral that is worked out by hand."""

import pytest
import torch
from torch import Tensor

from indm.diffusion.moved_mean import MovedMean
from tests.test_path import Affine, between, by_quadrature, family, gap, one_dimensional


def mean(a: Tensor) -> Affine:
    noise = torch.sigmoid(a) * torch.sigmoid(-a)
    return Affine(1 + 0.8 * noise, 0.8 * noise * (1 - 2 * torch.sigmoid(a)), 0 * a, 0 * a)


def test_the_bound_is_the_integral() -> None:
    model, ends = family("fading"), (-11.5, 9.2)
    model.flow.depths.fill_(0.8)  # type: ignore[operator]
    sde, eps = between(ends)
    found = gap(MovedMean(sde, lambda x, a: model.path.move(x[:, None, None], a)[:, 0, :1, 0]), one_dimensional(), eps)
    assert found == pytest.approx(by_quadrature(mean, ends), abs=5e-5)
