"""Residual flows: h is a chain of blocks x + g(x) with contractive g, hence invertible.

References:
    | Residual Flows for Invertible Generative Modeling (Chen et al., 2019)
    | https://arxiv.org/abs/1906.02735
    | Invertible Residual Networks (Behrmann et al., 2019), theorem 1 and algorithm 1
    | https://arxiv.org/abs/1811.00995
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from indm.errors import ParamsError
from indm.flows.activations import ActivationName
from indm.flows.base import Flow, LogDet
from indm.flows.block import ResidualBlock, solve_block
from indm.flows.lipschitz import Bound, bounded_weights
from indm.flows.log_det import Series, exact_log_det, roulette_coefficients, series_log_det
from indm.flows.sources import Probe, Source, draw_probe, draw_series

ESTIMATORS = ("none", "train", "exact")
NamedBlock = tuple[str, int, ResidualBlock]
"""Name, scale, block."""


class ResidualFlow(Flow):
    """Blocks at full resolution, then a 2 x 2 pixel-unshuffle and more blocks for each further scale.

    log|det dh/dx| is the sum over the blocks, each estimated with its own draws. The last scale is shuffled back to the
    shape of the image. The defaults are those of the released code (github.com/byeonghu-na/INDM).

    With ``condition_features`` the blocks depend on a condition h, with shape (B, F), that :meth:`forward` and
    :meth:`inverse` then need; x -> z is a bijection for every h.

    Arguments:
        channels_in: C, channels of an image.
        image_size: S, its height and width.
        blocks: number of blocks per scale; 0 leaves a scale out, as a first (0, ...) does the full resolution.
        width: channels inside each branch.
        activation: ``"sin"``, sin(2 pi u)/(2 pi), or ``"elu"``.
        bound: ``"linf"`` or ``"spectral"``, the norm in which each convolution is bounded.
        coefficient: bound on the Lipschitz constant of each convolution.
        exact_terms_train: terms of the series always taken by ``"train"``.
        roulette_mean: mean of the Poisson number of further terms.
        probe: ``"gaussian"`` or ``"rademacher"``; the second has the smaller variance.
        init_at_bound: whether the weights start scaled to the bound, which makes h far from the identity at once.
        condition_features: F, 0 for no condition.

    Raises:
        ParamsError: if the image size cannot be halved for every further scale, or the coefficient is not in (0, 1).
    """

    def __init__(
        self,
        channels_in: int,
        image_size: int,
        *,
        blocks: tuple[int, ...],
        width: int,
        activation: ActivationName = "sin",
        bound: Bound = "linf",
        coefficient: float = 0.98,
        exact_terms_train: int = 2,
        roulette_mean: float = 2.0,
        probe: Probe = "gaussian",
        init_at_bound: bool = False,
        condition_features: int = 0,
    ) -> None:
        super().__init__(channels_in, image_size)
        if image_size % 2 ** (len(blocks) - 1):
            raise ParamsError(
                f"a residual flow of {len(blocks)} scales needs an image size divisible by {2 ** (len(blocks) - 1)}, "
                f"got {image_size}: give fewer scales in blocks={tuple(blocks)}"
            )
        if not 0 < coefficient < 1:
            raise ParamsError(f"a residual flow is invertible for a coefficient between 0 and 1, got {coefficient}")
        self.blocks = tuple(blocks)
        self.exact_terms_train = exact_terms_train
        self.roulette_mean = roulette_mean
        self.probe: Probe = probe
        self.scales = nn.ModuleList(
            nn.ModuleList(
                ResidualBlock(
                    channels_in * 4**scale,
                    image_size // 2**scale,
                    width,
                    activation=activation,
                    bound=bound,
                    coefficient=coefficient,
                    leading_activation=sum(blocks[:scale]) + index > 0,
                    condition_features=condition_features,
                )
                for index in range(count)
            )
            for scale, count in enumerate(blocks)
        )
        if init_at_bound:
            for _, _, block in self.named_blocks():
                block.scale_to_bound()

    def named_blocks(self) -> Iterator[NamedBlock]:
        """Yield (name, scale, block) in the order of the forward map."""
        for scale, blocks in enumerate(self.scales):
            for index, block in enumerate(cast(nn.ModuleList, blocks)):
                yield f"scales.{scale}.{index}", scale, cast(ResidualBlock, block)

    def forward(
        self, x: Tensor, log_det: LogDet, generator: Source = None, h: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Flow.forward`."""
        self._check_shape(x)
        if not (isinstance(log_det, Series) or log_det in ESTIMATORS):
            raise ValueError(f"log_det must be one of {ESTIMATORS} or a Series, got {log_det!r}")
        total = x.new_zeros(x.shape[0])
        series = draw_series(x, sum(self.blocks), self.roulette_mean, self.probe, generator)
        for (_, scale, block), bounded in self._bounded_blocks():
            x = self.to_scale(x, scale)
            if log_det == "none":
                x = x + block(x, h, bounded)
            else:
                g, block_log_det = self._branch(block, bounded, x, h, log_det, generator, series)
                x, total = x + g, total + block_log_det
        return self.to_scale(x, 0), total

    @torch.no_grad()
    def inverse(
        self,
        z: Tensor,
        atol: float = 1e-6,
        max_iterations: int = 1000,
        generator: torch.Generator | None = None,
        h: Tensor | None = None,
    ) -> Tensor:
        """See :meth:`Flow.inverse`; each block is solved by :func:`solve_block`."""
        self._check_shape(z)
        for (name, scale, block), bounded in reversed(self._bounded_blocks()):
            z = self.to_scale(z, scale)
            # Without a condition, the same for all samples.
            at_zero = block(torch.zeros_like(z[:1] if h is None else z), h, bounded)
            z = solve_block(block.branch(h, bounded), z, at_zero, name, atol, max_iterations)
        return self.to_scale(z, 0)

    @property
    def mean_terms(self) -> float:
        return self.exact_terms_train + self.roulette_mean

    def fix_terms(self, count: int) -> None:
        self.exact_terms_train, self.roulette_mean = count, 0.0

    def update_norms(self) -> None:
        for _, _, block in self.named_blocks():
            block.update_norms()

    def to_scale(self, x: Tensor, scale: int) -> Tensor:
        """Shuffle between the shape of the image (scale 0) and that of each further scale."""
        while x.shape[-1] > self.image_shape[-1] // 2**scale:
            x = F.pixel_unshuffle(x, 2)
        while x.shape[-1] < self.image_shape[-1] // 2**scale:
            x = F.pixel_shuffle(x, 2)
        return x

    def _bounded_blocks(self) -> list[tuple[NamedBlock, Sequence[Tensor]]]:
        """Return the blocks in the order of the forward map, each with its bounded weights."""
        blocks = list(self.named_blocks())
        weights = iter(bounded_weights([conv for _, _, block in blocks for conv in block.convs]))
        return [(named, tuple(itertools.islice(weights, len(named[2].convs)))) for named in blocks]

    def _branch(
        self,
        block: ResidualBlock,
        bounded: Sequence[Tensor],
        x: Tensor,
        h: Tensor | None,
        log_det: LogDet,
        generator: Source,
        series: Iterator[tuple[int, Tensor]],
    ) -> tuple[Tensor, Tensor]:
        """Return g(x) and log|det(I + J)|; ``series`` has the draws of ``"train"``."""
        if log_det == "train":
            draw, probe = next(series)
            coefficients = roulette_coefficients(draw, self.exact_terms_train, self.roulette_mean)
            return block.branch_and_estimate(x, h, probe.view(x.shape), coefficients, bounded)
        g, vjp = block.linearise(x, h, bounded)
        if isinstance(log_det, Series):
            tolerance = log_det.tolerance * x[0].numel() / sum(self.blocks)
            probe = draw_probe(x, self.probe, generator)
            return g, series_log_det(vjp, probe, block.contraction(), tolerance)
        return g, exact_log_det(vjp, x)


FLOW = ResidualFlow
