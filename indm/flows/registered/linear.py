"""A learned invertible linear map of all entries of the latent, and a shift."""

import math

import torch
from torch import Tensor, nn

from indm.flows.learned import ClosedFormFlow


class Linear(ClosedFormFlow):
    r"""A linear map by its LU factors, and a shift, of the D entries of an image; see :class:`Flow` for the shapes.

    .. math:: z = L U x + b, \qquad \log\Big|\det\frac{\partial z}{\partial x}\Big| = \sum_i d_i

    L is lower triangular with ones on its diagonal, and U is upper triangular with :math:`e^{d_i}` on its diagonal. Both are
    packed into one D x D matrix, as in LAPACK, with :math:`d_i` on its diagonal. Without a permutation, only matrices with
    positive leading minors are possible, but they include a matrix that makes any given Gaussian standard normal, such as
    the inverse of the covariance's Cholesky factor, or of its square root.

    References:
        | Glow: Generative Flow with Invertible 1x1 Convolutions (Kingma & Dhariwal, 2018), section 3.2
        | https://arxiv.org/abs/1807.03039
    """

    def __init__(self, channels_in: int, image_size: int) -> None:
        super().__init__(channels_in, image_size)
        dims = math.prod(self.image_shape)
        self.factors = nn.Parameter(torch.zeros(dims, dims))
        self.shift = nn.Parameter(torch.zeros(self.image_shape))

    def map(self, x: Tensor) -> Tensor:
        """Return L U x + b, (B, C, S, S) to (B, C, S, S)."""
        # Rows are images. Two products with the factors, because the product of the factors would take D / B times as long.
        upper = x.flatten(1) @ self._upper().T
        lower = upper + upper @ self.factors.tril(-1).T
        return lower.unflatten(1, self.image_shape) + self.shift

    def unmap(self, z: Tensor) -> Tensor:
        """Return U^-1 L^-1 (z - b), (B, C, S, S) to (B, C, S, S)."""
        columns = (z - self.shift).flatten(1).T
        # For L, the diagonal counts as 1 and the entries above it are ignored.
        columns = torch.linalg.solve_triangular(self.factors, columns, upper=False, unitriangular=True)
        columns = torch.linalg.solve_triangular(self._upper(), columns, upper=True)
        return columns.T.unflatten(1, self.image_shape)

    def volume(self) -> Tensor:
        """Return the sum of d in nats, a scalar."""
        return self.factors.diagonal().sum()

    def _upper(self) -> Tensor:
        return self.factors.triu(1) + self.factors.diagonal().exp().diag()


FLOW = Linear
