"""Digits, and small networks that are trained on them in seconds, as each framework trains its own: in place of your network.

The loss of each function is the one of its framework; the network inside is this file's, except for diffusers' own.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor, nn

from indm.data.levels import dequantise
from indm.registry import DATASETS

LEVELS, SIGMA_DATA = 17, 0.5
splits = DATASETS["digits"].load(split_seed=0)
train, test = (torch.from_numpy(next(splits[name].pieces())) for name in ("train", "test"))
images = test[:40]


class Block(nn.Module):
    """A residual block whose channels are shifted by the condition, with dropout."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))
        self.shift = nn.Linear(width, width)
        self.after = nn.Sequential(
            nn.GroupNorm(8, width), nn.SiLU(), nn.Dropout(0.1), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return x + self.after(self.before(x) + self.shift(condition)[..., None, None])


class Network(nn.Module):
    """A small residual network: an input (B, 1, 8, 8) and a condition (B,) of about unit size, to an output (B, 1, 8, 8)."""

    def __init__(self, width: int = 32, blocks: int = 3) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)
        self.condition = nn.Sequential(nn.Linear(32, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        angles = condition[:, None] * torch.logspace(0, 2, 16, device=x.device)
        features = self.condition(torch.cat([angles.sin(), angles.cos()], 1))
        x = self.first(x)
        for block in self.blocks:
            x = block(x, features)
        return self.last(x)


class Labelled(Network):
    """The same network, whose condition is a label from 0 to 999."""

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return super().forward(x, condition / 999)


class Preconditioned(nn.Module):
    r"""EDM's denoiser :math:`D = c_\text{skip}\,x + c_\text{out}\,F(c_\text{in}\,x;\, \tfrac14\ln\sigma)`.

    References:
        | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), table 1
        | https://arxiv.org/abs/2206.00364
    """

    def __init__(self) -> None:
        super().__init__()
        self.network = Network()

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        s = sigma.view(-1, 1, 1, 1)
        total = s**2 + SIGMA_DATA**2
        inside = self.network(x / total.sqrt(), sigma.log() / 4)
        return SIGMA_DATA**2 / total * x + s * SIGMA_DATA / total.sqrt() * inside


def fit(network: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], steps: int) -> Any:
    """Train a network on dequantised digits in [-1, 1]; ``loss`` maps them and noise, (B, 1, 8, 8), to a number."""
    generator = Generator().manual_seed(0)
    adam = torch.optim.Adam(network.parameters(), 3e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(steps):
        x = dequantise(train[torch.randint(len(train), (64,), generator=generator)], LEVELS, generator)
        adam.zero_grad()
        loss(x, torch.randn(x.shape, generator=generator)).backward()
        adam.step()
        decay.step()
    return network


def diffusers_unet(steps: int = 200) -> tuple[Any, Any]:
    """Train diffusers' ``UNet2DModel`` on the noise of its ``DDPMScheduler``."""
    from diffusers import DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        dropout=0.1,
    )

    def loss(x: Tensor, noise: Tensor) -> Tensor:
        step = torch.randint(1000, (len(x),))
        return (unet(scheduler.add_noise(x, noise, step), step).sample - noise).square().mean()

    return fit(unet, loss, steps), scheduler


def edm_denoiser(steps: int = 400) -> Any:
    """Train EDM's denoiser, with its noise levels and weights."""
    torch.manual_seed(0)
    denoiser = Preconditioned()

    def loss(x: Tensor, noise: Tensor) -> Tensor:
        sigma = (1.2 * torch.randn(len(x)) - 1.2).exp()
        s = sigma.view(-1, 1, 1, 1)
        weight = (s**2 + SIGMA_DATA**2) / (s * SIGMA_DATA) ** 2
        return (weight * (denoiser(x + s * noise, sigma) - x).square()).mean()

    return fit(denoiser, loss, steps)


def score_sde_model(steps: int = 400) -> Any:
    """Train a network of score_sde's ``VPSDE``, which gets labels from 0 to 999, and whose score is minus its output over σ."""
    torch.manual_seed(0)
    model = Labelled()

    def loss(x: Tensor, noise: Tensor) -> Tensor:
        t = torch.rand(len(x)) * (1 - 1e-5) + 1e-5
        log_mean = (-0.25 * t**2 * (20 - 0.1) - 0.5 * t * 0.1).view(-1, 1, 1, 1)
        std = (1 - (2 * log_mean).exp()).sqrt()
        score = -model(log_mean.exp() * x + std * noise, 999 * t) / std
        return (score * std + noise).square().mean()

    return fit(model, loss, steps)


def flow_velocity(steps: int = 400) -> Any:
    """Train the velocity of a flow from noise at 0 to data at 1, as Flow Matching does."""
    torch.manual_seed(0)
    model = Network()

    def loss(x: Tensor, noise: Tensor) -> Tensor:
        time = torch.rand(len(x))
        s = time.view(-1, 1, 1, 1)
        return (model((1 - s) * noise + s * x, time) - (x - noise)).square().mean()

    return fit(model, loss, steps)
