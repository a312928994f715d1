"""The arguments of the referee, checked before any work."""

import dataclasses
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal

import torch

from indm.arguments import COUNT, SEED, Range, check_finite, check_number, find_device, shown
from indm.diffusion.sde import SDE, T
from indm.errors import ParamsError
from indm.foreign.kinds import GRIDS, KINDS, Grid
from indm.foreign.levels import LEVELS

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
    levels: int | None
    centered: bool
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


def checked(given: Settings) -> Settings:
    """Return the settings, if each is what it should be.

    Raises:
        ParamsError: if one is not; the message names the argument.
        DataError: if this machine has no such device.
    """
    if not isinstance(given.kind, str) or given.kind not in KINDS:
        raise ParamsError(f"kind: found {shown(given.kind)}, expected one of: {', '.join(KINDS)}")
    if given.control is not None and given.control not in CONTROLS:
        raise ParamsError(f"control: found {shown(given.control)}, expected one of: {', '.join(CONTROLS)}")
    for name in ("centered", "allow_varying"):
        if not isinstance(value := getattr(given, name), bool):
            raise ParamsError(f"{name}: found {shown(value)}, expected True or False")
    if given.grid not in GRIDS:
        raise ParamsError(f"grid: found {shown(given.grid)}, expected one of: {', '.join(GRIDS)}")
    if given.levels is None and (given.steps is not None or not given.centered):
        name = "centered" if given.steps is None else "steps"
        raise ParamsError(
            f"{name}: found {shown(getattr(given, name))} with levels=None, expected {'True' if given.steps is None else 'None'}, "
            "because continuous data are not scaled, and have no decoder of levels"
        )
    counts = {
        name: check_number(name, getattr(given, name), COUNT) for name in ("time_draws", "ode_steps", "batch_size")
    }
    return dataclasses.replace(
        given,
        levels=None if given.levels is None else check_number("levels", given.levels, LEVELS),
        steps=None if given.steps is None else check_number("steps", given.steps, STEPS),
        eps=check_number("eps", given.eps, EPS),
        claimed=None if given.claimed is None else check_finite("claimed", given.claimed),
        seed=check_number("seed", given.seed, SEED),
        device=find_device(given.device),
        **counts,
    )


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
            f"sde: found {shown(sde)}, expected a diffusion, such as build_sde('vp') of indm.diffusion.sde"
        )
    times = torch.linspace(eps, T, 11, dtype=torch.float64)
    log_snr = sde.log_snr(times)
    if not log_snr.isfinite().all() or not (log_snr.diff() < 0).all():
        raise ParamsError(
            f"sde: found {shown(sde)}, whose noise does not grow from t = {eps:g} to {T:g}; expected one whose noise does, "
            "such as beta_min=0.1 and beta_max=20, or sigma_min=0.01 and sigma_max=50"
        )
