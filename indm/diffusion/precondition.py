r"""A network that knows the mean and the spectrum of the data: EDM's preconditioning, for each spatial frequency.

Let C be the orthonormal cosine transform of both axes of a channel, m and S the mean and the variance of each coefficient of
:math:`C z_0` over the training latents, and

.. math:: u = C z_t - \alpha_t m, \qquad v = \alpha_t^2 S + \sigma_t^2 .

For Gaussian latents with independent coefficients, :math:`\sigma_t u / v` is the expected noise given :math:`z_t`. A network F that
has this for nothing only learns the rest,

.. math::
    C\epsilon_\theta = \frac{\sigma_t}{v}\, u + c_\text{out}\, C F\big(C^\top (c_\text{in}\, u), t\big), \qquad
    c_\text{in} = v^{-1/2}, \qquad c_\text{out} = \alpha_t S^{1/2} v^{-1/2} .

F sees an image whose coefficients have variance 1, and the coefficients of what it has to predict have variance 1, too. It is no
map of the data: the latent and the forward process are unchanged, and only the network's parametrisation differs.

References:
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), table 1: c_skip, c_in and c_out
    | https://arxiv.org/abs/2206.00364
    | Discrete Cosine Transform (Ahmed, Natarajan & Rao, 1974), https://doi.org/10.1109/T-C.1974.223784
"""

from typing import Literal

import torch
from torch import Tensor, nn

from indm.diffusion.objectives import per_sample
from indm.errors import DataError
from indm.flows.base import Batches
from indm.flows.cosine import coefficient_moments, from_cosine, to_cosine

Kind = Literal["spectrum", "skip"]


class Preconditioner(nn.Module):
    r"""The input and the output of a network from the training latents' mean and spectrum.

    ``spectrum`` is the whole of the module's equation. ``skip`` adds only :math:`\sigma_t u / v` to a network whose input and
    output are not scaled: it has the best linear prediction, but not EDM's scales.

    Arguments:
        kind: ``spectrum`` or ``skip``.
        shape: (C, S, S) of a latent.

    Attributes:
        mean: m, shape (C, S, S), without a unit; 0 before :meth:`fit`.
        variance: S, shape (C, S, S), without a unit; 1 before :meth:`fit`.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, kind: Kind, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("variance", torch.ones(shape))

    @torch.no_grad()
    def fit(self, batches: Batches) -> None:
        """Set m and S from the training latents, in batches (B, C, S, S); both are added up in float64.

        Raises:
            DataError: if a coefficient does not vary, because its noise could be told exactly.
        """
        mean, variance = coefficient_moments(batches)
        if not (variance > 0).all():
            place = tuple((~(variance > 0)).nonzero()[0].tolist())
            raise DataError(
                f"train.score.precondition: found variance {variance[place].item():g} of the coefficient {place} (channel, "
                "vertical and horizontal frequency) of the training latents, expected a positive one; set it to none"
            )
        self.mean.copy_(mean)
        self.variance.copy_(variance)

    @property
    def scales(self) -> bool:
        """Whether input and output are scaled by frequency, beside the skip."""
        return self.kind == "spectrum"

    def input(self, z_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        r"""Return :math:`C^\top v^{-1/2} u`, which a network sees whose input is scaled.

        ``z_t`` and the result have shape (B, C, S, S), ``alpha`` and ``sigma`` (B,).
        """
        u, v = self._centred(z_t, alpha, sigma)
        return from_cosine(u * v.rsqrt())

    def noise(self, raw: Tensor, z_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        r"""Return the noise prediction :math:`\epsilon_\theta` of a network's output that stands for noise.

        .. math:: C\epsilon_\theta = \frac{\sigma_t}{v}\, u + c_\text{out}\, C F

        with :math:`c_\text{out} = 1` for ``skip``.

        Arguments:
            raw: F, the network's output, shape (B, C, S, S).
            z_t: the noisy latents, shape (B, C, S, S).
            alpha: :math:`\alpha_t`, shape (B,).
            sigma: :math:`\sigma_t`, shape (B,).
        """
        u, v = self._centred(z_t, alpha, sigma)
        skip = per_sample(sigma, z_t) / v * u
        if not self.scales:
            return from_cosine(skip) + raw
        scale = per_sample(alpha, z_t) * self.variance.sqrt() * v.rsqrt()
        return from_cosine(skip + scale * to_cosine(raw))

    def v(self, raw: Tensor, z_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        r"""Return the prediction of :math:`v_t = (\alpha_t\epsilon - \sigma_t z_0) / \rho_t` of an output that stands for it.

        .. math::
            C v_\theta = \frac{\alpha_t\sigma_t (1 - S)}{\rho_t v}\, u - \frac{\sigma_t}{\rho_t} m
            + \rho_t\, S^{1/2} v^{-1/2}\, C F, \qquad \rho_t^2 = \alpha_t^2 + \sigma_t^2

        The factor of CF is 1 for ``skip``. For ``spectrum``, it is the same noise prediction as :meth:`noise` has for the same F.

        Arguments:
            raw: F, the network's output, shape (B, C, S, S).
            z_t: the noisy latents, shape (B, C, S, S).
            alpha: :math:`\alpha_t`, shape (B,).
            sigma: :math:`\sigma_t`, shape (B,).
        """
        u, v = self._centred(z_t, alpha, sigma)
        a, s = per_sample(alpha, z_t), per_sample(sigma, z_t)
        rho = (a**2 + s**2).sqrt()
        skip = s / rho * (a * (1 - self.variance) / v * u - self.mean)
        if not self.scales:
            return from_cosine(skip) + raw
        return from_cosine(skip + rho * self.variance.sqrt() * v.rsqrt() * to_cosine(raw))

    def _centred(self, z_t: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return u and v, shape (B, C, S, S)."""
        a, s = per_sample(alpha, z_t), per_sample(sigma, z_t)
        return to_cosine(z_t) - a * self.mean, a**2 * self.variance + s**2
