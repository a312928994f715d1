r"""A residual branch with the Neumann estimate of its log-determinant, and the gradients of both, written out.

The branch g = [act] conv3 act conv1 act conv3 mixes pixels only where it takes patches of an image (:math:`U`) and where it
adds patches up to one (:math:`U^\top`). Between these, pixels are columns of a matrix, and each goes its own way:

.. math::
    g(x) = U^\top R \, f(W_2 f(W_1 U f(x) + b_1) + b_2) + b_3, \qquad
    J^\top v = D_0 U^\top W_1^\top D_1 W_2^\top D_2 R^\top U v

with f the activation and D its slopes. So the columns are taken a few at a time, that the elementwise work between two
products finds them in the processor's cache. Of the hidden layers only what costs a product with :math:`W_2` is kept for the
gradients, what f sees in the second layer and :math:`W_2^\top D_2 R^\top U w` of the estimate :math:`w^\top J v`; the rest is
computed again.

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
# Of a hidden layer at a time on a CPU: half a megabyte of float32.
ELEMENTS = 2**17


class Layers(NamedTuple):
    """A branch as matrices, for images with C channels and a hidden width K.

    Arguments:
        w1: shape (K, 9 C), of the patches.
        b1: shape (K,).
        w2: shape (K, K).
        b2: shape (K, B), one column an image.
        r3: shape (9 C, K), to the patches.
        b3: shape (C,).
    """

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor
    r3: Tensor
    b3: Tensor


def branch_and_estimate(
    layers: Layers, activation: Activation, *, leading: bool, x: Tensor, probe: Tensor, coefficients: list[float]
) -> tuple[Tensor, Tensor]:
    r"""Return g(x) and a number whose gradient is an unbiased estimate of that of log|det(I + J)| (theorem 2).

    .. math:: w^\top J v, \qquad w = v + \sum_{k=1}^{n} (-1)^k c_k (J^\top)^k v

    with w held constant, so that only one product is differentiated, whatever n is. Its expected value is
    tr((I + J)^-1 J), **not** log|det(I + J)|: never report it.

    Arguments:
        layers: of the branch.
        activation: f.
        leading: whether the branch starts with f.
        x: images, shape (B, C, S, S).
        probe: v, as in :mod:`indm.flows.log_det`, with the shape of ``x``.
        coefficients: c_1, ..., c_n, as there.

    Returns:
        g(x) with shape (B, C, S, S), and the estimate with shape (B,).
    """
    return _BranchAndEstimate.apply(activation, leading, coefficients, x, probe, *layers)


class _BranchAndEstimate(torch.autograd.Function):
    # Layer 1 or 2: z in front of the activation, a behind it, s its slope. From above: t of the vector w, g of the gradient,
    # each in front of the layer's slope; d with the slope. From below: u of the vector v, r with the slope.

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        """Take the arguments of :func:`branch_and_estimate`, the layers one by one at the end."""
        activation, leading, coefficients, x, probe, *tensors = arguments
        layers = Layers(*tensors)
        first, first_slope = _leading(activation, leading, x)
        taken = patches(first)
        returned = torch.empty_like(taken)
        hidden, kept = _places(layers, taken)
        slopes = []
        for part, z2 in zip(parts(layers, taken), hidden, strict=True):
            a1, s1 = _evaluate(activation, _first_layer(layers, taken, part))
            _shift(torch.mm(layers.w2, a1, out=z2), layers.b2, part)
            a2, s2 = _evaluate(activation, z2)
            _put(returned, part, layers.r3 @ a2)
            slopes.append((part, s1, s2))

        def vjp(v: Tensor, places: Iterable[Tensor | None] = itertools.repeat(None)) -> Tensor:
            """Return J^T v, and leave t1 in the places."""
            of_v = patches(v)
            result = torch.empty_like(of_v)
            for (part, s1, s2), place in zip(slopes, places, strict=False):
                d2 = (layers.r3.t() @ _take(of_v, part)).mul_(s2)
                t1 = torch.mm(layers.w2.t(), d2, out=place)
                _put(result, part, layers.w1.t() @ (t1 * s1))
            return _times(add_up(result, x.shape[-1]), first_slope)

        w = neumann_vector(vjp, probe, coefficients)
        product = vjp(w, kept)
        ctx.activation, ctx.leading = activation, leading
        ctx.save_for_backward(x, probe, w, *layers, *hidden, *kept)
        return add_up(returned, x.shape[-1]) + layers.b3[:, None, None], (product * probe).flatten(1).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x and the layers, given those of g(x), with its shape, and of the estimates, with shape (B,)."""
        of_g, of_estimate = gradients
        activation, leading = ctx.activation, ctx.leading
        x, probe, w, *tensors = ctx.saved_tensors
        layers, tensors = Layers(*tensors[:6]), tensors[6:]
        hidden, kept = tensors[: len(tensors) // 2], tensors[len(tensors) // 2 :]
        # The gradient of the estimate on v: every product of something of v and something of w then has it once.
        v = probe * of_estimate[:, None, None, None]
        first, first_slope = _leading(activation, leading, x)
        taken, of_v, of_w, above = patches(first), patches(_times(v, first_slope)), patches(w), patches(of_g)
        below, product = torch.empty_like(taken), torch.empty_like(taken)
        sums = Layers(*(torch.zeros_like(tensor) for tensor in layers))
        for part, z2, t1 in zip(parts(layers, taken), hidden, kept, strict=True):
            x0, v0, w3, g3 = (_take(columns, part) for columns in (taken, of_v, of_w, above))
            a1, s1 = _evaluate(activation, _first_layer(layers, taken, part))
            a2, s2 = _evaluate(activation, z2)
            u1 = layers.w1 @ v0
            r1 = s1 * u1
            u2 = layers.w2 @ r1
            t2 = layers.r3.t() @ w3
            d1, d2, r2 = s1 * t1, s2 * t2, s2 * u2
            # Through the value by the slope, and through the slope by the curvature.
            g2 = (layers.r3.t() @ g3).mul_(s2).addcmul_(activation.curvature(a2, s2), t2.mul_(u2))
            g1 = (layers.w2.t() @ g2).mul_(s1).addcmul_(activation.curvature(a1, s1), u1.mul_(t1))
            for total, pairs in (
                (sums.r3, ((g3, a2), (w3, r2))),
                (sums.w2, ((g2, a1), (d2, r1))),
                (sums.w1, ((g1, x0), (d1, v0))),
            ):
                for left, right in pairs:
                    torch.addmm(total, left, right.t(), out=total)
            sums.b1.add_(g1.sum(1))
            images, pixels = part
            sums.b2[:, images].add_(g2.unflatten(1, (-1, _length(pixels))).sum(2))
            _put(below, part, layers.w1.t() @ g1)
            _put(product, part, layers.w1.t() @ d1)
        sums.b3.copy_(of_g.sum((0, 2, 3)))
        of_x = _times(add_up(below, x.shape[-1]), first_slope)
        if leading:
            of_x += activation.curvature(first, first_slope) * v * add_up(product, x.shape[-1])
        return None, None, None, of_x, None, *sums


Part = tuple[slice, slice]
"""Images and pixels of some columns."""


def parts(layers: Layers, columns: Tensor) -> Iterator[Part]:
    """Yield the parts of columns (9 C, B, P) that are taken at a time: pixels of one image, or whole images."""
    _, batch, area = columns.shape
    count = max(1, ELEMENTS // len(layers.w2)) if columns.device.type == "cpu" else batch * area
    images, pixels = max(1, count // area), min(count, area)
    for image, pixel in itertools.product(range(0, batch, images), range(0, area, pixels)):
        yield slice(image, min(image + images, batch)), slice(pixel, min(pixel + pixels, area))


def _places(layers: Layers, columns: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return the places of two hidden layers, a tensor for each part of the columns.

    They are one piece of memory: taken part by part, it would lie between pieces that are soon free again, too small for
    what comes.
    """
    width = len(layers.w2)
    sizes = [width * _length(images) * _length(pixels) for images, pixels in parts(layers, columns)]
    first, second = columns.new_empty(2, sum(sizes))
    return _cut(first, sizes, width), _cut(second, sizes, width)


def _cut(memory: Tensor, sizes: list[int], width: int) -> list[Tensor]:
    return [piece.view(width, -1) for piece in memory.split(sizes)]


def patches(x: Tensor) -> Tensor:
    """Return the patch around each pixel of images (B, C, S, S), zero outside, as a column of (9 C, B, S^2)."""
    taken = F.unfold(x.transpose(0, 1), KERNEL, padding=KERNEL // 2)
    return taken.unflatten(1, (len(x), -1)).transpose(1, 2).flatten(0, 1)


def add_up(columns: Tensor, size: int) -> Tensor:
    """Add patches (9 C, B, S^2) up to images (B, C, S, S): the adjoint of :func:`patches`."""
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


def _first_layer(layers: Layers, taken: Tensor, part: Part) -> Tensor:
    return (layers.w1 @ _take(taken, part)).add_(layers.b1[:, None])


def _shift(columns: Tensor, shift: Tensor, part: Part) -> None:
    """Add to each column, in place, what its image adds."""
    images, pixels = part
    columns.unflatten(1, (-1, _length(pixels))).add_(shift[:, images, None])


def _evaluate(activation: Activation, x: Tensor) -> tuple[Tensor, Tensor]:
    value = activation.value(x)
    return value, activation.slope(x, value)


def _leading(activation: Activation, leading: bool, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return what the patches are taken of, and its slope."""
    return _evaluate(activation, x) if leading else (x, None)


def _times(x: Tensor, slope: Tensor | None) -> Tensor:
    return x if slope is None else x * slope
