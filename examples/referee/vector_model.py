"""Continuous data: vectors, whose numbers are nats per dimension."""

import torch
from torch import Tensor

import indm

sde, width = indm.build_sde("vp"), torch.tensor([0.1, 0.5, 2.0])


def network(z: Tensor, t: Tensor) -> Tensor:
    alpha, sigma = (value(t)[:, None] for value in (sde.alpha, sde.sigma))
    return sigma * z / (alpha**2 * width**2 + sigma**2)


data = width * torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
report = indm.referee(network, sde, data, levels=None)
