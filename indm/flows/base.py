"""The one interface of every flow h: x -> z that moves data into the latent space of the linear diffusion.

With p_z the density of the latent, the density of the data is log p(x) = log p_z(h(x)) + log|det dh(x)/dx|.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from indm.flows.log_det import Series
from indm.flows.sources import Source

LogDet = Literal["none", "train", "exact"] | Series
"""How ``Flow.forward`` computes log|det dh/dx|:

- ``"none"``: not at all (zeros, no cost);
- ``"train"``: an unbiased *gradient* at the lowest cost; the returned value is **not** log|det dh/dx|;
- ``"exact"``: the exact value, from the Jacobian of each block; for small D only;
- :class:`Series`: a value whose mean over probes is exact within the stated tolerance; for any D.
"""

Map = Callable[[Tensor], Tensor]


class Flow(nn.Module):
    """An invertible map between images of one fixed shape.

    Arguments:
        channels_in: C, the channels of an image.
        image_size: S, its height and width.
    """

    def __init__(self, channels_in: int, image_size: int) -> None:
        super().__init__()
        self.image_shape = (channels_in, image_size, image_size)

    def forward(self, x: Tensor, log_det: LogDet, generator: Source = None) -> tuple[Tensor, Tensor]:
        """Map images to latents, z = h(x), with log|det dh(x)/dx| computed as ``log_det`` says.

        Arguments:
            x: images, with shape (B, C, S, S).
            log_det: see :data:`LogDet`.
            generator: source of every random draw, by :func:`draw_probe` and :func:`draw_roulette`; torch's global
                one if None.

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
            atol: accepted error of the equation h(x) = z in any one entry, per block.
            max_iterations: evaluations of the branch, per block.
            generator: source of every random draw, for a flow whose inverse has one; torch's global one if None.

        Returns:
            x with shape (B, C, S, S).

        Raises:
            ConvergenceError: if an iterative inverse does not reach ``atol``.
        """
        raise NotImplementedError

    def bijection_at(self, x: Tensor, generator: Source = None) -> tuple[Map, Map]:
        """Return the map and its inverse, of those that the flow has, which hold for images x.

        A flow that draws which map it applies, and another one to invert, draws one here and keeps it.

        Arguments:
            x: images, with shape (B, C, S, S); what is mapped later has as many.
            generator: source of the draw; torch's global one if None.

        Returns:
            h and its inverse, without gradients, each of a tensor with shape (B, C, S, S); the inverse raises
            ConvergenceError as :meth:`inverse` does.
        """
        return lambda images: self(images, "none")[0], self.inverse

    @property
    def mean_terms(self) -> float:
        """The expected number of terms of each series of ``"train"``; 0 for a flow without one."""
        return 0.0

    def fix_terms(self, count: int) -> None:
        """Let each series of ``"train"`` have ``count`` terms from now on, none of them drawn."""

    def update_norms(self) -> None:
        """Refresh what bounds the weights; call after every change of the weights (optimiser step, EMA)."""

    def _check_shape(self, images: Tensor) -> None:
        if images.shape[1:] != self.image_shape:
            raise ValueError(f"flow built for images of shape {self.image_shape}, got {tuple(images.shape[1:])}")
