r"""The content of the two-dimensional figures for one model, all in data space.

The latent's linear diffusion :math:`\mathrm dz = f z\,\mathrm dt + g\,\mathrm dw` makes :math:`x_t = h_\phi^{-1}(z_t)` follow,
by Itô's formula,

.. math::
    \mathrm dx = \Big(f\,\nabla h_\phi^{-1}(z)\, z + \frac{g^2}2 \Delta h_\phi^{-1}(z)\Big)\mathrm dt
    + g\,\nabla h_\phi^{-1}(z)\,\mathrm dw, \qquad z = h_\phi(x).

References:
    | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022)
    | https://arxiv.org/abs/2205.13699, equations 5 and 6
"""

import math

import torch
from torch import Generator, Tensor

from indm.densities.evaluation import exact_ode_nll, trajectories
from indm.densities.models import Flow, Stack
from indm.diffusion.sde import SDE

# Steps of the ODE for a picture of a density.
STEPS = 256


def square_grid(limit: float, points: int) -> Tensor:
    """Return the points of a grid on [-limit, limit]^2, row by row from the bottom: shape (points^2, 2)."""
    axis = torch.linspace(-limit, limit, points)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)


@torch.no_grad()
def log_density(stack: Stack, sde: SDE, x: Tensor, eps: float) -> Tensor:
    """Return the uncorrected log-density of the probability-flow ODE, for a stack of one replica.

    It is NaN where the ODE leads to no finite number, at points far from the data, where the network was not trained. Steps
    are fixed, because an adaptive solver would need very many of them there.

    Arguments:
        x: points, shape (B, 2).

    Returns:
        The log-density in nats, shape (B,).
    """
    z, log_det = stack.flow(x[None])
    found = (log_det - exact_ode_nll(stack, sde, z, eps, None, STEPS))[0]
    return found.where(found.isfinite(), math.nan)


@torch.no_grad()
def forward_clouds(stack: Stack, sde: SDE, x: Tensor, times: list[float], generator: Generator) -> Tensor:
    """Diffuse points to each of K times with the same noise, in a stack of one replica.

    Arguments:
        x: points, shape (B, 2).
        times: the K times.

    Returns:
        The diffused latents, mapped to data space, shape (K, B, 2).
    """
    z0 = stack.flow(x[None])[0][0]
    noise = torch.randn(z0.shape, generator=generator)
    clouds = [stack.path(sde).perturb(z0, torch.full((len(x),), t, dtype=torch.float64), noise) for t in times]
    return torch.stack([stack.flow.inverse(z_t[None])[0] for z_t in clouds])


@torch.no_grad()
def reverse_paths(stack: Stack, sde: SDE, count: int, points: int, eps: float, generator: Generator) -> Tensor:
    """Follow ``count`` samples of the prior to the data, in a stack of one replica.

    Returns:
        Points in data space, shape (points, count, 2).
    """
    z = sde.prior_std * torch.randn(1, count, 2, generator=generator)
    return trajectories(stack, sde, z, points, eps)[:, 0]


def forward_coefficients(flow: Flow, sde: SDE, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """Return the coefficients of the forward diffusion in data space at time t, for a flow of one replica.

    The equation is at the top of :mod:`indm.densities.figures`.

    Arguments:
        x: points, shape (B, 2).

    Returns:
        The drift with shape (B, 2), and the volatility matrix with shape (B, 2, 2).
    """

    def inverse(z: Tensor) -> Tensor:
        return flow.inverse(z.reshape(1, 1, 2)).reshape(2)

    z = flow(x[None])[0][0].detach()
    jacobian = torch.func.vmap(torch.func.jacrev(inverse))(z)
    hessian = torch.func.vmap(torch.func.jacfwd(torch.func.jacrev(inverse)))(z)
    time = torch.tensor(t, dtype=torch.float64)
    f, g = sde.drift(time).item(), sde.diffusion(time).item()
    drift = f * (jacobian @ z[..., None]).squeeze(-1) + 0.5 * g**2 * hessian.diagonal(dim1=-2, dim2=-1).sum(-1)
    return drift.detach(), (g * jacobian).detach()
