"""What a picture shows of a model's diffusion: images on their way to noise, in data space and in the latent."""

import torch
from torch import Generator, Tensor

from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.diffusion.objectives import perturb


@torch.no_grad()
def forward_images(
    model: ImplicitNonlinearDiffusion, x: Tensor, times: list[float], generator: Generator
) -> tuple[Tensor, Tensor]:
    r"""Diffuse images with one noise up to each of K times.

    .. math:: z_t = \alpha_t h_\phi(x) + \sigma_t \epsilon, \qquad x_t = h_\phi^{-1}(z_t)

    Arguments:
        model: the model, in eval mode.
        x: model-space images, shape (B, C, H, W).
        times: t of each column; at 0 there is no noise.
        generator: source of the noise, on the CPU.

    Returns:
        Images and latents, shape (B, K, C, H, W) each.

    References:
        | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022)
        | https://arxiv.org/abs/2205.13699, section 3
    """
    z0, _ = model.flow(x, "none")
    noise = torch.randn(z0.shape, generator=generator).to(x.device)
    times64 = torch.tensor(times, dtype=torch.float64, device=x.device)
    latents = [perturb(model.sde, z0, t.expand(len(x)), noise) if t > 0 else z0 for t in times64]
    images = [model.flow.inverse(z_t) for z_t in latents]
    return torch.stack(images, 1), torch.stack(latents, 1)
