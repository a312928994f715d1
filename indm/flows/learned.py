r"""Learned affine maps of the data: the steps between the identity and a nonlinear flow.

All start at the identity, and their log-determinant has a closed form, which is the same for every image. They keep the
diffusion of the data linear, so that they are the controls for the gain of a nonlinear flow.

Under VP, where :math:`\sigma_t^2 = 1 - \alpha_t^2`, a single number is already equivalent to another noise schedule. With a
latent
:math:`z_0 = s x`,

.. math::
    z_t = \alpha_t s x + \sigma_t \epsilon, \qquad
    \log\frac{s^2 \alpha_t^2}{\sigma_t^2} = \log\mathrm{SNR}(t) + 2 \log s ,

which is, up to a factor that the score network can undo, the diffusion of x with its log-SNR shifted by :math:`2\log s`; see
docs/controls.md.

References:
    | Variational Diffusion Models (Kingma et al., 2021), section 5.1: how the bound depends on the noise schedule
    | https://arxiv.org/abs/2107.00630
"""

import torch
from torch import Tensor

from indm.flows.base import Flow, LogDet
from indm.flows.sources import Source


class ClosedFormFlow(Flow):
    """A map of the latent with a log-determinant in closed form; see :class:`Flow` for the shapes."""

    def map(self, x: Tensor) -> Tensor:
        """Return z for x, (B, C, S, S) to (B, C, S, S)."""
        raise NotImplementedError

    def unmap(self, z: Tensor) -> Tensor:
        """Return x for z, (B, C, S, S) to (B, C, S, S), the inverse of :meth:`map`."""
        raise NotImplementedError

    def volume(self) -> Tensor:
        """Return log|det dz/dx| in nats, a scalar."""
        raise NotImplementedError

    def forward(self, x: Tensor, log_det: LogDet, generator: Source = None) -> tuple[Tensor, Tensor]:
        """Return z with shape (B, C, S, S) and the volume of every image in nats with shape (B,); see :meth:`Flow.forward`."""
        self._check_shape(x)
        value = x.new_zeros(len(x))
        return self.map(x), value if log_det == "none" else value + self.volume()

    @torch.no_grad()
    def inverse(
        self, z: Tensor, atol: float = 1e-6, max_iterations: int = 1000, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return x in closed form, (B, C, S, S) to (B, C, S, S); see :meth:`Flow.inverse`."""
        self._check_shape(z)
        return self.unmap(z)
