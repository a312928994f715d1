"""From a network's raw output to the noise prediction."""

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from indm.diffusion.objectives import per_sample
from indm.diffusion.precondition import Preconditioner
from indm.diffusion.sde import SDE

if TYPE_CHECKING:
    from indm.networks.registered.unet import ScoreUNet

# The running deviation averages the first 100 batches; after them, each new batch has a weight of 1/100.
MEMORY = 100


class NoiseModel(nn.Module):
    r"""Noise prediction of z_t from a network that is conditioned on the noise level.

    .. math:: \epsilon_\theta(z_t, t) = -\sigma_t s_\theta(z_t, t)

    The network's raw output r is the noise itself, :math:`\epsilon_\theta = r`, or, where the network divides by
    sigma (``scale_by_sigma``, the released VE network), the score, :math:`\epsilon_\theta = -\sigma_t r`, or, with ``predict``
    v, an estimate of :math:`v = (\alpha_t\epsilon - \sigma_t z_0) / \rho_t` with
    :math:`\rho_t = \sqrt{\alpha_t^2 + \sigma_t^2}`. Because :math:`(z_t / \rho_t, v)` is a rotation of
    :math:`(z_0, \epsilon)`, the noise is then

    .. math:: \epsilon_\theta = \frac{\alpha_t}{\rho_t}\, r + \frac{\sigma_t}{\rho_t^2}\, z_t

    Under VP, :math:`\rho_t = 1`.

    Arguments:
        network: maps an image (B, C, H, W) and a condition (B,) to the raw output (B, C, H, W).
        sde: the diffusion.
        normalise_input: divide z_t by :math:`\sqrt{\alpha_t^2 s^2 + \sigma_t^2}`, so that a network that does not normalise
            its input sees values of order one at every noise level: with s = 1 (``unit``), with s the running deviation of
            the latent (``running``), a buffer that :meth:`follow` updates, or not at all (``none``).
        predict: ``noise`` or ``v``; v needs a network that does not divide by sigma.
        precondition: what changes the network's output, and the input unless it only adds a skip, by the training latents'
            spectrum, for a network that does not divide by sigma; ``None``: nothing does.

    Source: "Score-Based Generative Modeling through Stochastic Differential Equations" (Song et al., 2021,
    https://arxiv.org/abs/2011.13456, appendix C); for the normalised input "Elucidating the Design Space of
    Diffusion-Based Generative Models" (Karras et al., 2022, https://arxiv.org/abs/2206.00364, table 1: c_in); for v
    "Progressive Distillation for Fast Sampling of Diffusion Models" (Salimans & Ho, 2022, https://arxiv.org/abs/2202.00512,
    section 4).
    """

    variance: Tensor
    batches: Tensor

    def __init__(
        self,
        network: "ScoreUNet",
        sde: SDE,
        normalise_input: Literal["none", "unit", "running"] = "none",
        predict: Literal["noise", "v"] = "noise",
        precondition: Preconditioner | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.sde = sde
        self.normalise_input = normalise_input
        self.predict = predict
        self.precondition = precondition
        if normalise_input == "running":
            self.register_buffer("variance", torch.ones(()))
            self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    @property
    def follows(self) -> bool:
        """Whether :meth:`follow` must be called with the variance of every batch of latents."""
        return self.normalise_input == "running"

    @torch.no_grad()
    def follow(self, variance: Tensor) -> None:
        r"""Update the running variance :math:`s^2` with the variance v of a batch of latents, a scalar.

        .. math:: s_n^2 = s_{n-1}^2 + \frac{v_n - s_{n-1}^2}{\min(n, 100)}

        It is 1 before the first batch, then the mean over the first 100 batches.
        """
        self.batches += 1
        self.variance += (variance - self.variance) / self.batches.clamp(max=MEMORY)

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Predict the noise in z_t, both with shape (B, C, H, W) and no unit, at the times t, shape (B,) or a scalar."""
        t = t.expand(len(z_t))
        raw = self.network(self._input(z_t, t), self._condition(t).to(z_t.dtype))
        if self.precondition is not None:
            raw = self._preconditioned(self.precondition, raw.to(z_t.dtype), z_t, t)
        if self.predict == "v":
            return self._noise_of_v(raw, z_t, t)
        return -per_sample(self.sde.sigma(t), z_t) * raw if self.network.scale_by_sigma else raw

    def _input(self, z_t: Tensor, t: Tensor) -> Tensor:
        if self.precondition is not None and self.precondition.scales:
            with _precisely(z_t):
                return self.precondition.input(z_t, self.sde.alpha(t), self.sde.sigma(t))
        return z_t if self.normalise_input == "none" else z_t / per_sample(self._deviation(t), z_t)

    def _preconditioned(self, precondition: Preconditioner, raw: Tensor, z_t: Tensor, t: Tensor) -> Tensor:
        of = precondition.v if self.predict == "v" else precondition.noise
        with _precisely(z_t):
            return of(raw, z_t, self.sde.alpha(t), self.sde.sigma(t))

    def _noise_of_v(self, v: Tensor, z_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        total = alpha**2 + sigma**2
        return per_sample(alpha / total.sqrt(), z_t) * v + per_sample(sigma / total, z_t) * z_t

    def _deviation(self, t: Tensor) -> Tensor:
        """Return the standard deviation, shape (B,), by which z_t is divided."""
        alpha2 = self.sde.alpha(t) ** 2
        return ((alpha2 * self.variance if self.follows else alpha2) + self.sde.sigma(t) ** 2).sqrt()

    def _condition(self, t: Tensor) -> Tensor:
        if self.network.embedding == "positional":
            return 999 * t
        return self.sde.sigma(t) if self.network.embedding == "fourier" else self.sde.log_snr(t)


def _precisely(like: Tensor) -> torch.autocast:
    """Compute in the tensors' own precision, because at late times the linear prediction is nearly all of the prediction."""
    return torch.autocast(like.device.type, enabled=False)
