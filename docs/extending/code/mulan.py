"""A diffusion with one learned noise schedule for each pixel: MuLAN without its dependence on the image."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from indm.diffusion.learned_range import LearnedRange
from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.diffusion.objectives import NoiseFn, squared_norm
from indm.diffusion.sde import SDE

LABEL = "MuLAN"
FLOW = False
REFERENCE = False
ONLY = {"sde": ["vp"], "objective": ["nll"], "sampler": ["ode"]}
STYLE = {"color": "#009e73", "marker": "^", "linestyle": "-."}

# Below 5.19, where the steepest descent of a bend would stop a schedule.
MOST = 5.0


class PixelSchedules(LearnedRange):
    r"""A VP diffusion in which the log-SNR of pixel i, :math:`-A_i`, takes a separate path between common, fixed ends.

    .. math::
        A_i = A_\epsilon + (A_T - A_\epsilon)\big(u + b_i u^2 (1 - u)^2\big), \qquad
        u = \frac{A(t) - A_\epsilon}{A_T - A_\epsilon}, \qquad
        \frac{\mathrm dz_i}{\mathrm dA} = \frac{\mathrm dA_i}{\mathrm dA}\,\frac{\sigma_i}2 (\epsilon_{\theta,i} - \sigma_i z_i)

    Arguments:
        schedule: the VP diffusion A.
        eps: truncation time.
        shape: (C, H, W) of an image.

    References:
        | Diffusion Models With Learned Adaptive Noise (Sahoo et al., 2024)
        | https://arxiv.org/abs/2312.13236
    """

    def __init__(self, schedule: SDE, eps: float, shape: tuple[int, int, int]) -> None:
        super().__init__(schedule, eps)
        self.moves.requires_grad_(False)
        self.bends = nn.Parameter(torch.zeros(shape))

    def paths(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return A of each pixel, and its derivative by the A of the schedule, at times of shape S: (S, C, H, W), float64."""
        _, (first, last) = self._ends()
        u = ((self.antiderivative(t) - first) / (last - first))[..., None, None, None]
        bends = MOST * torch.tanh(self.bends.double())
        rates = 1 + 2 * bends * u * (1 - u) * (1 - 2 * u)
        return first + (last - first) * (u + bends * (u * (1 - u)) ** 2), rates

    def noise_error(self, noise_fn: NoiseFn, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        a, rates = self.paths(t)
        alpha, sigma = (torch.sigmoid(sign * a).sqrt().to(z0.dtype) for sign in (-1, 1))
        return squared_norm(rates.sqrt().to(z0.dtype) * (noise_fn(alpha * z0 + sigma * noise, t) - noise))

    def ode_drift(self, noise_fn: NoiseFn, z: Tensor, a: Tensor) -> Tensor:
        t = self.time(a.double())
        own, rates = self.paths(t)
        sigma = torch.sigmoid(own).sqrt().to(z.dtype)
        return rates.to(z.dtype) * sigma / 2 * (noise_fn(z, t.expand(len(z))) - sigma * z)


class MuLAN(ImplicitNonlinearDiffusion):
    """A model whose diffusion has the schedules, which are trained and averaged with the score network."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        super().__init__(spec)
        self.noise.sde = PixelSchedules(self.noise.sde, self.eps, self.shape)


FAMILY = MuLAN
