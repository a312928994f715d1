"""An entry: the mean of an image is scaled apart from the rest."""

import torch
from torch import Tensor, nn

from indm.flows.learned import ClosedFormFlow

LABEL = "brightness"
RATES = {
    "smoke": {"lr": 1.0e-2, "flow_lr": 1.0e-2},
    "densities": {"lr": 1.0e-2, "flow_lr": 1.0e-2},
    "digits": {"lr": 1.67e-2, "flow_lr": 1.0e-3},
}


class Brightness(ClosedFormFlow):
    r"""With m the mean of an image's entries, :math:`z = x + (e^a - 1)\,m`, and :math:`\log|\det\partial z/\partial x| = a`."""

    def __init__(self, channels_in: int, image_size: int) -> None:
        super().__init__(channels_in, image_size)
        self.log_gain = nn.Parameter(torch.zeros(()))

    def map(self, x: Tensor) -> Tensor:
        return x + torch.expm1(self.log_gain) * x.mean((1, 2, 3), keepdim=True)

    def unmap(self, z: Tensor) -> Tensor:
        return z + torch.expm1(-self.log_gain) * z.mean((1, 2, 3), keepdim=True)

    def volume(self) -> Tensor:
        return self.log_gain


FLOW = Brightness
