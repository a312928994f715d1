"""A learned gain for each spatial frequency of an image: a linear filter, diagonal in the cosine basis."""

import torch
from torch import Tensor, nn

from indm.flows.cosine import filtered
from indm.flows.learned import ClosedFormFlow


class SpectralFilter(ClosedFormFlow):
    r"""A filter with a gain for each channel and frequency, after a mix of the channels; see :class:`Flow` for the shapes.

    .. math::
        z = C^\top e^{a} C\,(L U x) + b, \qquad \log\Big|\det\frac{\partial z}{\partial x}\Big| = \sum_{c,k,l} a_{c,k,l}

    C is the orthonormal cosine transform of both axes of a channel. The mix of the channels of a pixel is the product of a lower
    and an upper triangular matrix with ones on their diagonals, because a scale of a channel is a gain at all of its frequencies.
    With :math:`a = -\log` of the square root of a spectrum, the filter whitens images of that spectrum.

    References:
        | Discrete Cosine Transform (Ahmed, Natarajan & Rao, 1974), https://doi.org/10.1109/T-C.1974.223784
        | Glow: Generative Flow with Invertible 1x1 Convolutions (Kingma & Dhariwal, 2018), section 3.2: the mix of channels
        | https://arxiv.org/abs/1807.03039
    """

    def __init__(self, channels_in: int, image_size: int) -> None:
        super().__init__(channels_in, image_size)
        self.log_gain = nn.Parameter(torch.zeros(self.image_shape))
        self.shift = nn.Parameter(torch.zeros(self.image_shape))
        # The entries of both factors off the diagonal, row by row; a grey image does not have any.
        self.mix = nn.Parameter(torch.zeros(channels_in * (channels_in - 1)))

    def map(self, x: Tensor) -> Tensor:
        """Return z, (B, C, S, S) to (B, C, S, S)."""
        lower, upper = self._factors()
        return filtered(torch.einsum("ij,jk,bkhw->bihw", lower, upper, x), self.log_gain) + self.shift

    def unmap(self, z: Tensor) -> Tensor:
        """Return x = U^-1 L^-1 C^T e^-a C (z - b), (B, C, S, S) to (B, C, S, S)."""
        lower, upper = self._factors()
        columns = filtered(z - self.shift, -self.log_gain).flatten(2)
        columns = torch.linalg.solve_triangular(lower, columns, upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, columns, upper=True, unitriangular=True).unflatten(2, z.shape[2:])

    def volume(self) -> Tensor:
        """Return the sum of a in nats, a scalar."""
        return self.log_gain.sum()

    def log_gains(self) -> Tensor:
        """Return a in nats, shape (C, S, S)."""
        return self.log_gain

    def _factors(self) -> tuple[Tensor, Tensor]:
        ones = torch.eye(self.image_shape[0], dtype=self.mix.dtype, device=self.mix.device)
        entries = torch.zeros_like(ones).masked_scatter(ones == 0, self.mix)
        return entries.tril(-1) + ones, entries.triu(1) + ones


FLOW = SpectralFilter
