r"""Wolf: the residual flow of INDM's released code, whose blocks are conditioned on one latent vector h per image.

.. math::
    z = T_h(x), \qquad
    \log p(x) \ge E_{q(h|x)}\big[\log p_z(T_h(x)) + \log|\det dT_h(x)/dx| - \log q(h|x) + \log p(h)\big]

h is a latent variable of the model: one image has many latents z, every likelihood is a lower bound, and an image can only
be reconstructed from z and h together.

References:
    | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022)
    | https://arxiv.org/abs/2205.13699, released code https://github.com/byeonghu-na/INDM (``flow_models/wolf``)
    | Decoupling Global and Local Representations via Invertible Generative Flows (Ma et al., 2021), eq. 5
    | https://arxiv.org/abs/2004.11820
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from indm.errors import ParamsError
from indm.flows.base import Flow, LogDet, Map
from indm.flows.encoder import GaussianEncoder
from indm.flows.prior import PriorFlow, log_standard_normal
from indm.flows.registered.resflow import ResidualFlow
from indm.flows.sources import Source, draw_probe


class Wolf(Flow):
    """A residual flow T_h given h, an encoder q(h|x) and a prior p(h); one h is drawn per image and call.

    The map at a given h is ``wolf.bijection(x, log_det, generator, h)`` with the inverse ``wolf.bijection.inverse(z, h=h)``,
    for h with shape (B, latent_dim). The defaults follow the released code.

    Arguments:
        channels_in: C, channels of an image.
        image_size: S, its height and width.
        blocks: number of residual blocks per scale; with (0, ...) both they and the encoder start at half the resolution.
        latent_dim: F, the dimension of h, even.
        encoder_widths: channels of the encoder, which halves the resolution after each.
        encoder_channels_out: channels at the top of the encoder.
        prior_steps: steps of the prior's flow.
        prior_width: hidden units in the prior's couplings.
        frozen_prior_inverse: whether :meth:`inverse` draws h with the inverses that the prior's linear maps had when they
            were built. The released code does that, because it never refreshes its buffer of the inverse.
        **residual: further options of :class:`ResidualFlow`: width, activation, bound, ...

    Raises:
        ParamsError: if ``latent_dim`` is odd, or :class:`ResidualFlow` refuses its options.
    """

    def __init__(
        self,
        channels_in: int,
        image_size: int,
        *,
        blocks: tuple[int, ...],
        latent_dim: int = 64,
        encoder_widths: Sequence[int] = (48, 96, 96),
        encoder_channels_out: int = 8,
        prior_steps: int = 2,
        prior_width: int = 256,
        frozen_prior_inverse: bool = False,
        **residual: Any,
    ) -> None:
        super().__init__(channels_in, image_size)
        if latent_dim % 2:
            raise ParamsError(
                f"a wolf flow: found latent_dim {latent_dim}, expected an even number, because the prior splits h into halves; "
                "change latent_dim"
            )
        self.bijection = ResidualFlow(channels_in, image_size, blocks=blocks, condition_features=latent_dim, **residual)
        self.first_scale = next((scale for scale, count in enumerate(blocks) if count), 0)
        self.encoder = GaussianEncoder(
            channels_in * 4**self.first_scale,
            image_size // 2**self.first_scale,
            widths=encoder_widths,
            channels_out=encoder_channels_out,
            latent_dim=latent_dim,
        )
        self.prior = PriorFlow(latent_dim, prior_width, prior_steps, frozen_inverse=frozen_prior_inverse)
        self.latent_dim = latent_dim

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of q(h|x), each with shape (B, F), for images with shape (B, C, S, S)."""
        return self.encoder(self.bijection.to_scale(x, self.first_scale))

    def forward(self, x: Tensor, log_det: LogDet, generator: Source = None) -> tuple[Tensor, Tensor]:
        r"""Map images to latents at one h drawn from q(h|x) per image, and compute the rest of the bound of log p(x).

        .. math:: z = T_h(x), \qquad v = \log\Big|\det\frac{\partial T_h(x)}{\partial x}\Big| - \log q(h|x) + \log p(h)

        The value v is random. The mean of :math:`\log p_z(z) + v` over h is a lower bound of log p(x). The first draw from the
        generator is h, also in eval mode.

        Arguments:
            x: images, with shape (B, C, S, S).
            log_det: see :data:`LogDet`; with ``"none"``, zeros replace v.
            generator: source of every random draw; torch's global generator if None.

        Returns:
            z with shape (B, C, S, S) and v in nats with shape (B,).

        Raises:
            ValueError: if the images have another shape, or ``log_det`` is unknown.
            ConvergenceError: as in :meth:`ResidualFlow.forward`.
        """
        self._check_shape(x)
        h, log_q = self._draw(*self.posterior(x), generator)
        z, value = self.bijection(x, log_det, generator, h)
        return (z, value) if log_det == "none" else (z, value - log_q + self.prior.log_prob(h))

    @torch.no_grad()
    def inverse(
        self, z: Tensor, atol: float = 1e-6, max_iterations: int = 1000, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return x = T_h^-1(z) at a new h drawn from the prior, (B, C, S, S) to (B, C, S, S); see :meth:`Flow.inverse`."""
        self._check_shape(z)
        e = draw_probe(z.new_empty(z.shape[0], self.latent_dim), "gaussian", generator)
        return self.bijection.inverse(z, atol, max_iterations, h=self.prior.inverse(e))

    def bijection_at(self, x: Tensor, generator: Source = None) -> tuple[Map, Map]:
        """Return T_h and its inverse for images (B, C, S, S), at one h drawn from q(h|x) per image.

        See :meth:`Flow.bijection_at`.
        """
        h, _ = self._draw(*self.posterior(x), generator)
        return lambda images: self.bijection(images, "none", None, h)[0], lambda z: self.bijection.inverse(z, h=h)

    @property
    def mean_terms(self) -> float:
        return self.bijection.mean_terms

    def fix_terms(self, count: int) -> None:
        self.bijection.fix_terms(count)

    def update_norms(self) -> None:
        self.bijection.update_norms()

    @staticmethod
    def _draw(mean: Tensor, log_variance: Tensor, generator: Source) -> tuple[Tensor, Tensor]:
        """Draw h, with shape (B, F), and return it with log q(h|x), with shape (B,)."""
        noise = draw_probe(mean, "gaussian", generator)
        log_q = log_standard_normal(noise) - log_variance.sum(1) / 2
        return mean + (log_variance / 2).exp() * noise, log_q


FLOW = Wolf
