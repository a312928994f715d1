"""The identity, with which INDM becomes the linear diffusion model DDPM++."""

import torch
from torch import Tensor

from indm.flows.base import Flow, LogDet
from indm.flows.sources import Source


class Identity(Flow):
    """h(x) = x with log|det dh/dx| = 0 and no parameters; see :class:`Flow` for the shapes."""

    def forward(self, x: Tensor, log_det: LogDet, generator: Source = None) -> tuple[Tensor, Tensor]:
        """Return x with shape (B, C, S, S) and zeros, in nats, with shape (B,); see :meth:`Flow.forward`."""
        self._check_shape(x)
        return x, x.new_zeros(x.shape[0])

    def log_gains(self) -> Tensor:
        """Return zeros, in nats, shape (C, S, S)."""
        return torch.zeros(self.image_shape)

    def inverse(
        self, z: Tensor, atol: float = 1e-6, max_iterations: int = 1000, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return z, shape (B, C, S, S); see :meth:`Flow.inverse`."""
        self._check_shape(z)
        return z


FLOW = Identity
