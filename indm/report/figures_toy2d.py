"""Figures of the two-dimensional data, from the arrays of the ``toy2d`` stage: rows for DDPM++, its controls, and INDM."""

from collections.abc import Mapping
from io import BytesIO
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from indm.report.names import REFERENCE, TREATMENT, arm
from indm.report.plotting import BLUE, INK, VERMILLION, on_ground, styled
from indm.variants import SAME_COMPUTE

Arrays = Mapping[str, NDArray[Any]]
# In the order of the rows; (model, variant) as in the toy2d stage.
MODELS = (
    *((REFERENCE, variant) for variant in ("", SAME_COMPUTE, "best-scale", "learned-linear")),
    (TREATMENT, ""),
)
# Letters of a line of a row's name.
LETTERS = 10
# The toy2d stage writes the arrays of its first seed.
NOTE = (
    "One model each, of the first seed: no error bars. Points beyond a frame are not shown; drift and noise are drawn"
    " larger; each density has its own scale."
)
# Thousands of points, arrows and paths are rasterized, because as shapes they would make up most of the page's size.
DOTS_PER_INCH = 110
GREY = "#999999"
STYLE: Any = {
    "svg.hashsalt": "indm",
    "svg.fonttype": "path",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.linewidth": 0.5,
    "savefig.transparent": True,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), INK),
}


def toy2d_figure(arrays: Arrays) -> bytes:
    """Draw a row of panels for each model: data, forward diffusion, drift and volatility, paths of the reverse ODE, density.

    The arrays are ``data`` (N, 2), ``times`` (K,), ``limit``, ``arrows`` (A, 2), and for models of :data:`MODELS`, below
    ``<model>/<variant>/``, ``clouds`` (K, B, 2), ``paths`` (P, C, 2), ``log_density`` (G^2,), ``drift`` (A, 2) and ``volatility``
    (A, 2, 2). The same ones give the same bytes of SVG.
    """
    times = arrays["times"]
    models = [cell for cell in MODELS if f"{'/'.join(cell)}/paths" in arrays]
    with styled(STYLE):
        columns = 3 + len(times)
        figure = Figure(figsize=(1.5 * columns, 1.55 * len(models) + 0.1))
        grid = figure.subplots(len(models), columns, squeeze=False, gridspec_kw={"wspace": 0.06, "hspace": 0.06})
        for row, (model, variant) in zip(grid, models, strict=True):
            keys = ("clouds", "paths", "log_density", "drift", "volatility")
            part = {key: arrays[f"{model}/{variant}/{key}"] for key in keys}
            _clouds(row[: len(times)], part["clouds"], arrays["data"])
            _field(row[-3], arrays["arrows"], part["drift"], part["volatility"])
            _paths(row[-2], part["paths"])
            _density(row[-1], part["log_density"], float(arrays["limit"]))
            row[0].set_ylabel(fill(arm(model, variant), LETTERS))
        titles = ["data", *(f"forward, t = {time:.2g}" for time in times[1:])]
        for axes, title in zip(grid[0], [*titles, "drift and noise", "reverse ODE", "density at t = 0"], strict=True):
            axes.set_title(title)
        for axes in grid.flat:
            _frame(axes, float(arrays["limit"]))
        for axes in grid[:, -3]:
            _frame(axes, 1.12 * float(np.abs(arrays["arrows"]).max()))
        figure.text(grid[-1, 0].get_position().x0, 0.08, NOTE)
        buffer = BytesIO()
        figure.savefig(
            buffer, format="svg", dpi=DOTS_PER_INCH, bbox_inches="tight", metadata={"Date": None, "Description": NOTE}
        )
    return on_ground(buffer.getvalue())


def _frame(axes: Axes, limit: float) -> None:
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[], aspect="equal")


def _clouds(row: NDArray[Any], clouds: NDArray[Any], data: NDArray[Any]) -> None:
    """Show the points at each time (K, B, 2), coloured by their horizontal position in the data."""
    start = data[: clouds.shape[1], 0]
    for axes, cloud in zip(row, clouds, strict=False):
        axes.scatter(
            cloud[:, 0], cloud[:, 1], c=start, cmap="plasma", vmax=1.2 * start.max(), s=2, linewidths=0, rasterized=True
        )


def _field(axes: Axes, points: NDArray[Any], drift: NDArray[Any], volatility: NDArray[Any]) -> None:
    """Show the directions of the forward drift, their lengths compressed, over the shape of the noise."""
    left, lengths, _ = np.linalg.svd(volatility)
    angle = np.degrees(np.arctan2(left[:, 1, 0], left[:, 0, 0]))
    size = 0.06 * np.minimum(lengths / np.median(lengths), 2.5)
    style: dict[str, Any] = {"facecolors": VERMILLION, "alpha": 0.4, "linewidths": 0, "rasterized": True}
    place: dict[str, Any] = {"units": "xy", "offsets": points, "offset_transform": axes.transData}
    axes.add_collection(EllipseCollection(2 * size[:, 0], 2 * size[:, 1], angle, **place, **style))
    norm = np.linalg.norm(drift, axis=1, keepdims=True)
    arrows = drift / np.maximum(norm, np.finfo(norm.dtype).tiny) * 0.22 * np.tanh(norm / np.median(norm))
    scale: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.009, "headwidth": 3.5}
    axes.quiver(*points.T, *arrows.T, color=BLUE, rasterized=True, **scale)


def _paths(axes: Axes, paths: NDArray[Any]) -> None:
    """Show paths (P, C, 2) from the prior (grey) to the data (orange)."""
    axes.plot(paths[..., 0], paths[..., 1], color=BLUE, linewidth=0.5, alpha=0.7, rasterized=True)
    axes.scatter(paths[0, :, 0], paths[0, :, 1], s=5, color=GREY, linewidths=0)
    axes.scatter(paths[-1, :, 0], paths[-1, :, 1], s=5, color=VERMILLION, linewidths=0, zorder=3)


def _density(axes: Axes, log_density: NDArray[Any], limit: float) -> None:
    """Show a density; unknown values stay blank."""
    side = round(len(log_density) ** 0.5)
    density = np.exp(log_density.reshape(side, side))
    top = np.nanquantile(density, 0.995)
    axes.imshow(density, origin="lower", extent=(-limit, limit, -limit, limit), cmap="viridis", vmin=0, vmax=top)
