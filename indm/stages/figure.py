"""Stage ``figure``: the suite's figures, from its tables."""

from pathlib import Path
from typing import TYPE_CHECKING

from indm.artifacts import Layout, atomic_write
from indm.report.figures import draw_figures

if TYPE_CHECKING:
    from indm.params import Suite


def run(suite: "Suite", layout: Layout, reports: Path) -> Path:
    """Write ``figures/<name>.svg`` of every figure whose table has a number, and remove those of earlier tables."""
    folder = reports / suite.suite / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    figures = draw_figures(layout.tables)
    # Panels of 2-D data join here, named "toy2d-<dataset>": the page shows every figure of such a name.
    for path in folder.glob("*.svg"):
        if path.stem not in figures:
            path.unlink()
    for name, svg in figures.items():
        with atomic_write(folder / f"{name}.svg") as file:
            file.write(svg)
    return folder.parent
