"""The encoder of one latent vector per image: a normal distribution q(h|x) = N(mu(x), diag(exp(v(x)))).

The layers follow the released code of INDM (github.com/byeonghu-na/INDM, ``flow_models/wolf``), after

References:
    | Decoupling Global and Local Representations via Invertible Generative Flows (Ma et al., 2021), section 3
    | https://arxiv.org/abs/2004.11820
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class WeightNormLinear(nn.Linear):
    r"""A linear map whose rows have their lengths as separate parameters.

    .. math:: y_k = g_k v_k^T x / \|v_k\| + b_k

    The rows v are ``weight``, with shape (K, C); their lengths g are ``gain``, with shape (K, 1).

    References:
        | Weight Normalization (Salimans & Kingma, 2016), eq. 2 and section 3
        | https://arxiv.org/abs/1602.07868
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out)
        nn.init.normal_(self.weight, std=0.05)
        nn.init.zeros_(self.bias)
        self.gain = nn.Parameter(self.weight.detach().norm(dim=1, keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        """Return y, (B, C) to (B, K)."""
        return F.linear(x, self.gain * F.normalize(self.weight, dim=1), self.bias)


class EncoderBlock(nn.Module):
    """ELU(norm conv3 ELU norm conv3 x + shortcut x), with batch norms; the shortcut is a conv1 if shapes change.

    A stride of 2 halves the resolution.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Sequential()
        if stride > 1 or channels_in != channels_out:
            self.shortcut.append(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output for images x with shape (B, channels_in, S, S).

        Returns:
            Shape (B, channels_out, ceil(S / stride), ceil(S / stride)).
        """
        y = self.norm2(self.conv2(F.elu(self.norm1(self.conv1(x)))))
        return F.elu(y + self.shortcut(x))


class GaussianEncoder(nn.Module):
    """Two blocks per width, the second of which halves the resolution, then ELU(conv1) and a linear map to mu and v.

    In training mode, the batch norms make the images of a batch depend on each other; in eval mode, they use running
    statistics.

    Arguments:
        channels_in: C, channels of an image.
        image_size: S, its height and width.
        widths: channels of the blocks.
        channels_out: channels in front of the linear map.
        latent_dim: F, dimension of h.
    """

    def __init__(
        self, channels_in: int, image_size: int, *, widths: Sequence[int], channels_out: int, latent_dim: int
    ) -> None:
        super().__init__()
        blocks, size = [], image_size
        for width in widths:
            blocks += [EncoderBlock(channels_in, width, 1), EncoderBlock(width, width, 2)]
            channels_in, size = width, -(-size // 2)
        self.blocks = nn.Sequential(*blocks)
        self.top = nn.Conv2d(channels_in, channels_out, 1)
        self.linear = WeightNormLinear(channels_out * size**2, 2 * latent_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mu and v, each with shape (B, F), for images with shape (B, C, S, S)."""
        mean, log_variance = self.linear(F.elu(self.top(self.blocks(x))).flatten(1)).chunk(2, dim=1)
        return mean, log_variance
