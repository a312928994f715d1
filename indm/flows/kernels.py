r"""A residual branch with the Neumann estimate of its log-determinant, and the gradients of both, written out.

``docs/gradient.md`` derives them, in the symbols of this module. Between taking the patches of an image (:math:`U`) and
adding patches up to an image (:math:`U^\top`), pixels are columns of a matrix, and each passes separately through six
places:

.. math::
    a_0 = U f_0(x), \quad z_1 = W_1 a_0 + b_1, \quad a_1 = f(z_1), \quad z_2 = W_2 a_1 + b_2, \quad a_2 = f(z_2), \quad
    y = R a_2, \qquad g(x) = U^\top y + b_3

with f the activation; f_0 is f if the branch starts with it and the identity otherwise. The estimate is
:math:`e = w^\top J v` with J = dg/dx. The backward pass receives the gradients of a loss with respect to g(x) and e. A
variable is named after its place:

====================  ==================================================================================================
``a0``                the columns at the place
``s1``                f'(z1), the slope; ``s0`` is f_0'(x) as an image, or None for 1
``v_z1``              v carried up to the place: dz1/dx v
``w_z1``              w carried down to the place: (dg/dz1)^T w; ``w_x`` is J^T w
``grad_z1``           the gradient of the loss with respect to z1
``all_a0``            the columns of all images, shape (9 C, B, P); ``a0`` is one part, shape (9 C, N)
====================  ==================================================================================================

A *part* is a set of N of the B P columns. Columns are processed one part at a time, so that the elementwise work between two
products finds them in the processor's cache. Only the hidden values that cost a product with W2, ``z2`` and ``w_a1``, are
kept for the gradients; the others are computed again.

References:
    | Residual Flows for Invertible Generative Modeling (Chen et al., 2019), theorem 2 and section 3.2
    | https://arxiv.org/abs/1906.02735
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from indm.flows.activations import Activation
from indm.flows.log_det import neumann_vector

KERNEL = 3
# Elements of a hidden layer that a CPU processes at a time: half a megabyte in float32.
ELEMENTS = 2**17


class Layers(NamedTuple):
    """A branch as matrices, for B images with C channels, and a hidden width K.

    Arguments:
        W1: shape (K, 9 C), from the patches.
        b1: shape (K,).
        W2: shape (K, K).
        b2: shape (K, B), one column per image.
        R: shape (9 C, K), to the patches.
        b3: shape (C,).
    """

    W1: Tensor
    b1: Tensor
    W2: Tensor
    b2: Tensor
    R: Tensor
    b3: Tensor


def branch_and_estimate(
    layers: Layers, activation: Activation, *, leading: bool, x: Tensor, probe: Tensor, coefficients: list[float]
) -> tuple[Tensor, Tensor]:
    r"""Return g(x) and a number whose gradient estimates the gradient of log|det(I + J)| without bias (theorem 2).

    .. math:: e = w^\top J v, \qquad w = v + \sum_{k=1}^{n} (-1)^k c_k (J^\top)^k v

    with w held constant, so that only one product is differentiated for any n. The expected value of e is
    tr((I + J)^-1 J), **not** log|det(I + J)|, so it must never be reported.

    Arguments:
        layers: the branch as matrices.
        activation: f.
        leading: whether the branch starts with f.
        x: images, shape (B, C, S, S).
        probe: v, as in :mod:`indm.flows.log_det`, with the shape of ``x``; it does not receive a gradient.
        coefficients: c_1, ..., c_n, as in :mod:`indm.flows.log_det`.

    Returns:
        g(x) with shape (B, C, S, S), and e with shape (B,).

    Raises:
        RuntimeError: from autograd, if a second derivative is requested.

    References:
        | Residual Flows for Invertible Generative Modeling (Chen et al., 2019), theorem 2 and section 3.2
        | https://arxiv.org/abs/1906.02735
    """
    return _BranchAndEstimate.apply(activation, leading, coefficients, x, probe, *layers)


class _BranchAndEstimate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        """Take the arguments of :func:`branch_and_estimate`, with the layers one by one at the end."""
        activation, leading, coefficients, x, probe, *tensors = arguments
        layers = Layers(*tensors)
        f0_x, s0 = _leading(activation, leading, x)
        all_a0 = patches(f0_x)
        all_y = torch.empty_like(all_a0)
        kept_z2, kept_w_a1 = _buffers(layers, all_a0)
        slopes = []
        for part, z2 in zip(parts(layers, all_a0), kept_z2, strict=True):
            a1, s1 = _evaluate(activation, _first_layer(layers, all_a0, part))
            _shift(torch.mm(layers.W2, a1, out=z2), layers.b2, part)
            a2, s2 = _evaluate(activation, z2)
            _put(all_y, part, layers.R @ a2)
            slopes.append((part, s1, s2))

        def vjp(w: Tensor, buffers: Iterable[Tensor | None] = itertools.repeat(None)) -> Tensor:
            """Return J^T w, and leave w_a1 in the buffers."""
            all_w_y = patches(w)
            all_w_a0 = torch.empty_like(all_w_y)
            for (part, s1, s2), buffer in zip(slopes, buffers, strict=False):
                w_z2 = (layers.R.t() @ _take(all_w_y, part)).mul_(s2)
                w_a1 = torch.mm(layers.W2.t(), w_z2, out=buffer)
                _put(all_w_a0, part, layers.W1.t() @ (w_a1 * s1))
            return _times(fold(all_w_a0, x.shape[-1]), s0)

        w = neumann_vector(vjp, probe, coefficients)
        w_x = vjp(w, kept_w_a1)
        ctx.activation, ctx.leading = activation, leading
        ctx.save_for_backward(x, probe, w, *layers, *kept_z2, *kept_w_a1)
        return fold(all_y, x.shape[-1]) + layers.b3[:, None, None], (w_x * probe).flatten(1).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x and the layers from the gradients of g(x), with its shape, and of e, shape (B,)."""
        grad_g, grad_e = gradients
        activation, leading = ctx.activation, ctx.leading
        x, probe, w, *tensors = ctx.saved_tensors
        layers, tensors = Layers(*tensors[:6]), tensors[6:]
        kept_z2, kept_w_a1 = tensors[: len(tensors) // 2], tensors[len(tensors) // 2 :]
        # The gradient of e multiplies v, so that every product of a factor from v and a factor from w contains it once.
        v = probe * grad_e[:, None, None, None]
        f0_x, s0 = _leading(activation, leading, x)
        all_a0, all_v_a0, all_w_y, all_grad_y = patches(f0_x), patches(_times(v, s0)), patches(w), patches(grad_g)
        all_grad_a0, all_w_a0 = torch.empty_like(all_a0), torch.empty_like(all_a0)
        sums = Layers(*(torch.zeros_like(tensor) for tensor in layers))
        for part, z2, w_a1 in zip(parts(layers, all_a0), kept_z2, kept_w_a1, strict=True):
            a0, v_a0, w_y, grad_y = (_take(columns, part) for columns in (all_a0, all_v_a0, all_w_y, all_grad_y))
            a1, s1 = _evaluate(activation, _first_layer(layers, all_a0, part))
            a2, s2 = _evaluate(activation, z2)
            v_z1 = layers.W1 @ v_a0
            v_a1 = s1 * v_z1
            v_z2 = layers.W2 @ v_a1
            w_a2 = layers.R.t() @ w_y
            w_z1, w_z2, v_a2 = s1 * w_a1, s2 * w_a2, s2 * v_z2
            # The value contributes by the slope, and the slope by the curvature. This overwrites w_a2 and v_z1.
            grad_z2 = (layers.R.t() @ grad_y).mul_(s2).addcmul_(activation.curvature(a2, s2), w_a2.mul_(v_z2))
            grad_z1 = (layers.W2.t() @ grad_z2).mul_(s1).addcmul_(activation.curvature(a1, s1), v_z1.mul_(w_a1))
            for total, pairs in (
                (sums.R, ((grad_y, a2), (w_y, v_a2))),
                (sums.W2, ((grad_z2, a1), (w_z2, v_a1))),
                (sums.W1, ((grad_z1, a0), (w_z1, v_a0))),
            ):
                for left, right in pairs:
                    torch.addmm(total, left, right.t(), out=total)
            sums.b1.add_(grad_z1.sum(1))
            images, pixels = part
            sums.b2[:, images].add_(grad_z2.unflatten(1, (-1, _length(pixels))).sum(2))
            _put(all_grad_a0, part, layers.W1.t() @ grad_z1)
            _put(all_w_a0, part, layers.W1.t() @ w_z1)
        sums.b3.copy_(grad_g.sum((0, 2, 3)))
        grad_x = _times(fold(all_grad_a0, x.shape[-1]), s0)
        if leading:
            grad_x += activation.curvature(f0_x, s0) * v * fold(all_w_a0, x.shape[-1])
        return None, None, None, grad_x, None, *sums


Part = tuple[slice, slice]
"""Images and pixels of the N columns of a part."""


def parts(layers: Layers, columns: Tensor) -> Iterator[Part]:
    """Yield the parts of the columns: pixels of one image, or whole images.

    On a CPU a part has at most ``ELEMENTS`` / K columns, but at least one; on other devices it has all columns.

    Arguments:
        layers: the branch as matrices, with hidden width K.
        columns: shape (9 C, B, P).
    """
    _, batch, area = columns.shape
    count = max(1, ELEMENTS // len(layers.W2)) if columns.device.type == "cpu" else batch * area
    images, pixels = max(1, count // area), min(count, area)
    for image, pixel in itertools.product(range(0, batch, images), range(0, area, pixels)):
        yield slice(image, min(image + images, batch)), slice(pixel, min(pixel + pixels, area))


def _buffers(layers: Layers, columns: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return memory for ``z2`` and ``w_a1``, a tensor with shape (K, N) for each part of the columns.

    It is allocated in one piece. Allocated part by part, it would lie between pieces that are soon freed but are too small
    for later tensors.
    """
    width = len(layers.W2)
    sizes = [width * _length(images) * _length(pixels) for images, pixels in parts(layers, columns)]
    first, second = columns.new_empty(2, sum(sizes))
    return _cut(first, sizes, width), _cut(second, sizes, width)


def _cut(memory: Tensor, sizes: list[int], width: int) -> list[Tensor]:
    return [piece.view(width, -1) for piece in memory.split(sizes)]


def patches(x: Tensor) -> Tensor:
    r"""Return the patch around each pixel, zero outside the image, as a column.

    .. math:: (U x)_{9 c + 3 i + j,\, b,\, S p + q} = x_{b,\, c,\, p + i - 1,\, q + j - 1}, \qquad i, j \in \{0, 1, 2\}

    Arguments:
        x: shape (B, C, S, S).

    Returns:
        U x with shape (9 C, B, P), P = S^2.
    """
    size = x.shape[-1]
    # Strided views, copied once, because F.unfold takes 4 to 7 times as long for images of 14 x 14 pixels or more.
    windows = F.pad(x.transpose(0, 1), (KERNEL // 2,) * 4).unfold(2, size, 1).unfold(3, size, 1)  # (C, B, 3, 3, S, S)
    return windows.movedim(1, 3).flatten(0, 2).flatten(2)


def fold(columns: Tensor, size: int) -> Tensor:
    r"""Add patches up to images: the adjoint of :func:`patches`.

    .. math:: \langle U x, y \rangle = \langle x, U^\top y \rangle

    Arguments:
        columns: y, shape (9 C, B, P), P = S^2.
        size: S.

    Returns:
        :math:`U^\top y` with shape (B, C, S, S).
    """
    stacked = columns.unflatten(0, (-1, KERNEL**2)).transpose(1, 2).flatten(1, 2)
    return F.fold(stacked, (size, size), KERNEL, padding=KERNEL // 2).transpose(0, 1)


def _take(columns: Tensor, part: Part) -> Tensor:
    images, pixels = part
    return columns[:, images, pixels].flatten(1)


def _put(columns: Tensor, part: Part, values: Tensor) -> None:
    images, pixels = part
    columns[:, images, pixels].copy_(values.unflatten(1, (-1, _length(pixels))))


def _length(part: slice) -> int:
    return part.stop - part.start


def _first_layer(layers: Layers, all_a0: Tensor, part: Part) -> Tensor:
    """Return z1."""
    return (layers.W1 @ _take(all_a0, part)).add_(layers.b1[:, None])


def _shift(columns: Tensor, shift: Tensor, part: Part) -> None:
    """Add the shift of its image to each column, in place."""
    images, pixels = part
    columns.unflatten(1, (-1, _length(pixels))).add_(shift[:, images, None])


def _evaluate(activation: Activation, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return f(x) and f'(x)."""
    value = activation.value(x)
    return value, activation.slope(x, value)


def _leading(activation: Activation, leading: bool, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return f_0(x), and its slope s0, None for 1."""
    return _evaluate(activation, x) if leading else (x, None)


def _times(x: Tensor, slope: Tensor | None) -> Tensor:
    return x if slope is None else x * slope
