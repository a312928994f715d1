"""A network by the name of its module and function, and a diffusion by the numbers of a command line."""

import importlib
import sys

from indm.diffusion.sde import SDE, build_sde
from indm.errors import ParamsError
from indm.foreign.conventions import Network

ENDS = {"vp": ("beta_min", "beta_max"), "ve": ("sigma_min", "sigma_max")}


def find_network(name: str) -> Network:
    """Import a network; its module may lie in the current folder.

    Raises:
        ParamsError: if there is no such function.
    """
    module, _, function = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ParamsError(f"network {name}: found {error}, expected MODULE:FUNCTION, such as my_model:score") from error


def find_sde(name: str, ends: tuple[float, float] | None) -> SDE:
    """Build a diffusion from its two numbers, or from their defaults.

    Raises:
        ParamsError: if the first number is not above 0 and below the second one.
    """
    if ends is not None and not 0 < ends[0] < ends[1]:
        raise ParamsError(f"ends: found {ends[0]:g} {ends[1]:g}, expected two positive numbers, the smaller one first")
    return build_sde(name, **dict(zip(ENDS[name], ends or (), strict=False)))
