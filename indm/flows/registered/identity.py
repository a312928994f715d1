"""The identity, with which INDM becomes the linear diffusion model DDPM++."""

import torch
from torch import Tensor

from indm.flows.base import Flow, LogDet
from indm.flows.sources import Source


class Identity(Flow):
    """h(x) = x with log|det dh/dx| = 0 and no parameters; see :class:`Flow` for the shapes."""

    def forward(self, x: Tensor, log_det: LogDet, generator: Source = None) -> tuple[Tensor, Tensor]:
        self._check_shape(x)
        return x, x.new_zeros(x.shape[0])

    def log_gains(self) -> Tensor:
        return torch.zeros(self.image_shape)

    def inverse(
        self, z: Tensor, atol: float = 1e-6, max_iterations: int = 1000, generator: torch.Generator | None = None
    ) -> Tensor:
        self._check_shape(z)
        return z


FLOW = Identity
