"""Gaussian data, for which the score, the likelihood and the samples are known in closed form."""

import math

import torch
from torch import Generator, Tensor

from indm.diffusion.sde import SDE


class GaussianData:
    """Data N(mean, covariance) in D dimensions, and the exact noise prediction of its diffusion."""

    def __init__(self, dims: int, scale: float = 0.6, seed: int = 0) -> None:
        generator = Generator().manual_seed(seed)
        factor = torch.randn(dims, dims, generator=generator, dtype=torch.float64) / math.sqrt(dims)
        self.covariance = scale**2 * (factor @ factor.T + 0.1 * torch.eye(dims, dtype=torch.float64))
        self.mean = 0.3 * torch.randn(dims, generator=generator, dtype=torch.float64)
        self.dims = dims
        self.variances, self.axes = torch.linalg.eigh(self.covariance)

    def draw(self, count: int, seed: int = 1) -> Tensor:
        """Draw data (count, D)."""
        noise = torch.randn(count, self.dims, generator=Generator().manual_seed(seed), dtype=torch.float64)
        return self.mean + noise @ torch.linalg.cholesky(self.covariance).T

    def nll(self, x: Tensor) -> Tensor:
        """True negative log-density in nats, (B, D) to (B,)."""
        return -torch.distributions.MultivariateNormal(self.mean, self.covariance).log_prob(x)

    def noise_fn(self, sde: SDE, z: Tensor, t: Tensor) -> Tensor:
        """Exact noise prediction: sigma_t C_t^-1 (z - alpha_t mean), C_t = alpha_t^2 S + sigma_t^2 I."""
        alpha, sigma = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
        rotated = (z - alpha * self.mean) @ self.axes
        return sigma * (rotated / (alpha**2 * self.variances + sigma**2)) @ self.axes.T
