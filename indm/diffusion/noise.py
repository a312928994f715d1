"""From a network's raw output to the noise prediction and the score of an SDE's marginals."""

from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn

if TYPE_CHECKING:
    from indm.networks.registered.unet import ScoreUNet


class Marginal(Protocol):
    """The Gaussian perturbation kernel z_t = alpha_t z_0 + sigma_t eps of an SDE; times and values have shape (B,)."""

    def alpha(self, t: Tensor) -> Tensor: ...

    def sigma(self, t: Tensor) -> Tensor: ...

    def log_snr(self, t: Tensor) -> Tensor: ...


class NoiseModel(nn.Module):
    r"""Noise prediction and score of z_t from a network that is conditioned on the noise level.

    .. math:: \epsilon_\theta(z_t, t) = -\sigma_t s_\theta(z_t, t)

    The network's raw output r is the noise itself, :math:`\epsilon_\theta = r`, or, where the network divides by
    sigma (``scale_by_sigma``, the released VE network), the score, :math:`\epsilon_\theta = -\sigma_t r`.

    Arguments:
        network: raw output (B, C, H, W) of an image (B, C, H, W) and a condition (B,).
        sde: alpha, sigma and log SNR as functions of the time (B,).
        normalise_input: divide z_t by :math:`\sqrt{\alpha_t^2 + \sigma_t^2}`, so that a network without an inner
            normalisation of its input sees values of order one at every noise level of a VE process.

    Source: "Score-Based Generative Modeling through Stochastic Differential Equations" (Song et al., 2021,
    https://arxiv.org/abs/2011.13456, appendix C); for the normalised input "Elucidating the Design Space of
    Diffusion-Based Generative Models" (Karras et al., 2022, https://arxiv.org/abs/2206.00364, table 1).
    """

    def __init__(self, network: "ScoreUNet", sde: Marginal, normalise_input: bool = False) -> None:
        super().__init__()
        self.network = network
        self.sde = sde
        self.normalise_input = normalise_input

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Predict the noise (B, C, H, W) in z_t (B, C, H, W) at the times t (B,)."""
        t = t.expand(len(z_t))
        x = (
            z_t / _as_factor((self.sde.alpha(t) ** 2 + self.sde.sigma(t) ** 2).sqrt(), z_t)
            if self.normalise_input
            else z_t
        )
        raw = self.network(x, self._condition(t).to(z_t.dtype))
        return -_as_factor(self.sde.sigma(t), z_t) * raw if self.network.scale_by_sigma else raw

    def score(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Estimate the score (B, C, H, W) of the marginal at z_t (B, C, H, W) and the times t (B,)."""
        return -self(z_t, t) / _as_factor(self.sde.sigma(t.expand(len(z_t))), z_t)

    def _condition(self, t: Tensor) -> Tensor:
        if self.network.embedding == "positional":
            return 999 * t
        return self.sde.sigma(t) if self.network.embedding == "fourier" else self.sde.log_snr(t)


def _as_factor(values: Tensor, z: Tensor) -> Tensor:
    return values.to(z.dtype)[:, None, None, None]
