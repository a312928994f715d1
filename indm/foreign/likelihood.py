"""Likelihoods of a network that somebody else trained, by the functions of the ``nll`` stage."""

import dataclasses
import hashlib
import math
import platform
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Generator, Tensor

from indm import __version__
from indm.arguments import shown
from indm.data.levels import dequantise
from indm.diffusion.objectives import NoiseFn
from indm.diffusion.sde import SDE
from indm.errors import DataError, DivergenceError, ParamsError, memory_errors
from indm.foreign.comparison import Comparison, compare_readings
from indm.foreign.conventions import Called, Network, noise_fn, output, second_inputs
from indm.foreign.data import Continuous, Data, Levels
from indm.foreign.kinds import ALIASES, Grid
from indm.foreign.levels import as_continuous, as_levels, check_count
from indm.foreign.numbers import NAME, Columns, Evaluator
from indm.foreign.readings import Reading
from indm.foreign.report import Report
from indm.foreign.schedulers import find_diffusion
from indm.foreign.settings import DataRange, Settings, check_function, check_sde, checked, range_tensors
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
# The truncation time, unless the diffusion says otherwise.
EPS = 1e-5


@contextmanager
def _as_stages_do() -> "Iterator[None]":
    with float32_products(), torch.inference_mode(False), memory_errors():
        yield


@_as_stages_do()
def referee(
    network: Network,
    sde: SDE | str | Any,
    images: Tensor | ArrayLike,
    *,
    kind: str | None = None,
    second: str | None = None,
    conditions: Tensor | ArrayLike | None = None,
    levels: int | None = 256,
    centered: bool = True,
    data_range: DataRange | None = None,
    eps: float | None = None,
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
    progress: bool = True,
) -> Report:
    r"""Evaluate the likelihood of images under a network that somebody else trained.

    .. math:: \mathrm{bits/dim} = \frac{-\log p(x)}{D\ln 2} + \log_2 L - 1, \qquad
        x = 2\,\frac{\xi + u}{L} - 1, \quad u \sim U[0, 1)

    Continuous data x, with ``levels=None``, have :math:`-\log p(x) / D` nats per dimension.

    Arguments:
        network: maps an input (B, *) and a second argument (B,), of type float32, to an output (B, *), or an object with it as
            ``sample``; see :mod:`indm.foreign.conventions`. An output (B, 2 C, *) is read as the same with learned variances.
        sde: the diffusion for which it was trained, from :func:`indm.diffusion.sde.build_sde`; ``vp``, ``ve``, ``cosine`` or
            ``sigmoid``; or a scheduler of diffusers, which also sets ``kind``, ``second`` and ``eps``.
        images: levels :math:`\xi`, whole numbers from 0 to L - 1, or continuous data in the scale of the network, shape (N, *), N
            at least 2: images (N, C, H, W), vectors (N, D), volumes (N, C, D, H, W).
        kind: the convention of its output, one of :data:`indm.foreign.kinds.KINDS`, or of their other names
            (:data:`~indm.foreign.kinds.ALIASES`); ``noise`` by default.
        second: what the network gets as its second argument, one of :data:`indm.foreign.kinds.SECONDS`; by default the one of its
            kind.
        conditions: labels or context of each image, shape (N, *), which the network gets as its third argument.
        levels: number L of levels of a pixel, at most 65,536; ``None`` for continuous data, which are not dequantised.
        centered: whether it was trained on data in [-1, 1]; otherwise in [0, 1], where the -1 of the equation is dropped.
        data_range: both ends to which images are scaled, each a number or one for each channel, in place of ``centered``; for data
            in [0, 1] that were standardised by m and s, ``(-m/s, (1 - m)/s)``.
        eps: truncation time; 1e-5, or the first step of a scheduler.
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
        progress: whether to draw bars on standard error.

    Returns:
        All numbers, with their errors and their meaning; ``print`` it. If another reading of the network explains its outputs
        better than its description, the report begins with it (:mod:`indm.foreign.comparison`).

    Raises:
        DataError: if the images are not levels, or not finite continuous data, or fewer than two, or the conditions are not as
            many, or this machine has no such device.
        ParamsError: if the network does not fit its description, its output varies (:mod:`indm.foreign.sound`), or an argument
            is not what it should be.
        DivergenceError: if a number is not finite.

    References:
        | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022)
        | https://arxiv.org/abs/2205.13699, section 3 and theorem 1
    """
    found = find_diffusion(sde)
    given = Settings(
        _kind(kind, found.kind),
        second if second is not None else found.second,
        levels,
        centered,
        data_range,
        eps if eps is not None else found.eps or EPS,
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
        progress,
    )
    settings = checked(given)
    check_function(network)
    check_sde(found.sde, settings.eps)
    data = _data(images, settings)
    called = Called(network, _conditions(conditions, len(data)), settings.second)
    called = dataclasses.replace(called, has_variances=_has_variances(called, found.sde, data, settings))
    variation, comparison, untrained = _tried(called, found.sde, data, settings)
    evaluator = Evaluator(
        called,
        settings.kind,
        found.sde,
        settings.eps,
        data,
        settings.batch_size,
        settings.time_draws,
        settings.control or ("cosine" if _are_square(data) else "pixels"),
        settings.seed,
        torch.device(settings.device),
        settings.progress,
    )
    table = evaluator.table(settings.ode_steps)
    return Report(
        table,
        data.shape,
        settings.levels,
        settings.data_range,
        data.offset if isinstance(data, Levels) else 0.0,
        settings.eps,
        settings.kind,
        settings.ode_steps,
        settings.claimed,
        comparison,
        variation,
        untrained,
        _steps(evaluator, table, settings),
        _provenance(network, found.sde, data, called.conditions, settings),
    )


def from_diffusers(unet: Any, scheduler: Any, images: Tensor | ArrayLike, **given: Any) -> Report:
    """Evaluate a network of diffusers with the scheduler of its training, in evaluation mode and in its own type and device.

    Arguments:
        unet: ``UNet2DModel``, ``UNet2DConditionModel``, or another network of an input, a step and, with ``conditions``, labels or
            context.
        scheduler: a scheduler with ``alphas_cumprod``, or one of a straight path.
        images: levels, whole numbers from 0 to L - 1, shape (N, C, H, W).
        given: all other arguments of :func:`referee`.

    Returns:
        The report.
    """
    weight = next(unet.parameters())
    was_training = unet.training
    unet.eval()

    def network(z: Tensor, step: Tensor, *conditions: Tensor) -> Tensor:
        return unet(z.to(weight.dtype), step, *conditions).sample.to(z.dtype)

    try:
        return referee(network, scheduler, images, **{"device": weight.device, **given})
    finally:
        unet.train(was_training)


# One name for both calls.
referee.from_diffusers = from_diffusers  # type: ignore[attr-defined]


def _kind(given: str | None, of_scheduler: str | None) -> Any:
    """Return the kind, which a scheduler may know.

    Raises:
        ParamsError: if the argument contradicts the scheduler.
    """
    if given is None or of_scheduler is None:
        return of_scheduler or ("noise" if given is None else given)
    if ALIASES.get(str(given), given) != of_scheduler:
        raise ParamsError(
            f"kind: found {shown(given)} with a scheduler whose prediction_type is {of_scheduler}; leave one of them out, or pass "
            "indm.Tabulated(scheduler.alphas_cumprod) as sde"
        )
    return given


def _conditions(conditions: Tensor | ArrayLike | None, count: int) -> Tensor | None:
    """Return labels or context as a tensor, if there is one for each image."""
    if conditions is None:
        return None
    try:
        found = torch.as_tensor(conditions).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"conditions: found {shown(conditions)}, expected numbers, one for each of {count} images, (N, *)"
        ) from error
    if not found.dim() or len(found) != count:
        raise DataError(
            f"conditions: found shape {tuple(found.shape)}, expected one for each of {count} images, (N, *)"
        )
    return found


def _has_variances(called: Called, sde: SDE, data: Data, settings: Settings) -> bool:
    """Return whether an output has twice the channels of its input; a network that fails is refused later."""
    x = data.inputs(slice(2), Generator(), torch.device(settings.device))
    t = torch.full((2,), 0.5, dtype=torch.float64, device=x.device)
    try:
        with torch.no_grad():
            out = output(called.whole(slice(2)), sde, second_inputs(settings.kind, settings.second), x, t)
    except Exception:
        return False
    return isinstance(out, Tensor) and out.shape == (2, 2 * x.shape[1], *x.shape[2:])


def _provenance(
    network: Network, sde: SDE, data: Data, conditions: Tensor | None, settings: Settings
) -> Mapping[str, Any]:
    """Return what the numbers depend on: arguments, versions, and the hash of the data."""
    values = data.pixels if isinstance(data, Levels) else data.values if isinstance(data, Continuous) else None
    name = getattr(network, "__qualname__", type(network).__name__)
    of_data = {"shape": [len(data), *data.shape], "sha256": _hash(values)}
    if conditions is not None:
        of_data["conditions_sha256"] = _hash(conditions)
    arguments = vars(settings) | {"network": name, "sde": str(sde), "device": str(settings.device)}
    return {
        "arguments": arguments,
        "images": of_data,
        "versions": {
            "indm": __version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def _hash(values: Tensor | None) -> str | None:
    """Return the SHA-256 of the bytes of a tensor, whose shape and type are in the report."""
    if values is None:
        return None
    return hashlib.sha256(values.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def _steps(evaluator: Evaluator, table: Columns, settings: Settings) -> StepBounds | None:
    """Return the bounds of T steps, if they are asked for."""
    if settings.steps is None:
        return None
    images = evaluator.steps(settings.steps)
    return StepBounds(images, table["nelbo"], settings.steps, settings.eps, settings.grid)


def _data(images: Tensor | ArrayLike, settings: Settings) -> Data:
    """Return the data, if they are as the settings describe them."""
    data: Data
    if settings.levels is None or settings.data_range is None:
        data = Continuous(as_continuous(images))
    else:
        pixels = as_levels(images, settings.levels)
        check_count(pixels, settings.levels)
        ends = range_tensors(settings.data_range, tuple(pixels.shape[1:]))
        data = Levels(pixels, settings.levels, ends, settings.grid)
        if settings.steps is not None and data.places is None:
            raise ParamsError(
                f"steps: found {settings.steps} with a data_range for each channel, expected one range for all"
            )
    if settings.control == "cosine" and not _are_square(data):
        found = (len(data), *data.shape)
        raise ParamsError(f"control: found 'cosine' for images {found}, expected pixels, or images (N, C, S, S)")
    return data


def _are_square(data: Data) -> bool:
    """Return whether samples have the shape (C, S, S)."""
    return len(data.shape) == 3 and data.shape[1] == data.shape[2]


@torch.no_grad()
def _tried(network: Called, sde: SDE, data: Data, settings: Settings) -> tuple[Variation, Comparison, Untrained | None]:
    """Try a network and all its readings on a few samples, and refuse one that cannot be evaluated as it is described."""
    generator = Generator().manual_seed(derive_seed(NAME, settings.seed))
    described, given, x = _described(sde, data, settings, generator)

    def compared() -> Comparison:
        found = compare_readings(network, described, settings.eps, given, settings.batch_size, generator)
        return found if isinstance(data, Levels) else found.in_nats()

    try:
        variation = check_network(network, sde, settings.kind, x[:SOUND_ON], generator)
    except (ParamsError, DivergenceError) as error:
        # The reason may be the description.
        if (found := compared()).is_better and not found.is_of_other_images:
            raise ParamsError(f"{error}; {found.refusal()}") from error
        raise
    if variation.words() and not settings.allow_varying:
        raise ParamsError(f"network: {variation.words()}; {EVAL}, or allow it by allow_varying")
    # First, because a network without numbers at small times is no better by another reading.
    untrained = _untrained(network, sde, x, data, settings)
    if (found := compared()).is_refused:
        raise ParamsError(f"network: {found.refusal()}")
    return variation, found, untrained


def _described(sde: SDE, data: Data, settings: Settings, generator: Generator) -> tuple[Reading, Tensor, Tensor]:
    """Return the description, a few samples as readings take them, and the same as the network sees them."""
    if not isinstance(data, Levels):
        x = data.inputs(slice(TRIED_ON), generator, torch.device(settings.device))
        return Reading(settings.kind, sde, None, second=settings.second), x, x
    low, high = data.ends
    if low.dim() or high.dim():
        # Readings have one range for all channels.
        x = data.inputs(slice(TRIED_ON), generator, torch.device(settings.device))
        return Reading(settings.kind, sde, None, second=settings.second), x, x
    described = Reading(settings.kind, sde, (float(low), float(high)), second=settings.second)
    centred = dequantise(data.pixels[:TRIED_ON], data.levels, generator).to(settings.device)
    return described, centred, described.scaled(centred)


def _untrained(network: Called, sde: SDE, x: Tensor, data: Data, settings: Settings) -> Untrained | None:
    """Return the small times that should be left out, if there are any.

    Raises:
        ParamsError: if the network gives no numbers there.
    """
    generator = Generator().manual_seed(derive_seed(NAME, settings.seed, "untrained"))
    found = find_untrained(_in_batches(network, sde, settings), sde, settings.eps, x, generator)
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


def _in_batches(network: Called, sde: SDE, settings: Settings) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a noise prediction for the first samples that calls the network with at most so many."""

    def predict(z: Tensor, t: Tensor) -> Tensor:
        found = []
        for start in range(0, len(z), settings.batch_size):
            part = slice(start, min(start + settings.batch_size, len(z)))
            noise: NoiseFn = noise_fn(network.of(part), sde, settings.kind, settings.second)
            found.append(noise(z[part], t[part]))
        return torch.cat(found)

    return predict
