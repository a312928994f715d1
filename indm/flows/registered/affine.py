"""A learned scale and shift for each pixel and channel of the latent."""

import torch
from torch import Tensor, nn

from indm.flows.learned import ClosedFormFlow


class PixelAffine(ClosedFormFlow):
    r"""A scale and a shift for each entry, :math:`z_i = e^{a_i} x_i + b_i`; see :class:`Flow` for the shapes.

    .. math:: \log\Big|\det\frac{\partial z}{\partial x}\Big| = \sum_i a_i
    """

    def __init__(self, channels_in: int, image_size: int) -> None:
        super().__init__(channels_in, image_size)
        self.log_scale = nn.Parameter(torch.zeros(self.image_shape))
        self.shift = nn.Parameter(torch.zeros(self.image_shape))

    def map(self, x: Tensor) -> Tensor:
        """Return e^a x + b, (B, C, S, S) to (B, C, S, S)."""
        return self.log_scale.exp() * x + self.shift

    def unmap(self, z: Tensor) -> Tensor:
        """Return (z - b) e^-a, (B, C, S, S) to (B, C, S, S)."""
        return (z - self.shift) / self.log_scale.exp()

    def volume(self) -> Tensor:
        """Return the sum of a in nats, a scalar."""
        return self.log_scale.sum()


FLOW = PixelAffine
