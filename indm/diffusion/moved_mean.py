r"""A path whose mean moves away from the latent, and back to it as the noise vanishes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from indm.diffusion.objectives import NoiseFn, per_sample, squared_norm
from indm.diffusion.path import LinearPath
from indm.diffusion.sde import T

Move = Callable[[Tensor, Tensor], Tensor]
"""Map the latent (B, *) and A of each sample (B,) to the move n (B, *)."""


@dataclass(frozen=True)
class MovedMean(LinearPath):
    r"""The linear diffusion of a mean m that a function n moves.

    .. math::
        z_t = \alpha m(z_0, A) + \sigma\epsilon, \qquad m = z_0 + \sigma^2 n(z_0, A), \qquad
        e = \Big\|\epsilon_\theta - \epsilon - \sigma\alpha\Big(\alpha^2 n + \frac{\partial n}{\partial A}\Big)\Big\|^2

    The term next to the noise is :math:`\tfrac\alpha\sigma\,\partial m/\partial A`, by which the drifts of the two reverse
    processes differ, so that the prediction drives the reverse SDE as in the linear diffusion. It determines the drift but
    not the score, so the path has no probability-flow ODE.

    Arguments:
        move: the function n; see :data:`Move`.
    """

    move: Move
    has_ode: ClassVar[bool] = False

    def perturb(self, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        r"""Return :math:`\alpha m + \sigma\epsilon`; ``z0``, ``noise`` (B, *), ``t`` (B,), result (B, *)."""
        return super().perturb(self._mean(z0, t), t, noise)

    def error(self, noise_fn: NoiseFn, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Return the error e for one draw of the noise; ``z0``, ``noise`` (B, *), ``t`` (B,), result (B,)."""
        alpha, sigma = (per_sample(value(t), z0) for value in (self.sde.alpha, self.sde.sigma))
        move, slope = self._with_slope(z0, self.sde.antiderivative(t))
        z = alpha * (z0 + sigma**2 * move) + sigma * noise
        return squared_norm(noise_fn(z, t) - noise - sigma * alpha * (alpha**2 * move + slope))

    def prior(self, z0: Tensor) -> Tensor:
        r"""Return the cross entropy of the linear diffusion that starts at :math:`m(z_0, A_T)`, in nats, (B, *) to (B,)."""
        return super().prior(self._mean(z0, torch.full((len(z0),), T, dtype=torch.float64, device=z0.device)))

    def decoder(self, noise_fn: NoiseFn, z0: Tensor, eps: float, noise: Tensor) -> Tensor:
        r"""Return the cost of decoding :math:`z_0`, whose distance from :math:`m(z_0, A_\epsilon)` counts, in nats.

        .. math:: -D\ln\alpha_\epsilon + \tfrac12\big(\|\epsilon_\theta - \epsilon - \alpha\sigma n\|^2 - \|\epsilon\|^2\big)

        ``z0`` and ``noise`` have shape (B, *), the result (B,).
        """
        t = torch.full((len(z0),), eps, dtype=torch.float64, device=z0.device)
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        move = per_sample(alpha * sigma, z0) * self.move(z0, self.sde.antiderivative(t))
        error = squared_norm(noise_fn(self.perturb(z0, t, noise), t) - noise - move)
        return 0.5 * (error - squared_norm(noise)) - self.volume(z0, eps)

    def _mean(self, z0: Tensor, t: Tensor) -> Tensor:
        return z0 + per_sample(self.sde.sigma(t) ** 2, z0) * self.move(z0, self.sde.antiderivative(t))

    def _with_slope(self, z0: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """Return n and its derivative in A."""
        # Fused attention has no forward-mode derivative.
        with sdpa_kernel(SDPBackend.MATH):
            found = torch.func.jvp(lambda a: self.move(z0, a), (a,), (torch.ones_like(a),))
        return found[0], found[1]
