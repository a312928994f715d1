"""Convolutions with zero padding that keep the image size and are fast when one side has few channels.

On CPUs, libraries convolve in blocks of channels that an image of three channels hardly fills: the 3 x 3 convolution in a
residual flow's last layer, from 512 to 3 channels, takes 4 times as long as the matmul here, and its derivative 12 times as
long (32 x 32 pixels, one AVX-512 core). Derivatives of any order use the same operations.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

FEW = 3


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve images.

    Arguments:
        x: shape (B, C, S, S).
        weight: shape (K, C, N, N), N odd.
        bias: shape (K,).

    Returns:
        Shape (B, K, S, S).
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
    r"""Return the kernel (C, K, N, N) of the adjoint: :math:`\langle y, W * x\rangle = \langle W^\top * y, x\rangle`."""
    # Contiguous, because otherwise each convolution with it would copy it first.
    return weight.flip(2, 3).transpose(0, 1).contiguous()
