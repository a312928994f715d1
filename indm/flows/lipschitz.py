r"""Convolutions whose Lipschitz constant is bounded by a coefficient c < 1.

.. math:: W_c = W / \max(1, \|W\| / c)

with one of two norms, ``"linf"`` or ``"spectral"``. Weights below the bound do not change.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Bound = Literal["linf", "spectral"]

# On a CPU, stacking weights with more elements than this takes longer than the calls that it saves.
FEW_ELEMENTS = 2**14


class LipschitzConv2d(nn.Conv2d):
    """A convolution of images, (B, C, S, S) to (B, K, S, S), with zero padding that keeps their size.

    :func:`bounded_weights` bounds its Lipschitz constant by ``coefficient``.

    Arguments:
        channels_in: C, channels of the input.
        channels_out: K, channels of the output.
        kernel_size: odd width of the kernel.
        image_size: S.
        coefficient: c, the bound on the Lipschitz constant.
    """

    bias: Tensor
    dual: float
    """p of the p-norm in which the adjoint is bounded."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel_size: int, image_size: int, coefficient: float
    ) -> None:
        super().__init__(channels_in, channels_out, kernel_size, padding=kernel_size // 2)
        self.image_size = image_size
        self.coefficient = coefficient

    def norm(self) -> Tensor:
        """Return the norm of the weight, differentiable: a scalar, or (K, 1, 1, 1) for one per output channel."""
        raise NotImplementedError

    @classmethod
    def norms(cls, convs: Sequence[Self], weights: Tensor) -> Tensor:
        """Return the norms of n convolutions, differentiable: (n, 1, 1, 1, 1), or (n, K, 1, 1, 1).

        Arguments:
            convs: n convolutions of one shape.
            weights: their weights, shape (n, K, C, kernel_size, kernel_size).
        """
        return torch.stack([conv.norm() for conv in convs])[:, None, None, None, None]

    @torch.no_grad()
    def scale_to_bound(self) -> None:
        """Rescale the weight so that its norm equals the coefficient."""
        self.weight.mul_(self.coefficient / self.norm())

    def update_norms(self) -> None:
        """Refresh the state that :meth:`norm` keeps between calls."""


class LinfConv2d(LipschitzConv2d):
    r"""Bounded in the max-norm, separately for each output channel: :math:`\|W_k\| = \sum_{cij} |W_{kcij}|`.

    References:
        | Residual Flows for Invertible Generative Modeling (Chen et al., 2019), on induced mixed norms
        | https://arxiv.org/abs/1906.02735
    """

    dual = 1

    def norm(self) -> Tensor:
        """Return the norms of the output channels, shape (K, 1, 1, 1)."""
        return self.norms([self], self.weight)

    @classmethod
    def norms(cls, convs: Sequence[Self], weights: Tensor) -> Tensor:
        """Return the norms, (n, K, C, kernel_size, kernel_size) to (n, K, 1, 1, 1)."""
        return weights.abs().sum(dim=(-3, -2, -1), keepdim=True)


class SpectralConv2d(LipschitzConv2d):
    r"""Bounded in the 2-norm: ``norm`` is the largest singular value of the padded convolution.

    .. math:: \sigma = \|W * v\|_2, \qquad v = \operatorname{argmax}_{\|v\|_2 = 1} \|W * v\|_2

    The singular vector v, with shape (1, C, S, S), is a buffer: it is held constant in the gradient of sigma, and
    :meth:`update_norms` must follow each change of the weight. If K < C, v is the left singular vector, with shape
    (1, K, S, S), and the adjoint replaces the convolution. A 1 x 1 kernel acts on every pixel in the same way, so that
    S = 1.

    References:
        | Spectral Normalization for Generative Adversarial Networks (Miyato et al., 2018), section 2.1
        | https://arxiv.org/abs/1802.05957
        | Regularisation of Neural Networks by Enforcing Lipschitz Continuity (Gouk et al., 2018), section 3
        | https://arxiv.org/abs/1804.04368
    """

    v: Tensor
    dual = 2

    def __init__(
        self, channels_in: int, channels_out: int, kernel_size: int, image_size: int, coefficient: float
    ) -> None:
        super().__init__(channels_in, channels_out, kernel_size, image_size, coefficient)
        self.adjoint = channels_out < channels_in
        size = image_size if kernel_size > 1 else 1
        self.register_buffer("v", torch.randn(1, min(channels_in, channels_out), size, size))
        self.update_norms(iterations=30)

    def norm(self) -> Tensor:
        """Return sigma, a scalar."""
        return self._map(self.v, adjoint=self.adjoint).norm()

    @torch.no_grad()
    def update_norms(self, iterations: int = 6) -> None:
        """Replace v by the best vector of the Krylov space v, W^T W v, (W^T W)^2 v, ... (Lanczos).

        It needs as many convolutions as power iteration, but still finds the largest singular value if others are close to it.
        """
        basis = _unit(self.v).reshape(1, -1)
        images = []
        for _ in range(min(iterations, self.v.numel())):
            images.append(self._gram(basis[-1].view_as(self.v)).flatten())
            direction = images[-1]
            for _ in range(2):  # one pass leaves rounding errors along the basis
                direction = _unit(direction - basis.t() @ (basis @ direction))
            basis = torch.cat([basis, direction.unsqueeze(0)])
        ritz = torch.linalg.eigh(basis[:-1] @ torch.stack(images, 1)).eigenvectors[:, -1]
        self.v.copy_(_unit(ritz @ basis[:-1]).view_as(self.v))

    def _gram(self, x: Tensor) -> Tensor:
        return self._map(self._map(x, adjoint=self.adjoint), adjoint=not self.adjoint)

    def _map(self, x: Tensor, *, adjoint: bool) -> Tensor:
        convolve = F.conv_transpose2d if adjoint else F.conv2d
        return convolve(x, self.weight, padding=self.kernel_size[0] // 2)


BOUNDS: dict[Bound, type[LipschitzConv2d]] = {"linf": LinfConv2d, "spectral": SpectralConv2d}


def bounded_weights(convs: Sequence[LipschitzConv2d]) -> list[Tensor]:
    """Return W_c of each convolution, with shape (K, C, kernel_size, kernel_size).

    Convolutions of one shape are bounded together, because a few calls take less time than many.
    """
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for index, conv in enumerate(convs):
        alone = index if conv.weight.device.type == "cpu" and conv.weight.numel() > FEW_ELEMENTS else None
        groups[type(conv), conv.weight.shape, conv.coefficient, alone].append(index)
    found: dict[int, Tensor] = {}
    for indices in groups.values():
        group = [convs[index] for index in indices]
        first = group[0]
        weights = first.weight[None] if len(group) == 1 else torch.stack([conv.weight for conv in group])
        bounded = weights / (first.norms(group, weights) / first.coefficient).clamp(min=1)
        found.update(zip(indices, bounded.unbind(), strict=True))
    return [found[index] for index in range(len(convs))]


def _unit(x: Tensor) -> Tensor:
    return x / x.norm().clamp(min=torch.finfo(x.dtype).tiny)
