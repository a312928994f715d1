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
from indm.diffusion.fixed_decoder import BARE, with_fixed
from indm.diffusion.likelihood import nelbo_alone
from indm.diffusion.objectives import NoiseFn
from indm.diffusion.path import LinearPath
from indm.diffusion.sde import SDE
from indm.errors import DivergenceError, ParamsError, memory_errors
from indm.foreign.comparison import Comparison, compare_readings
from indm.foreign.conventions import Network, noise_fn
from indm.foreign.levels import as_levels, check_count
from indm.foreign.readings import Reading
from indm.foreign.report import Report
from indm.foreign.settings import Settings, check_function, check_sde, checked
from indm.foreign.sound import EVAL, Variation, check_network
from indm.process import float32_products
from indm.seeding import derive_seed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from indm.diffusion.model import ImplicitNonlinearDiffusion

NAME = "referee"
# Images on which a network is tried before it is evaluated: all its readings, and its soundness.
TRIED_ON, SOUND_ON = 32, 16


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
        """Return images (B, *) as they are, and log-determinants of 0 in nats, shape (B,)."""
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
    device: str | torch.device = "cpu",
    allow_varying: bool = False,
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
        kind: the convention of its output, one of :data:`indm.foreign.kinds.KINDS`.
        levels: number L of levels of a pixel.
        centered: whether it was trained on data in [-1, 1]; otherwise in [0, 1], where the -1 of the equation is dropped.
        eps: truncation time.
        claimed: its owner's number, bits/dim, which the report explains.
        time_draws: times of the bound, for each image.
        ode_steps: steps of the ODE; half of them are tried too.
        batch_size: images evaluated at once; no number depends on it.
        seed: seed of dequantisation, noise, times and probes, which each image draws by its place among the images.
        device: torch's name of the device on which the network works.
        allow_varying: evaluate a network whose output varies from call to call, or with the other images of a batch.
        control: basis of the bound's control variate, which is fitted to the images: ``cosine``, which has smaller errors on
            photographs and is the default for images of shape (N, C, S, S), or ``pixels``.

    Returns:
        All numbers, with their errors and their meaning; ``print`` it. If another reading of the network explains its outputs
        better than its description, the report begins with it (:mod:`indm.foreign.comparison`).

    Raises:
        DataError: if the images are not levels, or fewer than two, or this machine has no such device.
        ParamsError: if the network does not fit its description, its output varies (:mod:`indm.foreign.sound`), or an argument
            is not what it should be.
        DivergenceError: if a number is not finite.

    References:
        | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022)
        | https://arxiv.org/abs/2205.13699, section 3 and theorem 1
    """
    given = Settings(
        kind, levels, centered, eps, claimed, time_draws, ode_steps, batch_size, seed, device, allow_varying, control
    )
    settings = checked(given)
    check_function(network)
    check_sde(sde, settings.eps)
    pixels = as_levels(images, settings.levels)
    check_count(pixels, settings.levels)
    if settings.control == "cosine" and not _are_square(pixels):
        raise ParamsError(
            f"control: found 'cosine' for images {tuple(pixels.shape)}, expected pixels, or images (N, C, S, S)"
        )
    variation, comparison = _tried(network, sde, pixels, settings)
    table = _numbers(network, sde, pixels, settings)
    return Report(
        table,
        tuple(pixels.shape[1:]),
        settings.levels,
        settings.centered,
        settings.eps,
        settings.kind,
        settings.ode_steps,
        settings.claimed,
        comparison,
        variation,
    )


@torch.no_grad()
def _tried(network: Network, sde: SDE, pixels: Tensor, settings: Settings) -> tuple[Variation, Comparison]:
    """Try a network and all its readings on a few images, and refuse one that cannot be evaluated as it is described."""
    generator = Generator().manual_seed(derive_seed(NAME, settings.seed))
    centered = dequantise(pixels[:TRIED_ON], settings.levels, generator).to(settings.device)
    x = centered if settings.centered else (centered + 1) / 2
    described = Reading(settings.kind, sde, settings.centered)

    def compared() -> Comparison:
        return compare_readings(network, described, settings.eps, centered, settings.batch_size, generator)

    try:
        variation = check_network(network, sde, settings.kind, x[:SOUND_ON], generator)
    except (ParamsError, DivergenceError) as error:
        # The reason may be the description.
        if (found := compared()).is_refused:
            raise ParamsError(f"{error}; {found.refusal()}") from error
        raise
    if variation.words() and not settings.allow_varying:
        raise ParamsError(f"network: {variation.words()}; {EVAL}, or allow it by allow_varying")
    if (found := compared()).is_refused:
        raise ParamsError(f"network: {found.refusal()}")
    return variation, found


def _numbers(network: Network, sde: SDE, pixels: Tensor, settings: Settings) -> pd.DataFrame:
    """Return all numbers of the report for each image, in bits/dim."""
    model = Foreign(noise_fn(network, sde, settings.kind), sde, settings.eps, settings.centered)
    basis = settings.control or ("cosine" if _are_square(pixels) else "pixels")

    def evaluation(steps: int, draws: int) -> Evaluation:
        return Evaluation(settings.batch_size, draws, None, steps, None, uncorrected=True, draws="image", control=basis)

    def numbers(steps: int, draws: int, seed: int) -> pd.DataFrame:
        """Return the likelihoods of each image, by so many ODE steps and times of the bound."""
        return likelihoods(
            cast("ImplicitNonlinearDiffusion", model),
            pixels,
            settings.levels,
            evaluation(steps, draws),
            seed=(NAME, seed),
            device=torch.device(settings.device),
            description=NAME,
            once=lambda name, make: make(),
        )

    found = numbers(settings.ode_steps, settings.time_draws, settings.seed)
    alpha = alpha_at_eps(cast("ImplicitNonlinearDiffusion", model))
    return with_fixed(found, pd.Series(alpha, found.index)).assign(
        **{BARE: found[BARE]},
        # Same draws, half the steps; then other draws, same steps.
        nll_half_steps=numbers(max(1, settings.ode_steps // 2), 1, settings.seed)["nll"],
        nll_other_draws=numbers(settings.ode_steps, 1, settings.seed + 1)["nll"],
        nelbo_undequantised=_undequantised(model, pixels, evaluation(1, settings.time_draws), settings),
    )


def _are_square(pixels: Tensor) -> bool:
    """Return whether images have the shape (N, C, S, S)."""
    return pixels.dim() == 4 and pixels.shape[2] == pixels.shape[3]


@torch.no_grad()
def _undequantised(
    model: Foreign, pixels: Tensor, evaluation: Evaluation, settings: Settings
) -> "np.ndarray[Any, Any]":
    """Return the bound for levels that are only scaled, 0 to the lower and L - 1 to the upper end, in bits/dim, (N,)."""
    like, device = cast("ImplicitNonlinearDiffusion", model), torch.device(settings.device)
    control, found = control_of(like, pixels, settings.levels, evaluation, device), []
    for start in range(0, len(pixels), evaluation.batch_size):
        batch = pixels[start : start + evaluation.batch_size]
        x = batch.float().div(settings.levels - 1).to(device)
        x = 2 * x - 1 if model.centered else x
        nats = nelbo_alone(
            model.noise,
            model.path,
            model.flow,
            x,
            eps=model.eps,
            time_draws=evaluation.time_draws,
            generator=evaluation.draws_of(start, len(batch), NAME, settings.seed, "undequantised"),
            control=control,
        )
        found.append(bits_per_dim(nats, x[0].numel(), settings.levels, model.centered))
    return torch.cat(found).numpy()
