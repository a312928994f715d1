"""A network by the name of its module and function, and a diffusion by the numbers of a command line or by its name."""

import importlib
import sys
from typing import Any

from indm.diffusion.sde import SDE
from indm.errors import ParamsError
from indm.foreign.conventions import Network
from indm.foreign.schedulers import NAMES, named


def find_network(name: str) -> Network:
    """Import a network; its module may lie in the current folder.

    Raises:
        ParamsError: if there is no such function.
    """
    return _named("network", name, "MODULE:FUNCTION, such as my_model:score")


def find_sde(name: str, ends: tuple[float, float] | None) -> SDE:
    """Build a diffusion from its two numbers, or from their defaults, or import somebody's own, such as one with a table.

    Raises:
        ParamsError: if the first number is not above 0 and below the second one, there is no such diffusion, or its own diffusion
            has ends already.
    """
    if not NAMES.get(name):
        if ends is not None:
            raise ParamsError(f"ends: found {ends[0]:g} {ends[1]:g} with sde {name}, expected vp or ve with them")
        if name in NAMES:
            return named(name)
        return _named("sde", name, f"{', '.join(NAMES)}, or MODULE:NAME, such as my_model:sde")
    if ends is not None and not 0 < ends[0] < ends[1]:
        raise ParamsError(f"ends: found {ends[0]:g} {ends[1]:g}, expected two positive numbers, the smaller one first")
    return named(name, *(ends or ()))


def _named(what: str, name: str, expected: str) -> Any:
    """Import what somebody's module calls by a name."""
    module, _, attribute = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ParamsError(f"{what} {name}: found {error}, expected {expected}") from error
