"""Likelihoods of a network that somebody else trained, by the functions of the ``nll`` stage."""

import dataclasses
import math
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Generator, Tensor

from indm.data.levels import dequantise
from indm.diffusion.objectives import NoiseFn
from indm.diffusion.sde import SDE
from indm.errors import DivergenceError, ParamsError, memory_errors
from indm.foreign.comparison import Comparison, compare_readings
from indm.foreign.conventions import Network, noise_fn
from indm.foreign.data import Continuous, Data, Levels
from indm.foreign.kinds import Grid
from indm.foreign.levels import as_continuous, as_levels, check_count
from indm.foreign.numbers import NAME, Evaluator, Foreign
from indm.foreign.readings import Reading
from indm.foreign.report import Report
from indm.foreign.settings import Settings, check_function, check_sde, checked
from indm.foreign.sound import EVAL, Variation, check_network
from indm.foreign.step_bounds import StepBounds
from indm.foreign.tabulated import Tabulated
from indm.foreign.untrained import Untrained, find_untrained
from indm.process import float32_products
from indm.seeding import derive_seed

if TYPE_CHECKING:
    from collections.abc import Iterator

# Samples on which a network is tried before it is evaluated: all its readings, and its soundness.
TRIED_ON, SOUND_ON = 32, 16


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
    levels: int | None = 256,
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
    steps: int | None = None,
    grid: Grid = "ends",
) -> Report:
    r"""Evaluate the likelihood of images under a network that somebody else trained.

    .. math:: \mathrm{bits/dim} = \frac{-\log p(x)}{D\ln 2} + \log_2 L - 1, \qquad
        x = 2\,\frac{\xi + u}{L} - 1, \quad u \sim U[0, 1)

    Continuous data x, with ``levels=None``, have :math:`-\log p(x) / D` nats per dimension.

    Arguments:
        network: maps an input (B, *) and a condition (B,), of type float32, to an output (B, *); see
            :mod:`indm.foreign.conventions`.
        sde: the diffusion for which it was trained, from :func:`indm.diffusion.sde.build_sde`.
        images: levels :math:`\xi`, whole numbers from 0 to L - 1, or continuous data in the scale of the network, shape (N, *), N
            at least 2: images (N, C, H, W), vectors (N, D), volumes (N, C, D, H, W).
        kind: the convention of its output, one of :data:`indm.foreign.kinds.KINDS`.
        levels: number L of levels of a pixel, at most 65,536; ``None`` for continuous data, which are not dequantised.
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
        steps: number T of steps of the bounds of DDPM and VDM, which call the network once for each step and image; ``None``
            leaves them out (:mod:`indm.foreign.discrete`).
        grid: where levels lie in the data of the lossless bounds: ``ends``, :math:`\tfrac{2\xi}{L-1} - 1`, as in DDPM, or
            ``centres``, :math:`2\tfrac{\xi + 1/2}{L} - 1`, as in VDM.

    Returns:
        All numbers, with their errors and their meaning; ``print`` it. If another reading of the network explains its outputs
        better than its description, the report begins with it (:mod:`indm.foreign.comparison`).

    Raises:
        DataError: if the images are not levels, or not finite continuous data, or fewer than two, or this machine has no such
            device.
        ParamsError: if the network does not fit its description, its output varies (:mod:`indm.foreign.sound`), or an argument
            is not what it should be.
        DivergenceError: if a number is not finite.

    References:
        | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022)
        | https://arxiv.org/abs/2205.13699, section 3 and theorem 1
    """
    given = Settings(
        kind,
        levels,
        centered,
        eps,
        claimed,
        time_draws,
        ode_steps,
        batch_size,
        seed,
        device,
        allow_varying,
        control,
        steps,
        grid,
    )
    settings = checked(given)
    check_function(network)
    check_sde(sde, settings.eps)
    data = _data(images, settings)
    variation, comparison, untrained = _tried(network, sde, data, settings)
    evaluator = Evaluator(
        Foreign(noise_fn(network, sde, settings.kind), sde, settings.eps),
        data,
        settings.batch_size,
        settings.time_draws,
        settings.control or ("cosine" if _are_square(data) else "pixels"),
        settings.seed,
        torch.device(settings.device),
    )
    table = evaluator.table(settings.ode_steps)
    return Report(
        table,
        data.shape,
        settings.levels,
        settings.centered,
        settings.eps,
        settings.kind,
        settings.ode_steps,
        settings.claimed,
        comparison,
        variation,
        untrained,
        _steps(evaluator, table, settings),
    )


def _steps(evaluator: Evaluator, table: pd.DataFrame, settings: Settings) -> StepBounds | None:
    """Return the bounds of T steps, if they are asked for."""
    if settings.steps is None:
        return None
    images = evaluator.steps(settings.steps)
    return StepBounds(images, table["nelbo"], settings.steps, settings.eps, settings.grid)


def _data(images: Tensor | ArrayLike, settings: Settings) -> Data:
    """Return the data, if they are as the settings describe them."""
    data: Data
    if settings.levels is None:
        data = Continuous(as_continuous(images))
    else:
        pixels = as_levels(images, settings.levels)
        check_count(pixels, settings.levels)
        data = Levels(pixels, settings.levels, settings.centered, settings.grid)
    if settings.control == "cosine" and not _are_square(data):
        found = (len(data), *data.shape)
        raise ParamsError(f"control: found 'cosine' for images {found}, expected pixels, or images (N, C, S, S)")
    return data


def _are_square(data: Data) -> bool:
    """Return whether samples have the shape (C, S, S)."""
    return len(data.shape) == 3 and data.shape[1] == data.shape[2]


@torch.no_grad()
def _tried(
    network: Network, sde: SDE, data: Data, settings: Settings
) -> tuple[Variation, Comparison, Untrained | None]:
    """Try a network and all its readings on a few samples, and refuse one that cannot be evaluated as it is described."""
    generator = Generator().manual_seed(derive_seed(NAME, settings.seed))
    centered = _first_samples(data, generator).to(settings.device)
    x = centered if settings.centered else (centered + 1) / 2
    described = Reading(settings.kind, sde, settings.centered)

    def compared() -> Comparison:
        found = compare_readings(
            network, described, settings.eps, centered, settings.batch_size, generator, isinstance(data, Levels)
        )
        if isinstance(data, Levels):
            return found
        return dataclasses.replace(found, gain=found.gain * math.log(2), se=found.se * math.log(2), unit="nats/dim")

    try:
        variation = check_network(network, sde, settings.kind, x[:SOUND_ON], generator)
    except (ParamsError, DivergenceError) as error:
        # The reason may be the description.
        if (found := compared()).is_refused:
            raise ParamsError(f"{error}; {found.refusal()}") from error
        raise
    if variation.words() and not settings.allow_varying:
        raise ParamsError(f"network: {variation.words()}; {EVAL}, or allow it by allow_varying")
    # First, because a network without numbers at small times is no better by another reading.
    untrained = _untrained(network, sde, x, data, settings)
    if (found := compared()).is_refused:
        raise ParamsError(f"network: {found.refusal()}")
    return variation, found, untrained


def _first_samples(data: Data, generator: Generator) -> Tensor:
    """Return a few samples: images dequantised in [-1, 1], or continuous data as they are."""
    if isinstance(data, Levels):
        return dequantise(data.pixels[:TRIED_ON], data.levels, generator)
    return data.inputs(slice(TRIED_ON), generator, torch.device("cpu"))


def _untrained(network: Network, sde: SDE, x: Tensor, data: Data, settings: Settings) -> Untrained | None:
    """Return the small times that should be left out, if there are any.

    Raises:
        ParamsError: if the network gives no numbers there.
    """
    generator = Generator().manual_seed(derive_seed(NAME, settings.seed, "untrained"))
    noise = _in_batches(noise_fn(network, sde, settings.kind), settings.batch_size)
    found = find_untrained(noise, sde, settings.eps, x, generator)
    if found is None:
        return None
    if isinstance(sde, Tabulated):
        # It knows the first time.
        found = dataclasses.replace(found, first=max(found.first, sde.first))
    if math.isinf(found.cost):
        raise ParamsError(f"network: {found.words()}")
    if isinstance(data, Continuous):
        found = dataclasses.replace(found, cost=found.cost * math.log(2), unit="nats/dim")
    return found


def _in_batches(noise: NoiseFn, size: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a noise prediction that calls another one with at most so many samples."""
    return lambda z, t: torch.cat([noise(*part) for part in zip(z.split(size), t.split(size), strict=True)])
