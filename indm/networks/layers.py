r"""The layers of the score U-Net: noise-level features, FIR resampling, residual block, self-attention.

All follow the "++" networks of "Score-Based Generative Modeling through Stochastic Differential Equations"
(Song et al., 2021, https://arxiv.org/abs/2011.13456, appendix H): every sum with a skip connection is divided by
:math:`\sqrt{2}`, and the last map of every residual branch starts (almost) at zero.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Direction = Literal["up", "down", "none"]
SQRT_HALF = math.sqrt(0.5)
ALMOST_ZERO = 1e-10  # variance scale of the maps that close a residual branch (``init_scale = 0`` of the released code)
NIN_SCALE = 0.1  # variance scale of the query, key and value maps in the released code


def init_uniform_(weight: Tensor, scale: float = 1.0) -> Tensor:
    r"""Fill a weight in place from the uniform distribution with scaled variance, and return it.

    .. math:: w \sim U(-a, a), \quad a^2 = 3 \, \text{scale} / \tfrac12 (\text{fan}_{in} + \text{fan}_{out})

    Source: "Understanding the difficulty of training deep feedforward neural networks" (Glorot & Bengio, 2010,
    https://proceedings.mlr.press/v9/glorot10a.html, eq. 16), which is the case scale = 1.

    Arguments:
        weight: a weight of shape (C', C, ...), for which fan_in and fan_out are C and C' times the size of the kernel.
        scale: factor of the variance.
    """
    return nn.init.xavier_uniform_(weight, gain=math.sqrt(scale))


def conv(channels_in: int, channels_out: int, kernel: int, scale: float = 1.0) -> nn.Conv2d:
    """Build a convolution that keeps the image size, its weight scaled by :func:`init_uniform_`, its bias zero."""
    layer = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2)
    init_uniform_(layer.weight, scale)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def linear(features_in: int, features_out: int, scale: float = 1.0) -> nn.Linear:
    """Build a linear map, its weight scaled by :func:`init_uniform_`, its bias zero."""
    layer = nn.Linear(features_in, features_out)
    init_uniform_(layer.weight, scale)
    nn.init.zeros_(layer.bias)
    return layer


def group_norm(channels: int) -> nn.GroupNorm:
    """Build the group normalisation of these networks: at most 32 groups, of at least 4 channels each.

    The released code takes min(C // 4, 32) groups; if that does not divide C, the next smaller divisor is taken.
    Source: "Group Normalization" (Wu & He, 2018, https://arxiv.org/abs/1803.08494).
    """
    largest = max(1, min(channels // 4, 32))
    groups = next(g for g in range(largest, 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels, eps=1e-6)


# ---- Noise-level features ---------------------------------------------------------------------------------------


def sin_cos(angles: Tensor) -> Tensor:
    """Concatenate sines and cosines: angles (B, K) to features (B, 2K)."""
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class PositionalFeatures(nn.Module):
    r"""Sinusoidal features of the time label c = 999 t, the conditioning of DDPM++.

    .. math:: (\sin \omega_k c, \cos \omega_k c), \quad \omega_k = 10000^{-k / (K - 1)},
        \quad K = \lfloor C/2 \rfloor

    The buffer ``frequencies``, :math:`\omega_k`, has shape (K,).
    Source: "Denoising Diffusion Probabilistic Models" (Ho et al., 2020, https://arxiv.org/abs/2006.11239, appendix B).
    """

    frequencies: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.width = 2 * half
        # In float32 for every type of network, because at angles near 1000 rounded frequencies make a difference.
        frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000) / (half - 1)))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, condition: Tensor) -> Tensor:
        """Map the condition c, shape (B,), to features, shape (B, 2K)."""
        return sin_cos(condition[:, None] * self.frequencies)


class FourierFeatures(nn.Module):
    r"""Random Fourier features of the log noise level log c, c = sigma, the conditioning of NCSN++.

    .. math:: (\sin 2 \pi w_k \log c, \cos 2 \pi w_k \log c), \quad w_k \sim N(0, \text{scale}^2), \quad K = C

    The buffer ``frequencies``, :math:`w_k`, has shape (K,); it is drawn once and never trained.
    Source: "Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains" (Tancik et al.,
    2020, https://arxiv.org/abs/2006.10739, eq. 5).
    """

    frequencies: Tensor

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.width = 2 * channels
        self.register_buffer("frequencies", torch.randn(channels) * scale)

    def forward(self, condition: Tensor) -> Tensor:
        """Map the condition c, shape (B,), to features, shape (B, 2K)."""
        return sin_cos(condition.log()[:, None] * self.frequencies * (2 * math.pi))


class LogSNRFeatures(nn.Module):
    r"""Sinusoidal features of the log signal-to-noise ratio c = log(alpha^2 / sigma^2), the same for every SDE.

    .. math:: (\sin \omega_k c, \cos \omega_k c), \quad \omega_k = \tfrac{2 \pi}{64} 32^{k / (K - 1)},
        \quad K = \lfloor C/2 \rfloor

    The longest period, 64, is one-to-one on [-16, 16], which contains the range of VP and VE (about -10 to 14); the
    shortest, 2, resolves all noise levels that a denoiser can distinguish. The buffer ``frequencies``, :math:`\omega_k`, has
    shape (K,).
    Source of the conditioning on the ratio: "Variational Diffusion Models" (Kingma et al., 2021,
    https://arxiv.org/abs/2107.00630, section 3.1).
    """

    frequencies: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.width = 2 * half
        frequencies = 2 * math.pi / 64 * 32 ** torch.linspace(0, 1, half)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, condition: Tensor) -> Tensor:
        """Map the condition c, shape (B,), to features, shape (B, 2K)."""
        return sin_cos(condition[:, None] * self.frequencies)


# ---- FIR resampling: (1, 3, 3, 1) filters in place of nearest neighbours and 2 x 2 means ------------------------


def fir_kernel() -> Tensor:
    """Return the low-pass kernel (1, 3, 3, 1) x (1, 3, 3, 1) / 64, shape (1, 1, 4, 4), which sums to 1.

    Source: "Analyzing and Improving the Image Quality of StyleGAN" (Karras et al., 2020,
    https://arxiv.org/abs/1912.04958, appendix B), after "Making Convolutional Networks Shift-Invariant Again"
    (Zhang, 2019, https://arxiv.org/abs/1904.11486).
    """
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    return torch.outer(taps, taps)[None, None]


class FIRDownsample(nn.Module):
    r"""Low-pass filter, then keep every ``stride``-th pixel; by default it halves height and width.

    .. math:: y_i = \sum_k f_k \, x_{2i + k - 1}, \quad f = (1, 3, 3, 1)/8 \text{ along each axis, zeros outside}

    The buffer ``kernel`` is :func:`fir_kernel`, with shape (1, 1, 4, 4).
    """

    kernel: Tensor

    def __init__(self, stride: int = 2, padding: int = 1) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        self.register_buffer("kernel", fir_kernel(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        r"""Return (B, C, H', W') from (B, C, H, W), for padding p and stride s.

        .. math:: H' = \lfloor (H + 2p - 4)/s \rfloor + 1, \qquad W' = \lfloor (W + 2p - 4)/s \rfloor + 1
        """
        channels = x.shape[1]
        kernel = self.kernel.expand(channels, 1, 4, 4)
        return F.conv2d(x, kernel, stride=self.stride, padding=self.padding, groups=channels)


class FIRUpsample(nn.Module):
    r"""Put zeros between the pixels, then low-pass filter with gain 4, which doubles height and width.

    .. math:: y_{2i} = (x_{i-1} + 3 x_i)/4, \quad y_{2i+1} = (3 x_i + x_{i+1})/4 \quad \text{along each axis}

    The buffer ``kernel`` is 4 times :func:`fir_kernel`, with shape (1, 1, 4, 4).
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", 4 * fir_kernel(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, 2H, 2W) from (B, C, H, W)."""
        channels = x.shape[1]
        return F.conv_transpose2d(x, self.kernel.expand(channels, 1, 4, 4), stride=2, padding=1, groups=channels)


class FIRDownConv(nn.Module):
    """Low-pass filter, then a 3 x 3 convolution with stride 2, padded once, which halves even heights and widths.

    It computes the image pyramid for the progressive residual input of NCSN++.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.filter = FIRDownsample(stride=1, padding=2)
        self.conv = conv(channels_in, channels_out, 3)
        self.conv.stride, self.conv.padding = (2, 2), (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C', H/2, W/2) from (B, C, H, W)."""
        return self.conv(self.filter(x))


def resampler(direction: Direction, fir: bool) -> nn.Module:
    """Build the layer that halves ("down"), doubles ("up") or keeps ("none") the image size, with or without FIR filters."""
    if direction == "down":
        return FIRDownsample() if fir else nn.AvgPool2d(2)
    if direction == "up":
        return FIRUpsample() if fir else nn.Upsample(scale_factor=2)
    return nn.Identity()


# ---- Blocks -----------------------------------------------------------------------------------------------------


class ResNetBlock(nn.Module):
    r"""Residual block that resamples inside itself and takes the noise level as a shift of its hidden channels.

    .. math:: y = \bigl( S R x + C_2 \, d \, a \, n ( C_1 R \, a \, n(x) + W e ) \bigr) / \sqrt 2

    with C 3 x 3 convolutions, n group normalisation, a swish, d dropout, R the resampling, S a 1 x 1 convolution (the
    identity if the shapes agree).
    Source: "Large Scale GAN Training for High Fidelity Natural Image Synthesis" (Brock et al., 2019,
    https://arxiv.org/abs/1809.11096, appendix B), as changed in arXiv:2011.13456, appendix H.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        width: int,
        dropout: float,
        direction: Direction = "none",
        fir: bool = False,
    ) -> None:
        super().__init__()
        same = channels_in == channels_out and direction == "none"
        self.direction = direction
        self.norm_in = group_norm(channels_in)
        self.resample = resampler(direction, fir)
        self.conv_in = conv(channels_in, channels_out, 3)
        self.shift = linear(width, channels_out)
        self.norm_out = group_norm(channels_out)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = conv(channels_out, channels_out, 3, ALMOST_ZERO)
        self.shortcut = nn.Identity() if same else conv(channels_in, channels_out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Return y, (B, C', H', W'), from x, (B, C, H, W), and the noise-level embedding e, (B, E)."""
        h = self.conv_in(self.resample(F.silu(self.norm_in(x))))
        h = h + self.shift(embedding)[:, :, None, None]
        h = self.conv_out(self.dropout(F.silu(self.norm_out(h))))
        return (self.shortcut(self.resample(x)) + h) * SQRT_HALF


class AttentionBlock(nn.Module):
    r"""Self-attention with one head over the pixels of its input.

    .. math:: y = \bigl( x + W_o \, V \, \text{softmax}(K^T Q / \sqrt C) \bigr) / \sqrt 2,
        \quad (Q, K, V) = W_{qkv} \, n(x)

    with n group normalisation. On a CPU the fast kernel has only first derivatives in reverse
    mode; other derivatives need the context ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``.
    Source: "Attention Is All You Need" (Vaswani et al., 2017, https://arxiv.org/abs/1706.03762, eq. 1).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv = linear(channels, 3 * channels)
        self.out = linear(channels, channels, ALMOST_ZERO)
        for weight in self.qkv.weight.chunk(3):  # three square maps, each with its own fans
            init_uniform_(weight.detach(), NIN_SCALE)

    def forward(self, x: Tensor) -> Tensor:
        """Return y, (B, C, H, W), from x, (B, C, H, W)."""
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens)[:, None].chunk(3, dim=-1)
        h = self.out(F.scaled_dot_product_attention(q, k, v)[:, 0])
        return (x + h.transpose(1, 2).reshape(x.shape)) * SQRT_HALF


class UNetBlock(nn.Module):
    """A residual block, then attention if the level has it.

    ``pyramid`` is the convolution that brings the input image to this block, if the U-Net has progressive input.
    """

    def __init__(self, block: ResNetBlock, attention: bool = False, pyramid: FIRDownConv | None = None) -> None:
        super().__init__()
        self.block = block
        self.attention = AttentionBlock(block.conv_out.out_channels) if attention else None
        self.pyramid = pyramid

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Return (B, C', H', W') from x, (B, C, H, W), and the noise-level embedding, (B, E)."""
        h = self.block(x, embedding)
        return h if self.attention is None else self.attention(h)
