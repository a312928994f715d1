"""MuLAN without a latent: a VP diffusion with a learned noise schedule for each pixel."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.diffusion.objectives import NoiseFn
from indm.diffusion.path import LinearPath
from indm.diffusion.sde import T


@dataclass(frozen=True)
class Schedules(LinearPath):
    r"""A VP diffusion whose dimensions take separate paths :math:`A_i` between common ends.

    .. math::
        A_i = A_\epsilon + (A_T - A_\epsilon) \frac{P_i(u)}{P_i(1)}, \qquad P_i' = (1 + b_i u + a_i u^2)^2, \qquad
        u = \frac{A - A_\epsilon}{A_T - A_\epsilon}

    With the weights :math:`w_i = \mathrm dA_i/\mathrm dA`, the error is
    :math:`\sum_i w_i(\epsilon_{\theta,i} - \epsilon_i)^2`. For an exact prediction, the bound does not depend on the paths.
    In the paper, the polynomials depend on a latent of the image.

    Arguments:
        coefficients: a and b of each dimension, shape (K, 2, *); each of the K serves B/K samples in a row.
        eps: truncation time.

    References:
        | Diffusion Models With Learned Adaptive Noise (Sahoo et al., 2024), https://arxiv.org/abs/2312.13236
        | https://github.com/s-sahoo/MuLAN, ldm/model_mulan_epsilon.py
    """

    coefficients: Tensor
    eps: float

    def place(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return u at the times (B,), shape (B, 1, ...), and the two ends of A, scalars, all float64."""
        low, high = self.sde.antiderivative(torch.tensor([self.eps, T], dtype=torch.float64, device=t.device))
        u = (self.sde.antiderivative(t) - low) / (high - low)
        return u.reshape(-1, *[1] * (self.coefficients.dim() - 2)), low, high

    def paths(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return A and the weight of each dimension at the times (B,): (B, *) each, float64."""
        u, low, high = self.place(t)
        a, b = self.coefficients.double().repeat_interleave(len(t) // len(self.coefficients), 0).unbind(1)
        total = 1 + b + (b**2 + 2 * a) / 3 + a * b / 2 + a**2 / 5
        progress = u + b * u**2 + (b**2 + 2 * a) * u**3 / 3 + a * b * u**4 / 2 + a**2 * u**5 / 5
        return low + (high - low) * progress / total, (1 + b * u + a * u**2) ** 2 / total

    def perturb(self, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        r"""Return :math:`\alpha_i z_{0,i} + \sigma_i\epsilon_i`; ``z0``, ``noise`` (B, *), ``t`` (B,), result (B, *)."""
        alpha, sigma = self._scales(t)
        return alpha.to(z0.dtype) * z0 + sigma.to(z0.dtype) * noise

    def error(self, noise_fn: NoiseFn, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Return the error e for one draw of the noise; ``z0``, ``noise`` (B, *), ``t`` (B,), result (B,)."""
        weights = self.paths(t)[1].to(z0.dtype)
        return (weights * (noise_fn(self.perturb(z0, t, noise), t) - noise) ** 2).flatten(1).sum(1)

    def ode_drift(self, noise_fn: NoiseFn, z: Tensor, a: Tensor) -> Tensor:
        r"""Return :math:`w_i\,\tfrac{\sigma_i}2(\epsilon_{\theta,i} - \sigma_i z_i)`, (B, *) to (B, *), at the scalar ``a``."""
        t = self.sde.time(a.double()).expand(len(z))
        weights, sigma = self.paths(t)[1].to(z.dtype), self._scales(t)[1].to(z.dtype)
        return weights * sigma / 2 * (noise_fn(z, t) - sigma * z)

    def reverse_step(self, z: Tensor, noise: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Ancestral step with the coefficients of each dimension; see :meth:`~indm.diffusion.path.LinearPath.reverse_step`.

        ``z``, ``noise``, the mean and the scale have shape (B, *), ``t`` and ``s`` (B,).
        """
        (alpha_t, sigma_t), (alpha_s, sigma_s) = self._scales(t), self._scales(s)
        ratio = alpha_t / alpha_s
        variance = sigma_t**2 - ratio**2 * sigma_s**2
        mean = (z - (variance / sigma_t).to(z.dtype) * noise) / ratio.to(z.dtype)
        return mean, (variance.sqrt() * sigma_s / sigma_t).to(z.dtype)

    def _scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        a, _ = self.paths(t)
        return torch.sigmoid(-a).sqrt(), torch.sigmoid(a).sqrt()


class MuLAN(ImplicitNonlinearDiffusion):
    """A model whose schedules sit in the flow's place, with its learning rate and average."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        super().__init__(spec)
        self.flow.coefficients = nn.Parameter(torch.zeros(1, 2, *self.shape))

    @property
    def path(self) -> Schedules:
        return Schedules(self.sde, cast(Tensor, self.flow.coefficients), self.eps)


FAMILY = MuLAN
