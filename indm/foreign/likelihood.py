"""Likelihoods of a network that somebody else trained, by the code of the ``nll`` stage."""

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Generator, Tensor

from indm.data.levels import bits_per_dim, dequantise
from indm.diffusion.decoder import alpha_at_eps
from indm.diffusion.evaluation import Evaluation, control_of, likelihoods
from indm.diffusion.likelihood import nelbo_alone
from indm.diffusion.objectives import NoiseFn
from indm.diffusion.path import LinearPath
from indm.diffusion.sde import SDE
from indm.errors import DataError, ParamsError, memory_errors
from indm.foreign.conventions import Network, check_network, noise_fn
from indm.foreign.report import Report
from indm.process import float32_products
from indm.report.decoders import BARE, with_fixed
from indm.seeding import derive_seed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from indm.diffusion.model import ImplicitNonlinearDiffusion

NAME = "referee"
# Images on which a network is tried before it is evaluated.
TRIED_ON = 16
# A set of images with so many pixels for each level has more levels than an eighth.
PIXELS_PER_LEVEL = 4


@dataclass(frozen=True)
class Foreign:
    """A network that looks like :class:`~indm.diffusion.model.ImplicitNonlinearDiffusion` to an evaluation; it has no flow."""

    noise: NoiseFn
    sde: SDE
    eps: float
    centered: bool

    @property
    def path(self) -> LinearPath:
        """The linear diffusion."""
        return LinearPath(self.sde)

    def flow(self, x: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Return images (B, *) as they are, and log-determinants of 0, shape (B,)."""
        return x, x.new_zeros(len(x))


@contextmanager
def _as_stages_do() -> "Iterator[None]":
    with float32_products(), torch.inference_mode(False), memory_errors():
        yield


@_as_stages_do()
def referee(
    network: Network,
    sde: SDE,
    images: Tensor | ArrayLike,
    *,
    kind: str = "noise",
    levels: int = 256,
    centered: bool = True,
    eps: float = 1e-5,
    claimed: float | None = None,
    time_draws: int = 80,
    ode_steps: int = 64,
    batch_size: int = 100,
    seed: int = 0,
    device: str = "cpu",
    control: Literal["pixels", "cosine"] | None = None,
) -> Report:
    r"""Evaluate the likelihood of images under a network that somebody else trained.

    .. math:: \mathrm{bits/dim} = \frac{-\log p(x)}{D\ln 2} + \log_2 L - 1, \qquad
        x = 2\,\frac{\xi + u}{L} - 1, \quad u \sim U[0, 1)

    Arguments:
        network: maps an input (B, *) and a condition (B,), of type float32, to an output (B, *); see
            :mod:`indm.foreign.conventions`.
        sde: the diffusion for which it was trained, from :func:`indm.diffusion.sde.build_sde`.
        images: levels :math:`\xi`, whole numbers from 0 to L - 1, shape (N, *), N at least 2.
        kind: the convention of its output: ``noise``, ``score``, ``denoiser``, ``velocity`` or ``v``.
        levels: number L of levels of a pixel.
        centered: whether it was trained on data in [-1, 1]; otherwise in [0, 1], where the -1 of the equation is dropped.
        eps: truncation time.
        claimed: its owner's number, bits/dim, which the report explains.
        time_draws: times of the bound, for each image.
        ode_steps: steps of the ODE; half of them are tried too.
        batch_size: images evaluated at once; no number depends on it.
        seed: seed of dequantisation, noise, times and probes, which each image draws by its place among the images.
        device: torch's name of the device on which the network works.
        control: basis of the bound's control variate, which is fitted to the images: ``cosine``, which has smaller errors on
            photographs and is the default for images of shape (N, C, S, S), or ``pixels``.

    Returns:
        All numbers, with their errors and their meaning; ``print`` it.

    Raises:
        DataError: if the images are not levels, or fewer than two.
        ParamsError: if the network does not fit its description (:func:`~indm.foreign.conventions.check_network`), or a number
            is out of its range.
        DivergenceError: if a number is not finite.

    References:
        | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022)
        | https://arxiv.org/abs/2205.13699, section 3 and theorem 1
    """
    counts = {"time_draws": time_draws, "ode_steps": ode_steps, "batch_size": batch_size}
    if low := [name for name, count in counts.items() if count < 1]:
        raise ParamsError(f"{low[0]}: found {counts[low[0]]}, expected at least 1")
    if not 0 < eps < 1:
        raise ParamsError(f"eps: found {eps:g}, expected a time between 0 and 1, such as 1e-5")
    pixels = as_levels(images, levels)
    _check_count(pixels, levels)
    control = control or ("cosine" if _are_square(pixels) else "pixels")
    if control != "pixels" and not (control == "cosine" and _are_square(pixels)):
        shape = tuple(pixels.shape)
        raise ParamsError(f"control: found {control!r} for images {shape}, expected pixels, or cosine for (N, C, S, S)")
    model = Foreign(noise_fn(network, sde, kind), sde, eps, centered)
    generator = Generator().manual_seed(derive_seed(NAME, seed))
    with torch.no_grad():
        x = dequantise(pixels[:TRIED_ON], levels, generator, centered).to(device)
        check_network(network, sde, kind, x, generator)

    def evaluation(steps: int, draws: int) -> Evaluation:
        return Evaluation(batch_size, draws, None, steps, None, uncorrected=True, draws="image", control=control)

    def numbers(steps: int, draws: int, seed: int) -> pd.DataFrame:
        """Return the likelihoods of each image, by so many ODE steps and times of the bound."""
        return likelihoods(
            cast("ImplicitNonlinearDiffusion", model),
            pixels,
            levels,
            evaluation(steps, draws),
            seed=(NAME, seed),
            device=torch.device(device),
            description=NAME,
            once=lambda name, make: make(),
        )

    found = numbers(ode_steps, time_draws, seed)
    alpha = alpha_at_eps(cast("ImplicitNonlinearDiffusion", model))
    table = with_fixed(found, pd.Series(alpha, found.index)).assign(
        **{BARE: found[BARE]},
        # Same draws, half the steps; then other draws, same steps.
        nll_half_steps=numbers(max(1, ode_steps // 2), 1, seed)["nll"],
        nll_other_draws=numbers(ode_steps, 1, seed + 1)["nll"],
        nelbo_undequantised=_undequantised(model, pixels, levels, evaluation(1, time_draws), seed, device),
    )
    return Report(table, tuple(pixels.shape[1:]), levels, centered, eps, kind, ode_steps, claimed)


def _are_square(pixels: Tensor) -> bool:
    """Return whether images have the shape (N, C, S, S)."""
    return pixels.dim() == 4 and pixels.shape[2] == pixels.shape[3]


def _undequantised(
    model: Foreign, pixels: Tensor, levels: int, evaluation: Evaluation, seed: int, device: str
) -> "np.ndarray[Any, Any]":
    """Return the bound for levels that are only scaled, 0 to the lower and L - 1 to the upper end, in bits/dim, (N,)."""
    like = cast("ImplicitNonlinearDiffusion", model)
    control, found = control_of(like, pixels, levels, evaluation, torch.device(device)), []
    for start in range(0, len(pixels), evaluation.batch_size):
        batch = pixels[start : start + evaluation.batch_size]
        x = batch.float().div(levels - 1).to(device)
        x = 2 * x - 1 if model.centered else x
        nats = nelbo_alone(
            model.noise,
            model.path,
            model.flow,
            x,
            eps=model.eps,
            time_draws=evaluation.time_draws,
            generator=evaluation.draws_of(start, len(batch), NAME, seed, "undequantised"),
            control=control,
        )
        found.append(bits_per_dim(nats, x[0].numel(), levels, model.centered))
    return torch.cat(found).numpy()


def as_levels(images: Tensor | ArrayLike, levels: int) -> Tensor:
    """Return images as a tensor of levels, uint8, on the CPU.

    Raises:
        DataError: if they are not whole numbers from 0 to L - 1, are fewer than two, or have their channels last.
    """
    found = np.asarray(images.cpu() if isinstance(images, Tensor) else images)
    if found.dtype.kind not in "ui":
        raise DataError(
            f"images: found {found.dtype} from {found.min():g} to {found.max():g}, expected levels, whole numbers from 0 to "
            f"{levels - 1}; leave scaling and dequantisation to the referee"
        )
    channels_last = found.ndim == 4 and found.shape[3] in (1, 3) and found.shape[1] not in (1, 3)
    if found.ndim < 2 or len(found) < 2 or channels_last:
        raise DataError(f"images: found shape {found.shape}, expected (N, C, H, W), N at least 2")
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= levels or not 2 <= levels <= 256:
        raise DataError(
            f"images: found levels from {low} to {high}, expected 0 to {levels - 1}; give the number of levels, at most 256"
        )
    return torch.from_numpy(found.astype(np.uint8))


def _check_count(pixels: Tensor, levels: int) -> None:
    """Refuse images with far fewer levels, on which bits/dim depend."""
    count = len(pixels.unique())
    if count <= levels // 8 and pixels.numel() >= PIXELS_PER_LEVEL * levels:
        raise DataError(
            f"images: found {count} different levels from {pixels.min()} to {pixels.max()}, expected up to {levels}; give the "
            "number of levels of the images, because bits/dim depend on it"
        )
