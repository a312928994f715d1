"""Residual flows: h is a chain of blocks x + g(x) with contractive g, hence invertible.

References:
    | Residual Flows for Invertible Generative Modeling (Chen et al., 2019)
    | https://arxiv.org/abs/1906.02735
    | Invertible Residual Networks (Behrmann et al., 2019), theorem 1 and algorithm 1
    | https://arxiv.org/abs/1811.00995
"""

from collections.abc import Callable, Iterator
from typing import Protocol, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from indm.errors import ConvergenceError, ParamsError
from indm.flows.activations import ACTIVATIONS, ActivationName
from indm.flows.base import Flow, LogDet
from indm.flows.convolution import adjoint, convolve
from indm.flows.lipschitz import BOUNDS, Bound, LipschitzConv2d
from indm.flows.log_det import (
    Probe,
    Source,
    VectorJacobian,
    draw_probe,
    draw_roulette,
    exact_log_det,
    roulette_coefficients,
    series_log_det,
)
from indm.flows.neumann import Layers, branch_and_estimate

ALL = slice(None)


class Branch(Protocol):
    """A branch g with its weights bounded."""

    def __call__(self, x: Tensor, samples: Tensor | slice = ALL) -> Tensor:
        """Return g(x) for images x with shape (b, C, S, S), which are those ``samples`` of the batch of conditions."""


class ResidualBlock(nn.Module):
    """The branch g = [act] conv3 act conv1 act conv3 of one block x + g(x), with Lip(g) <= coefficient^3.

    A condition h with shape (B, F) adds A h + a to every pixel in front of conv1, which leaves Lip(g) as it is.

    Arguments:
        channels: C, of the images.
        image_size: S, of the images.
        width: channels inside the branch.
        activation: act, a function with slopes in [-1, 1].
        bound: norm in which each convolution is bounded.
        coefficient: bound on the Lipschitz constant of each convolution.
        leading_activation: whether the branch starts with act.
        condition_features: F, 0 for no condition.
    """

    def __init__(
        self,
        channels: int,
        image_size: int,
        width: int,
        *,
        activation: ActivationName,
        bound: Bound,
        coefficient: float,
        leading_activation: bool,
        condition_features: int = 0,
    ) -> None:
        super().__init__()
        conv = BOUNDS[bound]
        self.conv1 = conv(channels, width, 3, image_size, coefficient)
        self.conv2 = conv(width, width, 1, image_size, coefficient)
        self.conv3 = conv(width, channels, 3, image_size, coefficient)
        self.activation = ACTIVATIONS[activation]
        self.leading_activation = leading_activation
        self.condition = nn.Linear(condition_features, width) if condition_features else None

    @property
    def convs(self) -> tuple[LipschitzConv2d, LipschitzConv2d, LipschitzConv2d]:
        """The convolutions, in order."""
        return self.conv1, self.conv2, self.conv3

    def forward(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """Return g(x), with shape (B, C, S, S)."""
        return self.branch(h)(x)

    def branch(self, h: Tensor | None = None) -> Branch:
        """Return g at the condition h, with its weights bounded once, for repeated calls."""
        weights, shift = self._weights(h)

        def g(x: Tensor, samples: Tensor | slice = ALL) -> Tensor:
            return self._layers(x, weights, shift if shift is None else shift[samples])[0]

        return g

    def linearise(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, VectorJacobian]:
        r"""Return g(x), with shape (B, C, S, S), and the product with the transposed Jacobian of g at x.

        .. math:: J^\top v = D_0 W_1^\top D_1 W_2^\top D_2 W_3^\top v

        with W the convolutions and D the slopes of the activations. It is made of differentiable operations, and needs no
        graph of its own.
        """
        weights, shift = self._weights(h)
        y, found = self._layers(x, weights, shift)
        slopes = [slope() if slope else None for slope in found]
        transposed = [adjoint(weight) for weight in weights]

        def vjp(v: Tensor) -> Tensor:
            for weight, slope in zip(reversed(transposed), reversed(slopes), strict=True):
                v = convolve(v, weight)
                if slope is not None:
                    v = (v.unflatten(0, (-1, len(x))) * slope).flatten(0, 1)
            return v

        return y, vjp

    def branch_and_estimate(
        self, x: Tensor, h: Tensor | None, probe: Tensor, coefficients: list[float]
    ) -> tuple[Tensor, Tensor]:
        """Return g(x) and the Neumann estimate; see :func:`indm.flows.neumann.branch_and_estimate`."""
        (w1, w2, w3), shift = self._weights(h)
        b2 = self.conv2.bias[:, None].expand(-1, len(x))
        layers = Layers(
            w1=w1.flatten(1),
            b1=self.conv1.bias,
            w2=w2.flatten(1),
            b2=b2 if shift is None else b2 + shift.flatten(1).t(),
            # Patches that are added up lie around their pixel: the kernel is mirrored.
            r3=w3.flip(2, 3).permute(0, 2, 3, 1).flatten(0, 2),
            b3=self.conv3.bias,
        )
        return branch_and_estimate(
            layers, self.activation, leading=self.leading_activation, x=x, probe=probe, coefficients=coefficients
        )

    def _weights(self, h: Tensor | None) -> tuple[list[Tensor], Tensor | None]:
        """Return the bounded weights, and what the condition adds behind the second convolution."""
        weights = [conv.bounded_weight() for conv in self.convs]
        if self.condition is None:
            return weights, None
        # W (x + A h + a) = W x + W (A h + a): one vector per image
        return weights, F.conv2d(self.condition(h)[:, :, None, None], weights[1])

    def _layers(
        self, x: Tensor, weights: list[Tensor], shift: Tensor | None
    ) -> tuple[Tensor, list[Callable[[], Tensor] | None]]:
        """Return g(x), and what computes the slope in front of each convolution, ``None`` where there is no activation."""
        slopes: list[Callable[[], Tensor] | None] = []
        for index, (conv, weight) in enumerate(zip(self.convs, weights, strict=True)):
            slope = None
            if index > 0 or self.leading_activation:
                x, slope = self._activate(x)
            slopes.append(slope)
            x = convolve(x, weight, conv.bias)
            if index == 1 and shift is not None:
                x = x + shift
        return x, slopes

    def _activate(self, x: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
        value = self.activation.value(x)
        return value, lambda: self.activation.slope(x, value)

    def update_norms(self) -> None:
        """Refresh the norms of the three convolutions."""
        for conv in self.convs:
            conv.update_norms()

    def scale_to_bound(self) -> None:
        """Rescale the weights of the three convolutions to their bound."""
        for conv in self.convs:
            conv.scale_to_bound()


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
        exact_terms_eval: terms of the series always taken by ``"series"``.
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
        exact_terms_eval: int = 20,
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
        self.exact_terms_train = exact_terms_train
        self.exact_terms_eval = exact_terms_eval
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

    def named_blocks(self) -> Iterator[tuple[str, int, ResidualBlock]]:
        """Yield (name, scale, block) in the order of the forward map."""
        for scale, blocks in enumerate(self.scales):
            for index, block in enumerate(cast(nn.ModuleList, blocks)):
                yield f"scales.{scale}.{index}", scale, cast(ResidualBlock, block)

    def forward(
        self, x: Tensor, log_det: LogDet, generator: Source = None, h: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Flow.forward`."""
        self._check_shape(x)
        if log_det not in get_args(LogDet):
            raise ValueError(f"log_det must be one of {get_args(LogDet)}, got {log_det!r}")
        total = x.new_zeros(x.shape[0])
        for _, scale, block in self.named_blocks():
            x = self.to_scale(x, scale)
            if log_det == "none":
                x = x + block(x, h)
            else:
                x, block_log_det = self._step(block, x, h, log_det, generator)
                total = total + block_log_det
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
        for name, scale, block in reversed(list(self.named_blocks())):
            z = solve_block(block.branch(h), self.to_scale(z, scale), name, atol, max_iterations)
        return self.to_scale(z, 0)

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

    def _step(
        self,
        block: ResidualBlock,
        x: Tensor,
        h: Tensor | None,
        log_det: LogDet,
        generator: Source,
    ) -> tuple[Tensor, Tensor]:
        """Return x + g(x) and log|det(I + J)|."""
        if log_det == "exact":
            g, vjp = block.linearise(x, h)
            return x + g, exact_log_det(vjp, x)
        exact_terms = self.exact_terms_train if log_det == "train" else self.exact_terms_eval
        draw = draw_roulette(self.roulette_mean, generator)
        coefficients = roulette_coefficients(draw, exact_terms, self.roulette_mean)
        probe = draw_probe(x, self.probe, generator)
        if log_det == "train":
            g, estimate = block.branch_and_estimate(x, h, probe, coefficients)
            return x + g, estimate
        g, vjp = block.linearise(x, h)
        return x + g, series_log_det(vjp, probe, coefficients)


def solve_block(g: Branch, z: Tensor, name: str, atol: float, max_iterations: int) -> Tensor:
    r"""Solve x + g(x) = z by the fixed point x <- z - g(x), each sample until its own residual is small.

    .. math:: \max|x + g(x) - z| \le \text{atol} + 8 \epsilon \max|z|

    with epsilon the rounding unit of the dtype. The residual at x is the length of the next step: the x returned is one
    whose residual was measured. No sample depends on the others of its batch.

    Arguments:
        g: contractive branch.
        z: with shape (B, C, S, S).
        name: of the block, for the message.
        atol: absolute tolerance.
        max_iterations: number of evaluations of g allowed.

    Returns:
        x with shape (B, C, S, S).

    Raises:
        ConvergenceError: if a sample does not reach its tolerance.
    """
    x = z.clone()
    tolerance = atol + 8 * torch.finfo(z.dtype).eps * z.abs().flatten(1).amax(1)
    active = torch.arange(z.shape[0], device=z.device)
    for _ in range(max_iterations):
        update = z[active] - g(x[active], active)
        residual = (update - x[active]).abs().flatten(1).amax(1)
        failing = ~(residual <= tolerance[active])  # NaN fails too
        active, update, residual = active[failing], update[failing], residual[failing]
        if not len(active):
            return x
        x[active] = update
    raise ConvergenceError(
        f"inverse of block {name}: {len(active)} of {len(z)} samples have residual max|x + g(x) - z| up to "
        f"{residual.max().item():.2e} after {max_iterations} iterations, tolerance {tolerance.min().item():.2e}; "
        "call update_norms() after each change of the weights so that g is a contraction, lower coefficient, "
        "or raise max_iterations or atol"
    )
