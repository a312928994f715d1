"""The interface of every flow h: x -> z, which maps data into the latent space of the linear diffusion.

If the latent has density p_z, the data has the density log p(x) = log p_z(h(x)) + log|det dh(x)/dx|.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from indm.flows.log_det import Series
from indm.flows.sources import Source


@dataclass(frozen=True, eq=False)
class Subset:
    r"""The method ``"train"`` on b of B images, for flows that estimate their log-determinant; other flows take all images.

    The sum over the images, and with it the gradient, has the mean of ``"train"`` over random subsets:

    .. math:: E\Big[\frac Bb \sum_{i \in \text{subset}} \nabla \ell_i\Big] = \sum_{i=1}^B \nabla \ell_i

    Arguments:
        order: places of the images in the batch, the subset's first, shape (B,).
        count: b, which may be 0 in a part of a batch.
        factor: number of images over number of chosen images, B / b in the whole batch.
    """

    order: Tensor
    count: int
    factor: float


LogDet = Literal["none", "train", "exact"] | Series | Subset
"""How ``Flow.forward`` computes log|det dh/dx|:

- ``"none"``: not at all (zeros, at no cost);
- ``"train"``: an unbiased *gradient* at the lowest cost; the returned value is **not** log|det dh/dx|;
- :class:`Subset`: the same gradient, estimated on some of the images; the value of the others is 0;
- ``"exact"``: the exact value, from the Jacobian of each block; only for small D;
- :class:`Series`: a value whose mean over probes is exact to the given tolerance; for any D.
"""

Map = Callable[[Tensor], Tensor]
Batches = Callable[[], Iterable[Tensor]]
"""Passes over the training images in model space: each call gives all of them once, in batches (B, C, S, S)."""


class Flow(nn.Module):
    """An invertible map between images of one fixed shape.

    Images and latents have no unit. Images lie in [-1, 1], or in [0, 1] for a model that is not ``centered``; see
    :func:`indm.data.levels.dequantise`.

    Arguments:
        channels_in: C, the channels of an image.
        image_size: S, its height and width.
    """

    def __init__(self, channels_in: int, image_size: int) -> None:
        super().__init__()
        self.image_shape = (channels_in, image_size, image_size)

    def forward(self, x: Tensor, log_det: LogDet, generator: Source = None) -> tuple[Tensor, Tensor]:
        """Map images to latents, z = h(x), and compute log|det dh(x)/dx| by the method ``log_det``.

        Arguments:
            x: images, with shape (B, C, S, S).
            log_det: see :data:`LogDet`.
            generator: source of every random draw, through :func:`draw_probe` and :func:`draw_roulette`; torch's global
                generator if None.

        Returns:
            z with shape (B, C, S, S) and log|det dh/dx| in nats with shape (B,).

        Raises:
            ValueError: if the images have another shape, or ``log_det`` is unknown.
        """
        raise NotImplementedError

    def inverse(
        self, z: Tensor, atol: float = 1e-6, max_iterations: int = 1000, generator: torch.Generator | None = None
    ) -> Tensor:
        """Map latents to images, x = h^-1(z), without gradients.

        Arguments:
            z: latents, with shape (B, C, S, S).
            atol: largest accepted error of the equation h(x) = z in any entry, per block.
            max_iterations: largest number of evaluations of the branch, per block.
            generator: source of every random draw, if the inverse is random; torch's global generator if None.

        Returns:
            x with shape (B, C, S, S).

        Raises:
            ValueError: if the latents have another shape.
            ConvergenceError: if an iterative inverse does not reach ``atol``.
        """
        raise NotImplementedError

    def bijection_at(self, x: Tensor, generator: Source = None) -> tuple[Map, Map]:
        """Return a map h and its inverse, fixed for a batch of B images.

        A flow that draws a new map in each call of :meth:`forward` and :meth:`inverse` draws a single one here.

        Arguments:
            x: images, with shape (B, C, S, S).
            generator: source of the draw; torch's global generator if None.

        Returns:
            h and its inverse, without gradients, each from (B, C, S, S) to (B, C, S, S); the inverse raises
            ConvergenceError as :meth:`inverse` does.
        """
        return lambda images: self(images, "none")[0], self.inverse

    def fit(self, batches: Batches) -> None:
        """Set what a fixed map takes from the training images, before the training; other flows take nothing.

        Arguments:
            batches: passes over the training images, in batches (B, C, S, S).
        """

    def log_gains(self) -> Tensor | None:
        """Return the share of each frequency in log|det dh/dx|, if the flow acts on each spatial frequency separately.

        Returns:
            The logarithms of the gains of the orthonormal cosine transform of each channel, in nats, shape (C, S, S). The gains
            of all channels add up to the share of a frequency, even if the flow mixes channels. ``None`` for flows that mix
            frequencies.
        """
        return None

    @property
    def mean_terms(self) -> float:
        """The expected number of terms in each series of ``"train"``; 0 for a flow without series."""
        return 0.0

    def fix_terms(self, count: int) -> None:
        """Use exactly ``count`` terms in each series of ``"train"``, instead of a random number."""

    def update_norms(self) -> None:
        """Refresh the norms that bound the weights; call it after every change of the weights (optimiser step, EMA)."""

    def _check_shape(self, images: Tensor) -> None:
        if images.shape[1:] != self.image_shape:
            raise ValueError(
                f"found images of shape {tuple(images.shape[1:])}, expected {self.image_shape}; "
                "build the flow for the shape of the images"
            )
