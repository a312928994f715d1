"""A result that is not there, why, and what makes it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Missing:
    """A result that is not there, why, and what makes it."""

    path: Path
    reason: str
    remedy: str


def missing(suite: str, path: Path, target: Path) -> Missing:
    """Say that a file is not there, and what Snakemake is asked for to make it."""
    return Missing(path, "missing", f"snakemake --cores all --config suite={suite} -- {target}")


def missing_figure(suite: str, folder: Path, figure: str) -> Missing:
    """Say that a figure is not there, which its stage does not draw without numbers."""
    reason = "not drawn yet, or its table has no number to draw"
    return Missing(folder / f"{figure}.svg", reason, missing(suite, folder, folder).remedy)
