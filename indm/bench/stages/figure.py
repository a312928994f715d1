"""Stage ``figure``: the suite's figures, from its tables."""

from pathlib import Path
from typing import TYPE_CHECKING

from indm.report.figures import plot_figures
from indm.report.figures_toy2d import toy2d_figure
from indm.store.files import atomic_write, read_arrays, refuse_link
from indm.store.layout import Layout
from indm.store.provenance import Finished

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite


def run(suite: "Suite", layout: Layout, reports: Path) -> Finished:
    """Write ``figures/<name>.svg`` for every figure whose table has a number, and remove figures of earlier tables."""
    folder = reports / suite.suite / "figures"
    for place in (folder.parent, folder):
        refuse_link(place)
    folder.mkdir(parents=True, exist_ok=True)
    figures = plot_figures(layout.tables)
    for name, job in suite.toy2d.datasets.items():
        arrays = read_arrays(layout.toy2d / f"{name}.safetensors")
        if job.is_plane and f"toy2d-{job.label}" not in figures:
            figures[f"toy2d-{job.label}"] = toy2d_figure(arrays)
    for path in folder.glob("*.svg"):
        if path.stem not in figures:
            path.unlink()
    for name, svg in figures.items():
        with atomic_write(folder / f"{name}.svg") as file:
            file.write(svg)
    return Finished(folder.parent)
