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
from indm.flows.base import Flow, LogDet, Subset
from indm.flows.block import ResidualBlock, solve_block
from indm.flows.lipschitz import Bound, bounded_weights
from indm.flows.log_det import Series, exact_log_det, roulette_coefficients, series_log_det
from indm.flows.sources import Probe, Source, draw_probe, draw_series

ESTIMATORS = ("none", "train", "exact")
NamedBlock = tuple[str, int, ResidualBlock]
"""Name, scale, block."""


class ResidualFlow(Flow):
    """Blocks at full resolution, then a 2 x 2 pixel-unshuffle and more blocks for each further scale.

    log|det dh/dx| is the sum over the blocks, each estimated with separate draws. The last scale is shuffled back to the
    shape of the image. The defaults follow the released code (github.com/byeonghu-na/INDM).

    With ``condition_features`` the blocks depend on a condition h, with shape (B, F), which :meth:`forward` and
    :meth:`inverse` then require; x -> z is a bijection for every h.

    Arguments:
        channels_in: C, channels of an image.
        image_size: S, its height and width.
        blocks: number of blocks per scale; 0 skips a scale, so that (0, ...) skips the full resolution.
        width: channels inside each branch.
        activation: ``"sin"``, sin(2 pi u)/(2 pi), or ``"elu"``.
        bound: ``"linf"`` or ``"spectral"``, the norm in which each convolution is bounded.
        coefficient: bound on the Lipschitz constant of each convolution.
        exact_terms_train: number of terms of the series that ``"train"`` always includes.
        roulette_mean: mean of the Poisson number of further terms.
        probe: ``"gaussian"`` or ``"rademacher"``, which has the smaller variance.
        init_at_bound: whether the weights start scaled to the bound, so that h starts far from the identity.
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
                f"a residual flow: found image size {image_size}, expected one divisible by {2 ** (len(blocks) - 1)} for "
                f"{len(blocks)} scales; give fewer scales in blocks={tuple(blocks)}"
            )
        if not 0 < coefficient < 1:
            raise ParamsError(
                f"a residual flow: found coefficient {coefficient}, expected one between 0 and 1 (exclusive), for which the "
                "flow is invertible; change coefficient"
            )
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
        r"""Map images to latents, z = h(x), through the blocks in order, and sum their log-determinants.

        .. math:: x_{i+1} = x_i + g_i(x_i), \qquad \log\Big|\det\frac{\partial h}{\partial x}\Big| = \sum_i \log|\det(I + J_i)|

        with J_i the Jacobian of the branch g_i at x_i.

        Arguments:
            x: images, with shape (B, C, S, S).
            log_det: see :data:`LogDet`.
            generator: source of every random draw; torch's global generator if None.
            h: condition of the blocks, with shape (B, F); None for a flow without a condition.

        Returns:
            z with shape (B, C, S, S) and log|det dh/dx| in nats with shape (B,); with ``"train"``, only its gradient is
            meaningful.

        Raises:
            ValueError: if the images have another shape, or ``log_det`` is unknown.
            ConvergenceError: if a :class:`Series` does not converge, because update_norms() was not called after a change
                of the weights.
        """
        self._check_shape(x)
        if not (isinstance(log_det, Series | Subset) or log_det in ESTIMATORS):
            raise ValueError(f"log_det: found {log_det!r}, expected one of {ESTIMATORS}, a Series or a Subset")
        if isinstance(log_det, Subset):
            # A block takes the images with a probe first.
            x, h = x[log_det.order], None if h is None else h[log_det.order]
        total = x.new_zeros(x.shape[0])
        series = draw_series(x, sum(self.blocks), self.roulette_mean, self.probe, generator)
        for (_, scale, block), bounded in self._bounded_blocks():
            x = self.to_scale(x, scale)
            if log_det == "none":
                x = x + block(x, h, bounded)
            else:
                g, block_log_det = self._branch(block, bounded, x, h, log_det, generator, series)
                x, total = x + g, total + block_log_det
        if isinstance(log_det, Subset):
            places = log_det.order.argsort()
            x, total = x[places], log_det.factor * total[places]
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
        r"""Map latents to images, x = h^-1(z), by solving the blocks in reverse order, without gradients.

        .. math:: x_i + g_i(x_i) = x_{i+1}

        Arguments:
            z: latents, with shape (B, C, S, S).
            atol: largest accepted error of a block's equation in any entry; see :func:`indm.flows.block.solve_block`.
            max_iterations: largest number of evaluations of the branch, per block.
            generator: not used, because the inverse is deterministic.
            h: condition of the blocks, with shape (B, F); None for a flow without a condition.

        Returns:
            x with shape (B, C, S, S).

        Raises:
            ValueError: if the latents have another shape.
            ConvergenceError: if a block does not reach ``atol`` within ``max_iterations``.
        """
        self._check_shape(z)
        for (name, scale, block), bounded in reversed(self._bounded_blocks()):
            z = self.to_scale(z, scale)
            # Without a condition, g(0) is the same for all samples.
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
        """Shuffle x, (B, C, S, S) for images at scale 0, to the shape (B, 4^k C, S / 2^k, S / 2^k) of scale k."""
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
        """Return g(x) and log|det(I + J)|; ``series`` has the draws of ``"train"`` for the images in their own order."""
        if log_det == "train" or isinstance(log_det, Subset):
            draw, probe = next(series)
            probe = probe.view(x.shape)
            if isinstance(log_det, Subset):
                # Each image has the probe that it has without a subset.
                probe = probe[log_det.order[: log_det.count]]
            coefficients = roulette_coefficients(draw, self.exact_terms_train, self.roulette_mean)
            g, estimate = block.branch_and_estimate(x, h, probe, coefficients, bounded)
            return g, F.pad(estimate, (0, len(x) - len(estimate)))
        g, vjp = block.linearise(x, h, bounded)
        if isinstance(log_det, Series):
            tolerance = log_det.tolerance * x[0].numel() / sum(self.blocks)
            probe = draw_probe(x, self.probe, generator)
            return g, series_log_det(vjp, probe, block.contraction(), tolerance)
        return g, exact_log_det(vjp, x)


FLOW = ResidualFlow
