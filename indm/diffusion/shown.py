"""Images on their way to noise, in data space and in the latent, for a picture of a model's diffusion."""

import math

import torch
from torch import Generator, Tensor

from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.errors import ConvergenceError
from indm.flows.base import Map


@torch.no_grad()
def forward_images(
    model: ImplicitNonlinearDiffusion, x: Tensor, times: list[float], generator: Generator
) -> tuple[Tensor, Tensor]:
    r"""Diffuse images to each of K times with the same noise.

    .. math:: z_t = \alpha_t h_\phi(x) + \sigma_t \epsilon, \qquad x_t = h_\phi^{-1}(z_t)

    Arguments:
        model: the model, in eval mode.
        x: model-space images, shape (B, C, H, W).
        times: the time t of each column; time 0 means without noise.
        generator: source of every draw, on the CPU; a flow that draws its map draws it once for all times.

    Returns:
        Images and latents, shape (B, K, C, H, W) each; images are NaN at times at which the flow cannot be inverted.

    References:
        | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022)
        | https://arxiv.org/abs/2205.13699, section 3
    """
    flow, inverse = model.flow.bijection_at(x, generator)
    z0 = flow(x)
    noise = torch.randn(z0.shape, generator=generator).to(x.device)
    times64 = torch.tensor(times, dtype=torch.float64, device=x.device)
    latents = [model.path.perturb(z0, t.expand(len(x)), noise) if t > 0 else z0 for t in times64]
    return torch.stack([_inverted(inverse, z_t) for z_t in latents], 1), torch.stack(latents, 1)


def _inverted(inverse: Map, z: Tensor) -> Tensor:
    # A picture that cannot be drawn does not stop a run.
    try:
        return inverse(z)
    except ConvergenceError:
        return torch.full_like(z, math.nan)
