"""The score U-Net: DDPM++ (for VP) and NCSN++ (for VE) as one class, of any size."""

from collections.abc import Callable, Sequence
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from indm.errors import ParamsError
from indm.networks.layers import (
    ALMOST_ZERO,
    SQRT_HALF,
    Direction,
    FIRDownConv,
    FourierFeatures,
    LogSNRFeatures,
    PositionalFeatures,
    ResNetBlock,
    UNetBlock,
    conv,
    group_norm,
    linear,
)

Embedding = Literal["positional", "fourier", "log_snr"]
ProgressiveInput = Literal["none", "residual"]


class ScoreUNet(nn.Module):
    """U-Net of a noisy image and its noise level, whose output :class:`~indm.diffusion.noise.NoiseModel` turns into noise.

    Every resolution has ``blocks`` residual blocks on the way down and ``blocks + 1`` on the way up. Two more blocks, with
    attention between them, are in the middle, and a further block resamples between two resolutions.

    Arguments:
        channels_in: channels C of the image.
        image_size: S, height and width of the image.
        channels: hidden channels at the full resolution, at least 4; the embedding is 4 times as wide.
        multipliers: factor of ``channels`` at each resolution; each resolution is half the previous one.
        blocks: residual blocks per resolution.
        attention_resolutions: image sizes at which attention follows the residual blocks.
        dropout: probability of dropping a hidden activation in training.
        embedding: the condition and its features: 999 t ("positional"), sigma ("fourier") or log SNR ("log_snr").
        fourier_scale: standard deviation of the random frequencies of "fourier".
        fir: resample with (1, 3, 3, 1) filters instead of nearest neighbours and 2 x 2 means.
        progressive_input: "residual" adds a filtered pyramid of the image to the way down.
        scale_by_sigma: divide the output by the condition, so that it is a score; only for "fourier".
        centered: whether the image is centred on 0; otherwise it must lie in [0, 1] and is mapped to 2x - 1.

    Raises:
        ParamsError: if the arguments do not fit each other.

    Source: "Score-Based Generative Modeling through Stochastic Differential Equations" (Song et al., 2021,
    https://arxiv.org/abs/2011.13456, appendix H); the paper's runs use channels 128, multipliers (1, 2, 2, 2), blocks
    4, attention at 16.
    """

    def __init__(
        self,
        channels_in: int,
        image_size: int,
        channels: int,
        multipliers: Sequence[int],
        blocks: int,
        attention_resolutions: Sequence[int],
        dropout: float = 0.0,
        embedding: Embedding = "log_snr",
        fourier_scale: float = 16.0,
        fir: bool = False,
        progressive_input: ProgressiveInput = "none",
        scale_by_sigma: bool = False,
        centered: bool = True,
    ) -> None:
        super().__init__()
        sizes = [image_size >> level for level in range(len(multipliers))]
        problems = _problems(channels, image_size, sizes, attention_resolutions, embedding, progressive_input)
        if scale_by_sigma and embedding != "fourier":
            problems.append(f"scale_by_sigma needs embedding 'fourier', whose condition is sigma, found {embedding!r}")
        if problems:
            raise ParamsError("score network: " + "; ".join(problems))
        self.embedding: Embedding = embedding
        self.scale_by_sigma = scale_by_sigma
        self.centered = centered

        width = 4 * channels
        self.features = _features(embedding, channels, fourier_scale)
        self.embed_in = linear(self.features.width, width)
        self.embed_out = linear(width, width)
        self.conv_in = conv(channels_in, channels, 3)

        def block(before: int, after: int, direction: Direction = "none") -> ResNetBlock:
            return ResNetBlock(before, after, width, dropout, direction, fir)

        levels = [(channels * m, size in attention_resolutions) for m, size in zip(multipliers, sizes, strict=True)]
        top, bottom = levels[0][0], levels[-1][0]
        self.encoder, skips = _encoder(block, levels, blocks, channels, channels_in, progressive_input == "residual")
        self.middle = nn.ModuleList(
            [UNetBlock(block(bottom, bottom), attention=True), UNetBlock(block(bottom, bottom))]
        )
        self.decoder = _decoder(block, levels, blocks, skips)
        self.norm_out = group_norm(top)
        self.conv_out = conv(top, channels_in, 3, ALMOST_ZERO)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map the image x, (B, C, S, S), and its condition, (B,), to the raw output, (B, C, S, S).

        Arguments:
            x: image, without a unit: centred on 0, or in [0, 1], as ``centered`` requires.
            condition: 999 t, sigma or log SNR of each image, as ``embedding`` requires; without a unit.
        """
        embedding = F.silu(self.embed_out(F.silu(self.embed_in(self.features(condition)))))
        x = x if self.centered else 2 * x - 1
        h = self._decode(*self._encode(x, embedding), embedding)
        h = self.conv_out(F.silu(self.norm_out(h)))
        return h / condition[:, None, None, None] if self.scale_by_sigma else h

    def _encode(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
        h, image = self.conv_in(x), x
        skips = [h]
        for module in self.encoder:
            h = module(h, embedding)
            if (pyramid := cast(UNetBlock, module).pyramid) is not None:
                h = image = (pyramid(image) + h) * SQRT_HALF
            skips.append(h)
        return h, skips

    def _decode(self, h: Tensor, skips: list[Tensor], embedding: Tensor) -> Tensor:
        for module in self.middle:
            h = module(h, embedding)
        for module in self.decoder:
            takes_skip = cast(UNetBlock, module).block.direction != "up"
            h = module(torch.cat([h, skips.pop()], dim=1) if takes_skip else h, embedding)
        return h


def _features(
    embedding: Embedding, channels: int, fourier_scale: float
) -> PositionalFeatures | FourierFeatures | LogSNRFeatures:
    if embedding == "positional":
        return PositionalFeatures(channels)
    if embedding == "fourier":
        return FourierFeatures(channels, fourier_scale)
    return LogSNRFeatures(channels)


def _encoder(
    block: Callable[..., ResNetBlock],
    levels: Sequence[tuple[int, bool]],
    blocks: int,
    channels: int,
    channels_in: int,
    progressive: bool,
) -> tuple[nn.ModuleList, list[int]]:
    """Build the way down over levels (width, attention); also return the widths of all skip connections."""
    modules = nn.ModuleList()
    skips, image = [channels], channels_in
    for level, (width, attention) in enumerate(levels):
        for _ in range(blocks):
            modules.append(UNetBlock(block(skips[-1], width), attention))
            skips.append(width)
        if level < len(levels) - 1:
            modules.append(
                UNetBlock(block(width, width, "down"), pyramid=FIRDownConv(image, width) if progressive else None)
            )
            skips.append(width)
            image = width
    return modules, skips


def _decoder(
    block: Callable[..., ResNetBlock], levels: Sequence[tuple[int, bool]], blocks: int, skips: Sequence[int]
) -> nn.ModuleList:
    """Build the way up, where every block except the resampling ones takes a skip connection, the last one first."""
    modules = nn.ModuleList()
    remaining, now = list(skips), skips[-1]
    for level, (width, attention) in reversed(list(enumerate(levels))):
        for index in range(blocks + 1):
            modules.append(UNetBlock(block(now + remaining.pop(), width), attention and index == blocks))
            now = width
        if level > 0:
            modules.append(UNetBlock(block(width, width, "up")))
    return modules


def _problems(
    channels: int,
    image_size: int,
    sizes: list[int],
    attention_resolutions: Sequence[int],
    embedding: str,
    progressive_input: str,
) -> list[str]:
    halvings = len(sizes) - 1
    problems = []
    if channels < 4:
        problems.append(f"channels is {channels}, expected at least 4")
    if not sizes or sizes[-1] < 1 or sizes[-1] << halvings != image_size:
        problems.append(
            f"image_size is {image_size}, expected one that {len(sizes)} multipliers halve without remainder"
        )
    if unmet := sorted(set(attention_resolutions) - set(sizes)):
        problems.append(f"attention_resolutions has {unmet}, expected some of {sizes}")
    if embedding not in get_args(Embedding):
        problems.append(f"embedding is {embedding!r}, expected one of {get_args(Embedding)}")
    if progressive_input not in get_args(ProgressiveInput):
        problems.append(f"progressive_input is {progressive_input!r}, expected one of {get_args(ProgressiveInput)}")
    return problems


NETWORK = ScoreUNet
