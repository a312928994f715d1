"""Convolutions with zero padding that keep the image size and are fast when one side has few channels.

On CPUs, libraries convolve in blocks of channels. An image of three channels hardly fills a block, so that a convolution
from or to few channels, such as the last layer of a residual flow, is a matmul here. Derivatives of any order use the same
operations.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

FEW = 3


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""Convolve images, as :func:`torch.nn.functional.conv2d` with zero padding does.

    .. math:: y_{bkpq} = a_k + \sum_{c,i,j} W_{kcij}\, x_{b,\,c,\,p + i - r,\,q + j - r}, \qquad r = \frac{N - 1}2

    Arguments:
        x: shape (B, C, S, S).
        weight: W, shape (K, C, N, N), N odd.
        bias: a, shape (K,); 0 if None.

    Returns:
        y with shape (B, K, S, S).
    """
    outputs, inputs, size, _ = weight.shape
    if size == 1 or min(inputs, outputs) > FEW or x.device.type != "cpu":
        return F.conv2d(x, weight, bias, padding=size // 2)
    y = _from_few(x, weight) if inputs <= outputs else _to_few(x, weight)
    return y if bias is None else y + bias[:, None, None]


def _from_few(x: Tensor, weight: Tensor) -> Tensor:
    """Take the patches of the image, then multiply."""
    size = weight.shape[-1]
    # All images become channels of one image, because torch processes the images of a batch one by one.
    patches = F.unfold(x.flatten(0, 1)[None], size, padding=size // 2)[0].unflatten(0, (len(x), -1))
    return _multiply(weight.flatten(1), patches).unflatten(2, x.shape[2:])


def _to_few(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply, then add the patches up to an image; the kernel is mirrored because a patch lies around its pixel."""
    size = weight.shape[-1]
    rows = weight.flip(2, 3).permute(0, 2, 3, 1).flatten(0, 2)
    patches = _multiply(rows, x.flatten(2)).flatten(0, 1)[None]
    return F.fold(patches, x.shape[2:], size, padding=size // 2)[0].unflatten(0, (len(x), -1))


def _multiply(matrix: Tensor, x: Tensor) -> Tensor:
    """Multiply a matrix (K, N) with x (B, N, P); ``matrix @ x`` would round differently with gradients enabled."""
    return torch.bmm(matrix.expand(len(x), -1, -1), x)


def adjoint(weight: Tensor) -> Tensor:
    r"""Return the kernel of the adjoint convolution, (K, C, N, N) to (C, K, N, N).

    .. math:: \langle y, W * x\rangle = \langle W^\top * y, x\rangle
    """
    # Contiguous, because otherwise each convolution with it would copy it first.
    return weight.flip(2, 3).transpose(0, 1).contiguous()
