"""An entry: each image's colours and its whole are turned by a learned rotation, and then scaled entry by entry.

The rotation is the matrix exponential of an antisymmetric matrix, so that its log-determinant is 0.
"""

import torch
from torch import Tensor, nn

from indm.flows.learned import ClosedFormFlow

LABEL = "rotation"
RATES = {
    "smoke": {"lr": 1.0e-2, "flow_lr": 1.0e-2},
    "densities": {"lr": 1.0e-2, "flow_lr": 1.0e-2},
    "digits": {"lr": 1.67e-2, "flow_lr": 1.0e-3},
}


class Rotation(ClosedFormFlow):
    r"""With an orthogonal matrix Q and scales, :math:`z = e^c \odot Q x`, and :math:`\log|\det\partial z/\partial x| = \sum_i c_i`."""

    def __init__(self, channels_in: int, image_size: int) -> None:
        super().__init__(channels_in, image_size)
        dims = channels_in * image_size**2
        self.generator = nn.Parameter(torch.zeros(dims, dims))
        self.log_scale = nn.Parameter(torch.zeros(dims))

    def rotation(self) -> Tensor:
        return torch.linalg.matrix_exp(self.generator - self.generator.mT)

    def map(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.rotation().mT * self.log_scale.exp()).view_as(x)

    def unmap(self, z: Tensor) -> Tensor:
        return ((z.flatten(1) * (-self.log_scale).exp()) @ self.rotation()).view_as(z)

    def volume(self) -> Tensor:
        return self.log_scale.sum()


FLOW = Rotation
