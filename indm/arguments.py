"""Arguments of functions that are called from Python: each is checked before any work, and refused on one line."""

import math
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NamedTuple

from indm.errors import DataError, ParamsError

if TYPE_CHECKING:
    import torch


class Range(NamedTuple):
    """The numbers that an argument may have: their kind, and both ends, which are included."""

    kind: type[Integral] | type[Real]
    least: float
    most: float


# As in suites.
COUNT = Range(Integral, 1, 10**9)
SEED = Range(Integral, 0, 2**32 - 1)


def check_number(name: str, found: Any, allowed: Range) -> Any:
    """Return a number as Python's int or float, if it is in its range.

    Raises:
        ParamsError: if it is not; the message names the argument.
    """
    # Python takes True for 1.
    is_number = isinstance(found, allowed.kind) and not isinstance(found, bool)
    if not is_number or not allowed.least <= found <= allowed.most:
        whole = "whole " if allowed.kind is Integral else ""
        raise ParamsError(
            f"{name}: found {shown(found)}, expected a {whole}number from {allowed.least} to {allowed.most}"
        )
    return int(found) if allowed.kind is Integral else float(found)


def check_finite(name: str, found: Any) -> Any:
    """Return a number, if it is a finite real one.

    Raises:
        ParamsError: if it is not.
    """
    if not isinstance(found, Real) or isinstance(found, bool) or not math.isfinite(found):
        raise ParamsError(f"{name}: found {shown(found)}, expected a finite number")
    return float(found)


def find_device(name: "str | torch.device") -> "torch.device":
    """Return the device of a name, if this machine has it.

    Raises:
        DataError: if there is no such device.
    """
    # Imported here, because the command line should not import torch.
    import torch

    try:
        found = torch.device(name) if isinstance(name, str | torch.device) else None
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise DataError(f"device: found {shown(name)}, expected cpu, or cuda with or without a number")
    if found.type == "cuda" and (last := found.index or 0) >= (count := torch.cuda.device_count()):
        raise DataError(f"device {found}: torch sees {count or 'no'} GPU, expected at least {last + 1}; use cpu")
    return found


def shown(value: Any, length: int = 60) -> str:
    """Write a value on one line, and only the beginning of a long one."""
    text = " ".join(repr(value).split())
    return text if len(text) <= length else f"{text[:length]}..."
