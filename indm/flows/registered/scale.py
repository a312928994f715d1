"""One learned scale for the whole latent."""

import math

import torch
from torch import Tensor, nn

from indm.flows.learned import ClosedFormFlow


class Scale(ClosedFormFlow):
    r"""A scale, :math:`z = e^a x`, with :math:`\log|\det \partial z/\partial x| = D a`; see :class:`Flow` for the shapes."""

    def __init__(self, channels_in: int, image_size: int) -> None:
        super().__init__(channels_in, image_size)
        self.log_scale = nn.Parameter(torch.zeros(()))

    def map(self, x: Tensor) -> Tensor:
        """Return e^a x, (B, C, S, S) to (B, C, S, S)."""
        return self.log_scale.exp() * x

    def unmap(self, z: Tensor) -> Tensor:
        """Return e^-a z, (B, C, S, S) to (B, C, S, S)."""
        return z / self.log_scale.exp()

    def log_gains(self) -> Tensor:
        """Return a for each frequency, in nats, shape (C, S, S)."""
        return self.log_scale.expand(self.image_shape)

    def volume(self) -> Tensor:
        """Return D a in nats, a scalar."""
        return math.prod(self.image_shape) * self.log_scale


FLOW = Scale
