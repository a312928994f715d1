r"""The forward process of a latent, as training, likelihoods and samplers see it: a path from the latent to the prior.

A path has a linear diffusion, whose :math:`A = -\log\mathrm{SNR}` labels the times; its marginals given :math:`z_0` may
differ from the marginals of the diffusion. The model is a reverse SDE with the volatility of the path, so that by Girsanov's
theorem

.. math::
    \mathrm{NELBO} = -\mathbb E\log p_T(z_T) + \tfrac12\int_{A_\epsilon}^{A_T} e(A)\,\mathrm dA + c + R_\epsilon ,

where e is the squared distance between the drifts of the two reverse processes in units of the volatility, and c is the
change of entropy of :math:`z_t` given :math:`z_0` from T to :math:`\epsilon`. Any prediction gives a bound.

References:
    | Maximum Likelihood Training of Score-Based Diffusion Models (Song et al., 2021)
    | https://arxiv.org/abs/2101.09258, theorem 3
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from indm.diffusion.objectives import NoiseFn, likelihood_weighted, per_sample, perturb, squared_norm
from indm.diffusion.sde import SDE, T


class ForwardPath(Protocol):
    """A forward process.

    Latents, noises and predictions have shape (B, *) and no unit, times have shape (B,), and a number of each sample has
    shape (B,). Parts of the bound are in nats; the error e has no unit.
    """

    @property
    def sde(self) -> SDE:
        """The linear diffusion whose times label the path."""

    @property
    def has_ode(self) -> bool:
        """Whether the noise prediction gives the score, and with it a probability-flow ODE and its likelihood."""

    def perturb(self, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        r"""Return :math:`z_t` for one draw of the noise; ``z0``, ``noise`` (B, *), ``t`` (B,), result (B, *)."""

    def error(self, noise_fn: NoiseFn, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Return the error e of the noise prediction for one draw of the noise.

        ``z0`` and ``noise`` have shape (B, *), ``t`` and the result (B,).
        """

    def prior(self, z0: Tensor) -> Tensor:
        r"""Return the expected :math:`-\log p_T(z_T)` given :math:`z_0`, in nats, (B, *) to (B,)."""

    def entropy(self, z0: Tensor, z: float | Tensor, eps: float) -> float | Tensor:
        r"""Return c for latents ``z0`` (B, *), in nats, a scalar or (B,); ``z`` is :math:`A_T - A_\epsilon`, a scalar."""

    def decoder(self, noise_fn: NoiseFn, z0: Tensor, eps: float, noise: Tensor) -> Tensor:
        r"""Return :math:`R_\epsilon = \log q(z_\epsilon|z_0) - \log p(z_0|z_\epsilon)`, in nats.

        ``z0`` and ``noise`` have shape (B, *), the result (B,). A prediction of 0 gives the fixed decoder.
        """

    def ode_drift(self, noise_fn: NoiseFn, z: Tensor, a: Tensor) -> Tensor:
        r"""Return :math:`\mathrm dz/\mathrm dA` of the probability-flow ODE, (B, *) to (B, *), at the scalar ``a``.

        Only a path with an ODE has it.
        """

    def reverse_step(self, z: Tensor, noise: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and scale, which broadcast to (B, *), of a step from t to s < t, given the noise predicted at t.

        ``z`` and ``noise`` have shape (B, *), ``t`` and ``s`` (B,).
        """


@dataclass(frozen=True)
class LinearPath:
    """The linear diffusion itself.

    Arguments:
        sde: the diffusion.
    """

    sde: SDE
    has_ode: ClassVar[bool] = True

    def perturb(self, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        r"""Return :math:`\alpha_t z_0 + \sigma_t\epsilon`; ``z0``, ``noise`` (B, *), ``t`` (B,), result (B, *)."""
        return perturb(self.sde, z0, t, noise)

    def error(self, noise_fn: NoiseFn, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        r"""Return :math:`\|\epsilon_\theta(z_t, t) - \epsilon\|^2`; ``z0``, ``noise`` (B, *), ``t`` (B,), result (B,)."""
        return squared_norm(noise_fn(self.perturb(z0, t, noise), t) - noise)

    def prior(self, z0: Tensor) -> Tensor:
        r"""Return the cross entropy in closed form, with :math:`p_T = \mathcal N(0, s^2 I)`, in nats, (B, *) to (B,).

        .. math:: \tfrac D2\log 2\pi s^2 + \frac{\|\alpha_T z_0\|^2 + D\sigma_T^2}{2 s^2}
        """
        end = torch.tensor(T, dtype=torch.float64)
        alpha, sigma, std = self.sde.alpha(end), self.sde.sigma(end), self.sde.prior_std
        constant = 0.5 * z0[0].numel() * (math.log(2 * math.pi * std**2) + (sigma / std) ** 2)
        return constant + squared_norm(z0) * (alpha / std) ** 2 / 2

    def entropy(self, z0: Tensor, z: float | Tensor, eps: float) -> float | Tensor:
        r"""Return the change of entropy c in closed form, in nats, a scalar that is the same for all latents.

        .. math:: -D\Big(\frac Z2 + \int_\epsilon^T f\,\mathrm dt\Big) = -D\log\frac{\sigma_T}{\sigma_\epsilon}

        ``z0`` (B, *) only gives D; ``z``, a scalar, is Z.
        """
        return -z0[0].numel() * (0.5 * z + self.sde.divergence_integral(eps))

    def decoder(self, noise_fn: NoiseFn, z0: Tensor, eps: float, noise: Tensor) -> Tensor:
        r"""Return the cost of decoding :math:`z_0` from :math:`z_\epsilon`, in nats; see :mod:`indm.diffusion.decoder`.

        .. math:: -D\ln\alpha_\epsilon + \tfrac12\big(\|\epsilon_\theta(z_\epsilon, \epsilon)-\epsilon\|^2 - \|\epsilon\|^2\big)

        ``z0`` and ``noise`` have shape (B, *), the result (B,).

        References:
            | Soft Truncation (Kim et al., 2022), https://arxiv.org/abs/2106.05527, appendix on the reconstruction term
        """
        t = torch.full((len(z0),), eps, dtype=torch.float64, device=z0.device)
        error = squared_norm(noise_fn(self.perturb(z0, t, noise), t) - noise)
        return 0.5 * (error - squared_norm(noise)) - self.volume(z0, eps)

    def volume(self, z0: Tensor, eps: float) -> Tensor:
        r"""Return :math:`D\ln\alpha_\epsilon`, whose negative is the cost of the fixed decoder, in nats, a scalar tensor."""
        return z0[0].numel() * self.sde.alpha(torch.tensor(eps, dtype=torch.float64, device=z0.device)).log()

    def ode_drift(self, noise_fn: NoiseFn, z: Tensor, a: Tensor) -> Tensor:
        r"""Return the drift in A, where the ODE is not stiff near :math:`t = 0`, (B, *) to (B, *), at the scalar ``a``.

        .. math:: \frac{\mathrm d z}{\mathrm d A} = \frac{f\sigma^2}{g^2}\, z + \frac{\sigma}{2}\,\epsilon_\theta(z, t(A))

        References:
            | Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021)
            | https://arxiv.org/abs/2011.13456, equation 13
        """
        t = self.sde.time(a.double())
        linear = self.sde.drift(t) * (self.sde.sigma(t) / self.sde.diffusion(t)) ** 2
        return linear.to(z.dtype) * z + 0.5 * self.sde.sigma(t).to(z.dtype) * noise_fn(z, t.expand(len(z)))

    def reverse_step(self, z: Tensor, noise: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        r"""Ancestral step: the Gaussian posterior :math:`q(z_s \mid z_t, z_0)` at the predicted :math:`z_0`.

        .. math::
            \mu = \frac1{\alpha_{t|s}}\Big(z_t - \frac{\sigma^2_{t|s}}{\sigma_t}\epsilon_\theta\Big), \quad
            \text{std} = \frac{\sigma_{t|s}\sigma_s}{\sigma_t}, \quad
            \alpha_{t|s} = \frac{\alpha_t}{\alpha_s},\; \sigma^2_{t|s} = \sigma_t^2 - \alpha_{t|s}^2\sigma_s^2

        ``z``, ``noise`` and the mean have shape (B, *), ``t`` and ``s`` (B,), and the scale, std, (B, 1, ...).

        References:
            | Denoising Diffusion Probabilistic Models (Ho et al., 2020), https://arxiv.org/abs/2006.11239, equations 7 and 11
        """
        sigma_t, sigma_s, ratio = self.sde.sigma(t), self.sde.sigma(s), self.sde.alpha(t) / self.sde.alpha(s)
        variance = sigma_t**2 - ratio**2 * sigma_s**2
        mean = (z - per_sample(variance / sigma_t, z) * noise) / per_sample(ratio, z)
        return mean, per_sample(torch.sqrt(variance) * sigma_s / sigma_t, z)


def nelbo(path: ForwardPath, z0: Tensor, log_det: Tensor, error: Tensor, z: float | Tensor, eps: float) -> Tensor:
    r"""Return the negative evidence lower bound without the reconstruction term, in nats.

    Arguments:
        path: the forward process of the latent.
        z0: clean latents :math:`h_\phi(x)`, shape (B, *).
        log_det: :math:`\log|\det \partial h_\phi/\partial x|` in nats, shape (B,).
        error: the path's error at importance-sampled times, from one draw or averaged over several, shape (B,).
        z: normalising constant of the importance distribution, a scalar.
        eps: truncation time.

    Returns:
        The bound for each sample, in nats, shape (B,).

    References:
        | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022)
        | https://arxiv.org/abs/2205.13699, theorem 1
    """
    return path.prior(z0) + likelihood_weighted(error, z) + path.entropy(z0, z, eps) - log_det
