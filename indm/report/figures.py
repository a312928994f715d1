"""Figures from the suite's tables, as SVG files whose bytes are reproducible."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from indm.measured import BAND_METRICS
from indm.report.figures_claims import claims, known_claims
from indm.report.figures_ladder import ablation
from indm.report.figures_lines import (
    GAINS,
    bands,
    discretization,
    error_compute,
    flow,
    learning_curve_flops,
    learning_curve_step,
)
from indm.report.figures_tuning import tuning
from indm.report.intervals import OVER_MANY
from indm.report.names import arm
from indm.report.plotting import INK, STYLE, WIDTH, label_rows, note, plot_interval, style_of, styled, to_svg
from indm.report.rows import read_rows

# The row from which the others deviate, and the names of deviations.
BASE = "base"
DEVIATIONS = {
    "num_samples": "{} images",
    "reference": "against the {} split",
    "implementation": "{}",
    "rounding": "pixels: {}",
    "denoise": "denoise: {}",
    "weights": "weights: {}",
}


@dataclass(frozen=True)
class Plot:
    """A figure: the table and the column that it shows, its function, further tables, and a query that selects its rows."""

    table: str
    value: str
    draw: Callable[..., Figure]
    beside: tuple[str, ...] = ()
    of: str = ""


def plot_figures(tables: Path) -> dict[str, bytes]:
    """Draw every figure whose table exists and has a number to show, as SVG by its name."""
    figures = {}
    for figure, drawing in FIGURES.items():
        table = _read(tables / f"{drawing.table}.csv")
        rows = table.query(drawing.of) if drawing.of and len(table) else table
        if len(rows) and drawing.value in rows and rows[drawing.value].notna().any():
            with styled(STYLE):
                beside = (_read(tables / f"{name}.csv") for name in drawing.beside)
                figures[figure] = to_svg(drawing.draw(rows, *beside))
    return figures


def protocol(table: pd.DataFrame) -> Figure:
    """Draw the change in FID for each deviation from the suite's protocol, one panel per dataset."""
    panels = list(table[table["factor"] != BASE].dropna(subset=["difference"]).groupby("dataset", sort=False))
    heights = [len(part) + 2.8 for _, part in panels]
    figure = Figure(figsize=(WIDTH, 0.23 * sum(heights) + 0.3))
    axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for axis, (title, part) in zip(axes, panels, strict=True):
        model, variant = ("" if pd.isna(text) else str(text) for text in part[["model", "variant"]].iloc[0])
        axis.set_title(f"{title}, {arm(model, variant)}", loc="left", fontweight="bold")
        errors = OVER_MANY * part["difference_image_se"]
        for place, (value, bar) in enumerate(zip(part["difference"], errors, strict=True)):
            plot_interval(axis, place, value, (value - bar, value + bar), style_of(model, variant))
        cells = zip(part["factor"], part["setting"], strict=True)
        label_rows(axis, [DEVIATIONS[factor].format(setting) for factor, setting in cells])
        axis.axvline(0, color=INK, linewidth=0.8)
        axis.set_xlabel("FID, difference from the suite’s protocol (left of 0: lower)")
    return note(figure, "Error bars: 95 % interval over images, of one run.")


# Claims about INDM whose effects can be divided by a smallest effect.
DRAWN = "treatment == 'indm' and smallest_effect > 0"
SEEDS = ("differences",)
FIGURES = {
    "claims": Plot("claims", "effect", claims, SEEDS, f"family == 'primary' and sde != '' and {DRAWN}"),
    "claims-exploratory": Plot("claims", "effect", claims, SEEDS, f"family != 'primary' and sde != '' and {DRAWN}"),
    "claims-known": Plot("claims", "effect", known_claims, SEEDS, f"family == 'primary' and sde == '' and {DRAWN}"),
    "discretization": Plot("discretization", "fid", discretization),
    "learning-curve-flops": Plot("learning_curve", "nelbo", learning_curve_flops),
    "learning-curve-step": Plot("learning_curve", "nelbo", learning_curve_step),
    "flow": Plot("flow", GAINS[0], flow),
    "bands": Plot("flow", BAND_METRICS[0], bands),
    "ablation": Plot("ablation", "nelbo_difference", ablation, ("claims",)),
    "error-compute": Plot("toy2d", "nelbo_excess", error_compute),
    "tuning": Plot("tuning", "target", tuning, ("tuned",)),
    "protocol": Plot("protocol", "difference", protocol),
}


def _read(path: Path) -> pd.DataFrame:
    """Read a table; a missing one gives no rows, and the page names it."""
    return read_rows(path) if path.is_file() else pd.DataFrame()
