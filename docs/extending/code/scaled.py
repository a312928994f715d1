"""A residual flow with a learned scale of its latent."""

from typing import Any

import torch
from torch import Tensor, nn

from indm.flows.base import LogDet
from indm.flows.registered.resflow import ResidualFlow
from indm.flows.sources import Source


class ScaledResidualFlow(ResidualFlow):
    r"""A residual flow h', then a scale of each channel, :math:`h(x) = e^s h'(x)`; see :class:`Flow` for the shapes.

    .. math:: \log\Big|\det\frac{\partial h}{\partial x}\Big| = \log\Big|\det\frac{\partial h'}{\partial x}\Big| + S^2 \sum_c s_c
    """

    def __init__(self, channels_in: int, image_size: int, **options: Any) -> None:
        super().__init__(channels_in, image_size, **options)
        self.log_scale = nn.Parameter(torch.zeros(channels_in, 1, 1))

    def forward(self, x: Tensor, log_det: LogDet, generator: Source = None) -> tuple[Tensor, Tensor]:
        z, value = super().forward(x, log_det, generator)
        if log_det != "none":
            value = value + self.log_scale.expand(self.image_shape).sum()
        return z * self.log_scale.exp(), value

    @torch.no_grad()
    def inverse(
        self,
        z: Tensor,
        atol: float = 1e-6,
        max_iterations: int = 1000,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return super().inverse(z / self.log_scale.exp(), atol, max_iterations, generator)


FLOW = ScaledResidualFlow
