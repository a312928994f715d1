"""A network of steps 0 to 999 as in DDPM and diffusers, with the bounds of 1,000 steps."""

import torch
from my_data import images, mean, variance
from torch import Tensor

import indm

betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
sde = indm.Tabulated(torch.cumprod(1 - betas, 0))


def unet(z: Tensor, step: Tensor) -> Tensor:  # your network, in place of unet(z, step).sample
    alpha, sigma = (value((step + 1) / 1000).view(-1, 1, 1, 1) for value in (sde.alpha, sde.sigma))
    return sigma * (z - alpha * mean) / (alpha**2 * variance + sigma**2)


report = indm.referee(unet, sde, images, second="1000*t-1", levels=17, eps=0.001, steps=1000)
