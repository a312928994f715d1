"""The arguments of the referee, checked before any work."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch

from indm.arguments import COUNT, SEED, Range, check_finite, check_number, find_device, shown
from indm.diffusion.sde import SDE, T
from indm.errors import DataError, ParamsError
from indm.foreign.conventions import find_second, own_second
from indm.foreign.kinds import ALIASES, GRIDS, KINDS, SECONDS, Grid
from indm.foreign.levels import LEVELS

DataRange = tuple[float | Sequence[float], float | Sequence[float]]
"""Both ends to which images are scaled, each a number, or a number for each channel."""
# Bases of the control variate.
CONTROLS = ("pixels", "cosine")
STEPS = Range(Integral, 2, 10**6)
# As in suites.
EPS = Range(Real, 1e-9, 0.1)
# What the evaluation calls of a diffusion.
CALLED = ("alpha", "sigma", "log_snr", "drift", "diffusion", "antiderivative", "time", "divergence_integral")


@dataclass(frozen=True)
class Settings:
    """The arguments of :func:`~indm.foreign.likelihood.referee` besides the network, its diffusion and the images."""

    kind: str
    second: str | None
    levels: int | None
    centered: bool
    data_range: DataRange | None
    eps: float
    claimed: float | None
    time_draws: int
    ode_steps: int
    batch_size: int
    seed: int
    device: str | torch.device
    allow_varying: bool
    control: Literal["pixels", "cosine"] | None
    steps: int | None
    grid: Grid
    progress: bool


def checked(given: Settings) -> Settings:
    """Return the settings, if each is what it should be; the kind by its name in :data:`~indm.foreign.kinds.KINDS`.

    Raises:
        ParamsError: if one is not; the message names the argument.
        DataError: if this machine has no such device.
    """
    kind = ALIASES.get(given.kind, given.kind) if isinstance(given.kind, str) else given.kind
    if not isinstance(kind, str) or kind not in KINDS:
        also = ", ".join(f"{alias} ({name})" for alias, name in ALIASES.items())
        raise ParamsError(f"kind: found {shown(given.kind)}, expected one of: {', '.join(KINDS)}; or {also}")
    if given.control is not None and given.control not in CONTROLS:
        raise ParamsError(f"control: found {shown(given.control)}, expected one of: {', '.join(CONTROLS)}")
    for name in ("centered", "allow_varying", "progress"):
        if not isinstance(value := getattr(given, name), bool):
            raise ParamsError(f"{name}: found {shown(value)}, expected True or False")
    if given.grid not in GRIDS:
        raise ParamsError(f"grid: found {shown(given.grid)}, expected one of: {', '.join(GRIDS)}")
    _check_continuous(given)
    counts = {
        name: check_number(name, getattr(given, name), COUNT) for name in ("time_draws", "ode_steps", "batch_size")
    }
    return dataclasses.replace(
        given,
        kind=kind,
        second=_second(given.second, kind),
        levels=None if given.levels is None else check_number("levels", given.levels, LEVELS),
        steps=None if given.steps is None else check_number("steps", given.steps, STEPS),
        data_range=_range(given),
        eps=check_number("eps", given.eps, EPS),
        claimed=None if given.claimed is None else check_finite("claimed", given.claimed),
        seed=check_number("seed", given.seed, SEED),
        device=find_device(given.device),
        **counts,
    )


def _check_continuous(given: Settings) -> None:
    """Refuse arguments that only levels have."""
    if given.levels is not None:
        return
    for name, expected in (("steps", None), ("centered", True), ("data_range", None)):
        if (found := getattr(given, name)) is not expected:
            raise ParamsError(
                f"{name}: found {shown(found)} with levels=None, expected {expected}, because continuous data are not scaled, and "
                "have no decoder of levels"
            )


def _second(second: Any, kind: str) -> str | None:
    """Return what the network gets as its second argument, ``None`` if it is the one of its kind."""
    if second is None:
        return None
    if not isinstance(second, str) or find_second(second) is None:
        expected = ", ".join(SECONDS)
        raise ParamsError(f"second: found {shown(second)}, expected one of: {expected}; N*t, N*t-1 or (N*t).long()")
    return None if second == own_second(kind) else second


def _range(given: Settings) -> DataRange | None:
    """Return both ends of the range, if they are numbers, or numbers for each channel, and the first one is lower."""
    if given.levels is None:
        return None
    if given.data_range is None:
        return (-1.0, 1.0) if given.centered else (0.0, 1.0)
    try:
        low, high = (np.asarray(end, np.float64) for end in given.data_range)
        is_range = max(low.ndim, high.ndim) < 2 and bool(np.isfinite(low).all() and np.isfinite(high).all())
        is_range = is_range and bool((low < high).all())
    except (TypeError, ValueError):
        is_range = False
    if not is_range or not given.centered:
        raise ParamsError(
            f"data_range: found {shown(given.data_range)} with centered={given.centered}, expected two numbers, the lower one "
            "first, or two lists with a number for each channel, and centered=True"
        )
    return low.tolist(), high.tolist()


def range_tensors(data_range: DataRange, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both ends of the range as tensors that broadcast over samples of a shape (C, *), float64.

    Raises:
        DataError: if there are as many numbers as neither one nor the channels.
    """
    found = []
    for end in data_range:
        tensor = torch.tensor(end, dtype=torch.float64)
        if tensor.dim() and len(tensor) != shape[0]:
            raise DataError(f"data_range: found {len(tensor)} numbers for images {shape}, expected one, or {shape[0]}")
        found.append(tensor.reshape(-1, *[1] * (len(shape) - 1)) if tensor.dim() else tensor)
    return found[0], found[1]


def check_function(network: object) -> None:
    """Refuse a network that cannot be called.

    Raises:
        ParamsError: if it cannot, or is a class.
    """
    if not callable(network) or isinstance(network, type):
        raise ParamsError(f"network: found {shown(network)}, expected a function of an input and a condition")


def check_sde(sde: SDE, eps: float) -> None:
    """Refuse what is not a diffusion, or one whose noise does not grow.

    Raises:
        ParamsError: if it is neither a diffusion nor has more noise at the end than at ``eps``.
    """
    if isinstance(sde, type) or not all(callable(getattr(sde, name, None)) for name in CALLED):
        raise ParamsError(
            f"sde: found {shown(sde)}, expected a diffusion: vp, ve, cosine or sigmoid, a scheduler of diffusers with "
            "alphas_cumprod, or indm.build_sde('vp')"
        )
    times = torch.linspace(eps, T, 11, dtype=torch.float64)
    log_snr = sde.log_snr(times)
    if not log_snr.isfinite().all() or not (log_snr.diff() < 0).all():
        raise ParamsError(
            f"sde: found {shown(sde)}, whose noise does not grow from t = {eps:g} to {T:g}; expected one whose noise does, "
            "such as beta_min=0.1 and beta_max=20, or sigma_min=0.01 and sigma_max=50"
        )
