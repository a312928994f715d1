"""A diffusion by its name, or by a scheduler of diffusers: what both tell about the call of the network."""

from dataclasses import dataclass
from typing import Any

import torch

from indm.diffusion.sde import SDE, build_sde
from indm.errors import ParamsError
from indm.foreign.kinds import ALIASES
from indm.foreign.tabulated import Tabulated, cosine_table, sigmoid_table

NAMES = {"vp": ("beta_min", "beta_max"), "ve": ("sigma_min", "sigma_max"), "cosine": (), "sigmoid": ()}
"""Diffusions by name, with their two numbers."""
TABLES = {"cosine": cosine_table, "sigmoid": sigmoid_table}
"""Those with a table of 1,000 steps."""


@dataclass(frozen=True)
class Found:
    """A diffusion, and what is known of the network's call.

    Arguments:
        sde: the diffusion.
        kind: the kind of network, ``None`` if unknown.
        second: its second argument, ``None`` for the one of its kind.
        eps: the time from which on the network is trained, ``None`` if unknown.
    """

    sde: SDE
    kind: str | None = None
    second: str | None = None
    eps: float | None = None


def find_diffusion(sde: Any) -> Found:
    """Return a diffusion from its name, a scheduler of diffusers, or itself.

    A scheduler, or another object, with ``alphas_cumprod`` has N steps, and its network gets the step :math:`N t - 1` at the time
    t. One with ``sigmas`` up to 1 is a straight path, whose network gets :math:`N \\tau`.

    Raises:
        ParamsError: if a scheduler has neither, or its table does not fall inside of 0 and 1.
    """
    if isinstance(sde, str) and sde in NAMES:
        return Found(named(sde))
    config = getattr(sde, "config", None)
    prediction, count = (_get(config, name) for name in ("prediction_type", "num_train_timesteps"))
    if (table := getattr(sde, "alphas_cumprod", None)) is not None:
        tabulated = Tabulated(table)
        kind = _kind(prediction) if prediction else None
        return Found(tabulated, kind, f"{tabulated.steps}*t-1", tabulated.first)
    if count and isinstance(sigmas := getattr(sde, "sigmas", None), torch.Tensor) and float(sigmas.max()) <= 1:
        return Found(build_sde("vp"), "velocity", f"{count}*t", 1 / count)
    return Found(sde)


def named(name: str, *numbers: float) -> SDE:
    """Build a diffusion by its name, and by its two numbers or their defaults."""
    if name in TABLES:
        return Tabulated(TABLES[name](1000))
    return build_sde(name, **dict(zip(NAMES[name], numbers, strict=False)))


def _kind(prediction: str) -> str:
    if prediction not in ALIASES:
        known = ", ".join(ALIASES)
        raise ParamsError(
            f"sde: found a scheduler with prediction_type {prediction!r}, expected one of: {known}; pass kind"
        )
    return ALIASES[prediction]


def _get(config: Any, name: str) -> Any:
    """Return an entry of a configuration, which may be a mapping or an object; ``None`` if it has none."""
    return config.get(name) if hasattr(config, "get") else getattr(config, name, None)
