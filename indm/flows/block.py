"""The block of a residual flow: the branch g of x + g(x), its Jacobian products, and its inverse.

References:
    | Residual Flows for Invertible Generative Modeling (Chen et al., 2019)
    | https://arxiv.org/abs/1906.02735
    | Invertible Residual Networks (Behrmann et al., 2019), theorem 1 and algorithm 1
    | https://arxiv.org/abs/1811.00995
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from indm.errors import ConvergenceError
from indm.flows.activations import ACTIVATIONS, ActivationName
from indm.flows.convolution import adjoint, convolve
from indm.flows.kernels import KEPT, Layers, branch_and_estimate
from indm.flows.lipschitz import BOUNDS, Bound, LipschitzConv2d, bounded_weights
from indm.flows.log_det import Contraction, VectorJacobian

ALL = slice(None)
# Anderson's method: the number of pairs besides the best one, the factor by which a step must shrink the error, and the
# regularisation of its equations.
DEPTH, SHRINK, RIDGE = 3, 0.9, 1e-6

Bounded = Sequence[Tensor] | None
"""Weights of a block's three convolutions, already bounded; with None the block bounds them itself."""


class Branch(Protocol):
    """A branch g with its weights bounded."""

    def __call__(self, x: Tensor, samples: Tensor | slice = ALL) -> Tensor:
        """Return g(x), (b, C, S, S) to (b, C, S, S); ``samples`` selects the conditions of the b images from the batch."""


class ResidualBlock(nn.Module):
    """The branch g = [act] conv3 act conv1 act conv3 of one block x + g(x), with Lip(g) <= coefficient^3.

    A condition h with shape (B, F) adds A h + a to every pixel in front of conv1, which does not change Lip(g). A flow
    bounds the weights of all its blocks at once, by :func:`indm.flows.lipschitz.bounded_weights`, and passes them as
    ``bounded``.

    Arguments:
        channels: C, channels of the images.
        image_size: S, height and width of the images.
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
        # See kernels.branch_and_estimate.
        self.kept_elements = KEPT

    @property
    def convs(self) -> tuple[LipschitzConv2d, LipschitzConv2d, LipschitzConv2d]:
        """The convolutions, in order."""
        return self.conv1, self.conv2, self.conv3

    def forward(self, x: Tensor, h: Tensor | None = None, bounded: Bounded = None) -> Tensor:
        """Return the branch g(x), without the x that the block adds.

        Arguments:
            x: images or latents, with shape (B, C, S, S).
            h: condition, with shape (B, F); None for a block without a condition.
            bounded: bounded weights of the three convolutions; None if the block bounds them itself.

        Returns:
            g(x) with shape (B, C, S, S).
        """
        return self.branch(h, bounded)(x)

    def branch(self, h: Tensor | None = None, bounded: Bounded = None) -> Branch:
        """Return g at the condition h as a function, whose weights are bounded once, for repeated calls.

        Arguments:
            h: condition, with shape (B, F); None for a block without a condition.
            bounded: as in :meth:`forward`.

        Returns:
            A function from (b, C, S, S) to (b, C, S, S).
        """
        weights, shift = self._weights(h, bounded)

        def g(x: Tensor, samples: Tensor | slice = ALL) -> Tensor:
            return self._layers(x, weights, shift if shift is None else shift[samples])[0]

        return g

    def linearise(self, x: Tensor, h: Tensor | None = None, bounded: Bounded = None) -> tuple[Tensor, VectorJacobian]:
        r"""Return g(x), and the function v -> J^T v with J the Jacobian of g at x.

        .. math:: J^\top v = D_0 W_1^\top D_1 W_2^\top D_2 W_3^\top v

        with W the convolutions and D the slopes of the activations. The product consists of differentiable operations and
        does not need a graph of g.

        Arguments:
            x: images or latents, with shape (B, C, S, S).
            h: condition, with shape (B, F); None for a block without a condition.
            bounded: as in :meth:`forward`.

        Returns:
            g(x) with shape (B, C, S, S), and a function from (n B, C, S, S) to (n B, C, S, S), which takes n vectors for each
            image, starting with the first vector of every image.
        """
        weights, shift = self._weights(h, bounded)
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
        self, x: Tensor, h: Tensor | None, probe: Tensor, coefficients: list[float], bounded: Bounded = None
    ) -> tuple[Tensor, Tensor]:
        """Return g(x), and the Neumann estimate for the first b of the B images.

        See :func:`indm.flows.kernels.branch_and_estimate`.

        Arguments:
            x: images or latents, with shape (B, C, S, S).
            h: condition, with shape (B, F); None for a block without a condition.
            probe: v for the first b images, with shape (b, C, S, S).
            coefficients: the weights c_1, ..., c_n of the series.
            bounded: as in :meth:`forward`.

        Returns:
            g(x) with shape (B, C, S, S), and the estimate with shape (b,), of which only the gradient, in nats, is meaningful.
        """
        (w1, w2, w3), shift = self._weights(h, bounded)
        factor = self.activation.factor
        b2 = (factor * self.conv2.bias)[:, None].expand(-1, len(x))
        layers = Layers(
            W1=factor * w1.flatten(1),
            b1=factor * self.conv1.bias,
            W2=w2.flatten(1),
            b2=b2 if shift is None else b2 + factor * shift.flatten(1).t(),
            # The kernel is mirrored, because the patches that are added up lie around their pixels.
            R=w3.flip(2, 3).permute(0, 2, 3, 1).flatten(0, 2) / factor,
            b3=self.conv3.bias,
        )
        return branch_and_estimate(
            layers,
            self.activation,
            leading=self.leading_activation,
            x=x,
            probe=probe,
            coefficients=coefficients,
            kept_elements=self.kept_elements,
        )

    def _weights(self, h: Tensor | None, bounded: Bounded) -> tuple[Sequence[Tensor], Tensor | None]:
        """Return the bounded weights, and the shift that the condition adds after the second convolution."""
        weights = bounded_weights(self.convs) if bounded is None else bounded
        if self.condition is None:
            return weights, None
        # W (x + A h + a) = W x + W (A h + a): one vector per image
        return weights, F.conv2d(self.condition(h)[:, :, None, None], weights[1])

    def _layers(
        self, x: Tensor, weights: Sequence[Tensor], shift: Tensor | None
    ) -> tuple[Tensor, list[Callable[[], Tensor] | None]]:
        """Return g(x), and a function for the slope before each convolution, ``None`` if there is no activation."""
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

    @torch.no_grad()
    def contraction(self) -> Contraction:
        r"""Bound the Jacobian :math:`J = W_3 D_2 W_2 D_1 W_1 D_0` at every image, given that the slopes D lie in [-1, 1].

        .. math:: \|J\| \le c = \prod_{i=1}^3 \|W_i\| \le \text{coefficient}^3

        in the norm in which the convolutions W_i are bounded; J^T is bounded by the same c in the dual norm. For the row
        bound, c is exact; spectral norms are approximated from below, by iteration.
        """
        norms = [conv.norm().max().clamp(max=conv.coefficient).item() for conv in self.convs]
        return Contraction(math.prod(norms), self.conv1.dual)

    def update_norms(self) -> None:
        """Refresh the norms of the three convolutions."""
        for conv in self.convs:
            conv.update_norms()

    def scale_to_bound(self) -> None:
        """Rescale the weights of the three convolutions to their bound."""
        for conv in self.convs:
            conv.scale_to_bound()


def solve_block(g: Branch, z: Tensor, at_zero: Tensor, name: str, atol: float, max_iterations: int) -> Tensor:
    r"""Solve x + g(x) = z by Anderson's method from x = 0, iterating each sample until its error is small.

    .. math::
        \max|x + g(x) - z| \le \text{atol} + 8 \epsilon \max|z|, \qquad
        x \leftarrow \sum_i w_i (z - g(x_i)), \quad w = \operatorname{argmin} \Big\|\sum_i w_i (z - g(x_i) - x_i)\Big\|_2

    with weights w that add up to 1, over the best x and the last three others, and epsilon the rounding unit of the dtype.
    A step that does not shrink the error by a tenth, in both the max-norm and the 2-norm, is followed by the fixed-point
    step x <- z - g(x) from the best x, which contracts in one of the two norms. Two evaluations therefore gain at least as
    much as one fixed-point step. The error is evaluated at the x that is returned. Samples do not depend on each other.

    Arguments:
        g: contractive branch.
        z: latents, with shape (B, C, S, S).
        at_zero: g(0), with shape (1, C, S, S), or (B, C, S, S) if it depends on the sample.
        name: name of the block, for error messages.
        atol: absolute tolerance.
        max_iterations: number of evaluations of g allowed.

    Returns:
        x with shape (B, C, S, S).

    Raises:
        ConvergenceError: if a sample does not reach its tolerance.

    References:
        | Anderson Acceleration for Fixed-Point Iterations (Walker & Ni, 2011), https://doi.org/10.1137/10078356X
    """
    x = z - at_zero
    tolerance = atol + 8 * torch.finfo(z.dtype).eps * z.abs().flatten(1).amax(1)
    active = torch.arange(len(z), device=z.device)
    # A pair consists of z - g(x) and the residual z - g(x) - x; here x = 0.
    best = torch.stack([x, x], 1).flatten(2)
    others = best[:, None].repeat(1, DEPTH, 1, 1)
    bound = z.new_full((len(z), 2), math.inf)
    for count in range(max_iterations):
        update = z[active] - g(x[active], active)
        pair = torch.stack([update, update - x[active]], 1).flatten(2)
        norms = torch.stack([torch.linalg.vector_norm(pair[:, 1], p, dim=1) for p in (math.inf, 2)], 1)
        failing = ~(norms[:, 0] <= tolerance[active])  # NaN fails too
        active, pair, norms, bound, best, others = (
            tensor[failing] for tensor in (active, pair, norms, bound, best, others)
        )
        if not len(active):
            return x
        is_kept = (norms <= bound).all(1, keepdim=True)
        # A rejected step is followed by a fixed-point step, which is always kept.
        bound = torch.where(is_kept, SHRINK * norms, math.inf)
        others[:, count % DEPTH] = torch.where(is_kept[..., None], best, pair)
        best = torch.where(is_kept[..., None], pair, best)
        x[active] = torch.where(is_kept, _combine(best, others), best[:, 0]).view_as(x[active])
    raise ConvergenceError(
        f"inverse of block {name}: {len(active)} of {len(z)} samples have an error max|x + g(x) - z| up to "
        f"{norms[:, 0].max().item():.2e} after {max_iterations} iterations, tolerance {tolerance.min().item():.2e}; "
        "call update_norms() after each change of the weights so that g is a contraction, lower coefficient, "
        "or raise max_iterations or atol"
    )


def _combine(best: Tensor, others: Tensor) -> Tensor:
    """Return the step of Anderson's method, with shape (b, n), from the best pair (b, 2, n) and others (b, DEPTH, 2, n)."""
    updates, residuals = (others - best[:, None]).unbind(2)
    lengths = residuals.norm(dim=2, keepdim=True).clamp(min=torch.finfo(best.dtype).tiny)
    units = residuals / lengths
    # Without the small diagonal, equal pairs would make the matrix singular.
    gram = units @ units.mT + RIDGE * torch.eye(DEPTH, dtype=best.dtype, device=best.device)
    weights = torch.linalg.solve_ex(gram, units @ best[:, 1, :, None]).result / lengths
    return best[:, 0] - (weights.mT @ updates).squeeze(1)
