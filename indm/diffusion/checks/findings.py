"""Words for a number that breaks the contract: what was found, what is expected, and where."""

from torch import Tensor

from indm.diffusion.checks.points import Points


def differ(found: Tensor, expected: Tensor, tolerance: float) -> Tensor:
    """Return for each sample whether an entry is farther off than the tolerance times 1 plus its size: (N, *) to bool (N,).

    NaN is farther off than any tolerance, and so is everything where infinity is expected.
    """
    close = ((found - expected).abs() <= tolerance * (1 + expected.abs())) & expected.isfinite()
    return ~close.reshape(len(close), -1).all(1)


def where(at: Points, off: Tensor) -> str:
    """Return where the first of the wrong points lies; ``off``, bool, shape (N,), marks the wrong points."""
    return f"at A = {at.a[off][0].item():.3g}"


def mismatch(name: str, found: Tensor, rest: str, at: Points, off: Tensor) -> str:
    """Return a line about the first of the wrong points, from what was found there, (N, *), and ``off``, bool, (N,)."""
    return f"{name}: found {entry(found, off)} {rest}, {where(at, off)}"


def entry(values: Tensor, off: Tensor) -> str:
    """Return the first entry of values (N, *) at the first of the wrong points, which ``off``, bool, (N,), marks."""
    return f"{values[off][0].flatten()[0].item():.6g}"
