"""A network that predicts noise, under VP: the exact one of independent Gaussians."""

import torch
from my_data import images, mean, variance
from torch import Tensor

import indm

sde = indm.build_sde("vp", beta_min=0.1, beta_max=20.0)


class Network(torch.nn.Module):  # your network: z is (B, C, H, W), t is (B,), both float32
    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (value(t).view(-1, 1, 1, 1) for value in (sde.alpha, sde.sigma))
        return sigma * (z - alpha * mean) / (alpha**2 * variance + sigma**2)


network = Network().eval()  # without dropout
report = indm.referee(network, sde, images, kind="noise", levels=17)
print(report)
