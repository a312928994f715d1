r"""A residual branch with the Neumann estimate of its log-determinant, and the gradients of both, written out.

``kernels.md`` beside this module derives them, in its symbols. Between taking the patches of an image (:math:`U`) and adding
patches up to an image (:math:`U^\top`), pixels are columns of a matrix, and each passes separately through six places:

.. math::
    a_0 = U f_0(x), \quad z_1 = W_1 a_0 + b_1, \quad a_1 = F(z_1), \quad z_2 = W_2 a_1 + b_2, \quad a_2 = F(z_2), \quad
    y = R a_2, \qquad g(x) = U^\top y + b_3

with F the activation without its factor c, which the layers contain (:class:`Layers`); f_0 is the activation
f(x) = F(c x) / c if the branch starts with it and the identity otherwise. The estimate is :math:`e = w^\top J v` with
J = dg/dx, for the images that have a probe v. The backward pass receives the gradients of a loss with respect to g(x)
and e. A variable is named after its place:

====================  ==================================================================================================
``a0``                the columns at the place
``s1``                F'(z1), the slope; ``s0`` is f_0'(x) as an image, or None for 1
``v_z1``              v carried up to the place: dz1/dx v
``w_z1``              w carried down to the place: (dg/dz1)^T w; ``w_f0`` is the same at f_0(x), and ``w_x`` is J^T w
``grad_z1``           the gradient of the loss with respect to z1
``all_a0``            the columns of all images, shape (9 C, B P); ``a0`` is one part, shape (9 C, N)
====================  ==================================================================================================

A *part* is a set of N of the B P columns. Columns are processed one part at a time, so that the elementwise work between two
products finds them in the processor's cache. Hidden values are kept for the gradients if they are few (``KEPT``). Otherwise
only the values that cost a product with W2, ``z2`` and ``w_a1``, are kept, and the others are computed again.

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
# The most elements of a block's hidden layer, over all images, at which its values and slopes are kept: 32 megabytes each.
KEPT = 2**23


class Layers(NamedTuple):
    """A branch as matrices, for B images with C channels, and a hidden width K.

    They contain the factor c of the activation: W1, b1 and b2 are multiplied by it, and R is divided by it.

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


class Hidden(NamedTuple):
    """The hidden values of a part, and the slopes there, each with shape (K, N)."""

    a1: Tensor
    s1: Tensor
    a2: Tensor
    s2: Tensor


class Part(NamedTuple):
    """The columns of a part among all B P columns: pixels of one image, or whole images."""

    columns: slice
    images: slice


def branch_and_estimate(
    layers: Layers,
    activation: Activation,
    *,
    leading: bool,
    x: Tensor,
    probe: Tensor,
    coefficients: list[float],
    kept_elements: int = KEPT,
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
        probe: v, as in :mod:`indm.flows.log_det`, for the first b of the images, shape (b, C, S, S); it does not receive a
            gradient.
        coefficients: c_1, ..., c_n, as in :mod:`indm.flows.log_det`.
        kept_elements: the most elements K B S^2 of a hidden layer at which all hidden values are kept for the gradients.

    Returns:
        g(x) with shape (B, C, S, S), and e with shape (b,), of which only the gradient, in nats, is meaningful.

    Raises:
        RuntimeError: from autograd, if a second derivative is requested.

    References:
        | Residual Flows for Invertible Generative Modeling (Chen et al., 2019), theorem 2 and section 3.2
        | https://arxiv.org/abs/1906.02735
    """
    return _BranchAndEstimate.apply(activation, leading, coefficients, kept_elements, x, probe, *layers)


class _BranchAndEstimate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        """Take the arguments of :func:`branch_and_estimate`, with the layers one by one at the end."""
        activation, leading, coefficients, kept_elements, x, probe, *tensors = arguments
        layers, size = Layers(*tensors), x.shape[-1]
        f0_x, s0 = _leading(activation, leading, x)
        s0_probed = None if s0 is None else s0[: len(probe)]
        all_a0 = patches(f0_x)
        all_y = torch.empty_like(all_a0)
        probed, others = parts(layers, x, len(probe))
        keeps = len(layers.W2) * x[:, 0].numel() <= kept_elements
        memory = _memory(layers, [*probed, *others], x, len(Hidden._fields) if keeps else 1)
        slopes = []
        for part, kept in zip([*probed, *others], memory, strict=True):
            hidden = _hidden(layers, activation, all_a0[:, part.columns], part, kept)
            torch.mm(layers.R, hidden.a2, out=all_y[:, part.columns])
            slopes.append((hidden.s1, hidden.s2))

        def vjp(w: Tensor, buffers: Iterable[Tensor | None] = itertools.repeat(None)) -> Tensor:
            """Return w_f0, and leave w_a1 in the buffers."""
            all_w_y = patches(w)
            all_w_a0 = torch.empty_like(all_w_y)
            for part, (s1, s2), buffer in zip(probed, slopes, buffers, strict=False):
                w_z2 = torch.mm(layers.R.t(), all_w_y[:, part.columns]).mul_(s2)
                w_a1 = torch.mm(layers.W2.t(), w_z2, out=buffer)
                w_z1 = torch.mul(w_a1, s1, out=w_z2)
                torch.mm(layers.W1.t(), w_z1, out=all_w_a0[:, part.columns])
            return fold(all_w_a0, size)

        w = neumann_vector(lambda w: _times(vjp(w), s0_probed), probe, coefficients)
        kept_w_a1 = [tensor for (tensor,) in _memory(layers, probed, x, 1)]
        w_f0 = vjp(w, kept_w_a1)
        ctx.activation, ctx.leading = activation, leading
        tensors = [*kept_w_a1, *itertools.chain(*memory)]
        ctx.save_for_backward(x, probe, w, w_f0 if keeps else None, *layers, *tensors)
        return fold(all_y, size) + layers.b3[:, None, None], (_times(w_f0, s0_probed) * probe).flatten(1).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x and the layers from the gradients of g(x), with its shape, and of e, shape (b,)."""
        grad_g, grad_e = gradients
        activation, leading = ctx.activation, ctx.leading
        x, probe, w, w_f0, *tensors = ctx.saved_tensors
        layers, tensors, size, count = Layers(*tensors[:6]), tensors[6:], x.shape[-1], len(probe)
        probed, others = parts(layers, x, count)
        kept_w_a1, memory = tensors[: len(probed)], _in_groups(tensors[len(probed) :], len(probed) + len(others))
        # The gradient of e multiplies v, so that every product of a factor from v and a factor from w contains it once.
        v = probe * grad_e[:, None, None, None]
        f0_x, s0 = _leading(activation, leading, x)
        all_a0, all_grad_y = patches(f0_x), patches(grad_g)
        all_v_a0, all_w_y = patches(v if s0 is None else v * s0[:count]), patches(w)
        all_grad_a0, all_w_a0 = torch.empty_like(all_a0), torch.empty_like(all_w_y)
        sums = Layers(*(torch.zeros_like(tensor) for tensor in layers))
        for part, kept, w_a1 in itertools.zip_longest([*probed, *others], memory, kept_w_a1):
            a0, grad_y = all_a0[:, part.columns], all_grad_y[:, part.columns]
            hidden = _again(layers, activation, a0, kept)
            grad_z2 = torch.mm(layers.R.t(), grad_y).mul_(hidden.s2)
            grad_s1 = None
            if w_a1 is not None:
                w_y, v_a0 = all_w_y[:, part.columns], all_v_a0[:, part.columns]
                grad_s1, grad_s2 = _of_estimate(layers, hidden, w_y, w_a1, v_a0, sums)
                # The value contributes by the slope, and the slope by the curvature.
                activation.add_curvature(grad_z2, hidden.a2, hidden.s2, grad_s2)
            grad_z1 = torch.mm(layers.W2.t(), grad_z2).mul_(hidden.s1)
            if grad_s1 is not None:
                activation.add_curvature(grad_z1, hidden.a1, hidden.s1, grad_s1)
            _accumulate(sums.R, grad_y, hidden.a2.t())
            _accumulate(sums.W2, grad_z2, hidden.a1.t())
            _accumulate(sums.W1, grad_z1, a0.t())
            sums.b1.add_(grad_z1.sum(1))
            sums.b2[:, part.images].add_(_by_image(grad_z2, part).sum(2))
            torch.mm(layers.W1.t(), grad_z1, out=all_grad_a0[:, part.columns])
            if w_f0 is None and w_a1 is not None:
                torch.mm(layers.W1.t(), hidden.s1 * w_a1, out=all_w_a0[:, part.columns])
        sums.b3.copy_(grad_g.sum((0, 2, 3)))
        grad_x = _times(fold(all_grad_a0, size), s0)
        if s0 is not None:
            w_f0 = fold(all_w_a0, size) if w_f0 is None else w_f0
            grad_x[:count] += activation.curvature(f0_x[:count], s0[:count]) * v * w_f0
        return None, None, None, None, grad_x, None, *sums


def _of_estimate(
    layers: Layers, hidden: Hidden, w_y: Tensor, w_a1: Tensor, v_a0: Tensor, sums: Layers
) -> tuple[Tensor, Tensor]:
    """Add the estimate's gradients of the matrices to the sums, and return its gradients of both slopes, shape (K, N)."""
    v_z1 = layers.W1 @ v_a0
    v_a1 = hidden.s1 * v_z1
    v_z2 = layers.W2 @ v_a1
    w_a2 = layers.R.t() @ w_y
    _accumulate(sums.R, w_y, (hidden.s2 * v_z2).t())
    _accumulate(sums.W2, hidden.s2 * w_a2, v_a1.t())
    _accumulate(sums.W1, hidden.s1 * w_a1, v_a0.t())
    return v_z1.mul_(w_a1), v_z2.mul_(w_a2)


def _accumulate(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add a product to a total, by an operation that is counted as ``addmm_`` is not (:mod:`indm.bench.models.begin`)."""
    torch.addmm(total, left, right, out=total)


def parts(layers: Layers, x: Tensor, probed: int) -> tuple[list[Part], list[Part]]:
    """Return the parts of the first ``probed`` images, and the parts of the others.

    On a CPU a part has at most ``ELEMENTS`` / K columns, but at least one; on other devices it has all columns.

    Arguments:
        layers: the branch as matrices, with hidden width K.
        x: images, shape (B, C, S, S).
        probed: number of images with a probe.
    """
    area = x[0, 0].numel()
    most = max(1, ELEMENTS // len(layers.W2)) if x.device.type == "cpu" else x[:, 0].numel()
    return list(_parts(0, probed, area, most)), list(_parts(probed, len(x), area, most))


def _parts(begin: int, end: int, area: int, most: int) -> Iterator[Part]:
    """Yield parts with at most ``most`` columns of the images from ``begin`` to ``end``, which have ``area`` pixels each."""
    images, pixels = max(1, most // area), min(most, area)
    for image, pixel in itertools.product(range(begin, end, images), range(0, area, pixels)):
        last = min(image + images, end)
        columns = slice(image * area + pixel, (last - 1) * area + min(pixel + pixels, area))
        yield Part(columns, slice(image, last))


def _memory(layers: Layers, parts: list[Part], x: Tensor, count: int) -> list[list[Tensor]]:
    """Return ``count`` tensors with shape (K, N) for each part of the columns.

    They are allocated in one piece. Allocated part by part, they would lie between pieces that are soon freed but are too small
    for later tensors.
    """
    width = len(layers.W2)
    sizes = [width * _length(part.columns) for part in parts]
    pieces = x.new_empty(count * sum(sizes)).split([size for size in sizes for _ in range(count)])
    return _in_groups([piece.view(width, -1) for piece in pieces], len(parts))


def _in_groups(tensors: list[Tensor], groups: int) -> list[list[Tensor]]:
    """Split a list into ``groups`` lists of the same length."""
    count = len(tensors) // max(groups, 1)
    return [tensors[number * count : (number + 1) * count] for number in range(groups)]


def _hidden(layers: Layers, activation: Activation, a0: Tensor, part: Part, kept: list[Tensor]) -> Hidden:
    """Compute the hidden values of a part into the memory for them, or else z2 into its memory and the others beside it."""
    hidden = _space(kept)
    _first_layer(layers, activation, a0, hidden)
    z2 = hidden.a2 if len(kept) > 1 else kept[0]
    torch.mm(layers.W2, hidden.a1, out=z2)
    _by_image(z2, part).add_(layers.b2[:, part.images, None])
    activation.evaluate(z2, hidden.a2, hidden.s2)
    return hidden


def _again(layers: Layers, activation: Activation, a0: Tensor, kept: list[Tensor]) -> Hidden:
    """Return the hidden values of a part, which were kept, or else follow from z2 and a0."""
    hidden = _space(kept)
    if len(kept) == 1:
        _first_layer(layers, activation, a0, hidden)
        activation.evaluate(kept[0], hidden.a2, hidden.s2)
    return hidden


def _space(kept: list[Tensor]) -> Hidden:
    """Return the memory for the hidden values, which is new if only z2 is kept."""
    # Not in one piece, because slopes outlive the values.
    return Hidden(*kept) if len(kept) > 1 else Hidden(*(torch.empty_like(kept[0]) for _ in Hidden._fields))


def _first_layer(layers: Layers, activation: Activation, a0: Tensor, hidden: Hidden) -> None:
    """Write a1 and s1."""
    torch.mm(layers.W1, a0, out=hidden.a1).add_(layers.b1[:, None])
    activation.evaluate(hidden.a1, hidden.a1, hidden.s1)


def patches(x: Tensor) -> Tensor:
    r"""Return the patch around each pixel, zero outside the image, as a column.

    .. math:: (U x)_{9 c + 3 i + j,\, P b + S p + q} = x_{b,\, c,\, p + i - 1,\, q + j - 1}, \qquad i, j \in \{0, 1, 2\}

    Arguments:
        x: shape (B, C, S, S).

    Returns:
        U x with shape (9 C, B P), P = S^2.
    """
    size = x.shape[-1]
    # Strided views, copied once, because F.unfold is slower for all but the smallest images.
    windows = F.pad(x.transpose(0, 1), (KERNEL // 2,) * 4).unfold(2, size, 1).unfold(3, size, 1)  # (C, B, 3, 3, S, S)
    return windows.movedim(1, 3).flatten(0, 2).flatten(1)


def fold(columns: Tensor, size: int) -> Tensor:
    r"""Add patches up to images: the adjoint of :func:`patches`.

    .. math:: \langle U x, y \rangle = \langle x, U^\top y \rangle

    Arguments:
        columns: y, shape (9 C, B P), P = S^2.
        size: S.

    Returns:
        :math:`U^\top y` with shape (B, C, S, S).
    """
    # Rows are shifted and added up, then columns, because F.fold is slower.
    channels, batch = len(columns) // KERNEL**2, columns.shape[1] // size**2
    shifted = columns.view(channels, KERNEL, KERNEL, batch, size, size)
    rows = shifted[:, :, 1].clone()
    rows[..., 1:] += shifted[:, :, 2, ..., :-1]
    rows[..., :-1] += shifted[:, :, 0, ..., 1:]
    images = rows[:, 1].clone()
    images[..., 1:, :] += rows[:, 2, ..., :-1, :]
    images[..., :-1, :] += rows[:, 0, ..., 1:, :]
    return images.transpose(0, 1)


def _by_image(columns: Tensor, part: Part) -> Tensor:
    """View the columns of a part by image, (K, N) as (K, images, pixels)."""
    return columns.unflatten(1, (_length(part.images), -1))


def _length(part: slice) -> int:
    return part.stop - part.start


def _leading(activation: Activation, leading: bool, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return f_0(x), and its slope s0, None for 1."""
    if not leading:
        return x, None
    value = activation.value(x)
    return value, activation.slope(x, value)


def _times(x: Tensor, slope: Tensor | None) -> Tensor:
    return x if slope is None else x * slope
