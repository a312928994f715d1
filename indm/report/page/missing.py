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
    return Missing(path, "missing", f"snakemake --cores all --config suite={suite} -- {target}")


def missing_figure(suite: str, folder: Path, figure: str) -> Missing:
    reason = "not drawn yet, or its table has no number to draw"
    return Missing(folder / f"{figure}.svg", reason, missing(suite, folder, folder).remedy)
