"""The figure of the ladder from DDPM++ up to INDM: the effect of each variant on images."""

import re
from textwrap import fill
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from indm.report.catalogue import PLACE
from indm.report.columns import heading
from indm.report.intervals import STUDENT, half_widths, named_bars
from indm.report.names import REFERENCE, arm, cell_name, name
from indm.report.plotting import GRID, INK, SOFT, WIDTH, label_rows, note, plot_interval, style_of

# An interval this many times as wide as the metric's narrow ones is written as text, because drawing it would squeeze the others.
# The lower quartile counts as narrow, because most rows may be wide, and a single one may be narrow by chance.
WILD = 400.0
# Prefixes of metrics whose smaller values are better, unlike gaps, which may be below 0.
LOWER_IS_BETTER = ("nelbo", "nll", "log_fid", "kid")
# The units of differences; those of the other metrics are bits/dim.
UNITS = {"log_fid_difference": "log ratio", "kid_difference": "KID"}
# Absent if the suite leaves the ODE out.
OF_ODE = ("nll_difference", "gap_difference")
# Variants in order: first the ones that do not adapt the scale of their latent.
RUNGS = ["", "same-compute", "same-parameters", "reconstruction", "normalised-input", "learned-range", "standardised"]
RUNGS += [
    "v-prediction",
    "scale",
    "fixed-scale",
    "fixed-curve",
    "fixed-filter",
    "fixed-curve-filter",
    "learned-scale",
    "learned-affine",
    "learned-linear",
    "learned-filter",
    "learned-curve",
]
RUNGS += ["learned-curve-filter", "frozen-flow"]


def ablation(table: pd.DataFrame, claims: pd.DataFrame) -> Figure:
    """Draw each model's difference from the baseline with its interval, INDM first: one column per metric.

    The claims have the smallest effect that counts in each unit; a unit without claims, such as KID, is not shaded.
    """
    absent = [column for column in OF_ODE if column in table and table[column].isna().all()]
    metrics = [column for column in map(str, table) if column.endswith("_difference") and column not in absent]
    compared = table[table[metrics].notna().any(axis=1)].assign(seeds=lambda rows: rows["pairs"].astype(int))
    cells = zip(compared["model"], compared["variant"], strict=True)
    order = pd.Series([(cell[0] == REFERENCE, rung(cell)) for cell in cells], compared.index, dtype=object)
    units = {metric: UNITS.get(metric, "bits/dim") for metric in metrics}
    smallest = claims.groupby("unit")["smallest_effect"].max()
    groups = compared.assign(rung=order).groupby(PLACE, sort=False)
    parts = [(group, part.sort_values("rung", kind="stable")) for group, part in groups]
    # The name of a group is rotated and needs this height.
    heights = [max(0.2 * len(part) + 0.5, 1.2) for _, part in parts]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.7))
    axes = figure.subplots(len(parts), len(units), squeeze=False, sharey="row", height_ratios=heights)
    written = False
    for row, (group, part) in zip(axes, parts, strict=True):
        for axis, (metric, unit) in zip(row, units.items(), strict=True):
            written |= _points(axis, part, metric)
            axis.xaxis.set_major_locator(MaxNLocator(3))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.grid(axis="y", visible=False)
            axis.axvline(0, color=INK, linewidth=0.8)
            if unit in smallest:
                axis.axvspan(-smallest[unit], smallest[unit], color=GRID, alpha=0.35, linewidth=0)
        row[0].set_ylabel(fill(cell_name(*map(str, group)), 20))
        label_rows(row[0], [arm(*cell) for cell in zip(part["model"], part["variant"], strict=True)])
    for top, bottom, (metric, unit) in zip(axes[0], axes[-1], units.items(), strict=True):
        top.set_title(heading(metric.removesuffix("_difference")))
        bottom.set_xlabel(f"{unit}\n← better" if metric.startswith(LOWER_IS_BETTER) else unit)
    wide = " A number with ±: its interval is too wide to be drawn." if written else ""
    zero = f"0: the plain {name(REFERENCE)}. Shaded: too small to count. Dotted: INDM.{wide}"
    return note(figure, f"{named_bars({STUDENT: compared['seeds']})} {zero}")


def rung(cell: tuple[str, str]) -> tuple[bool, str, int, str, float]:
    """Place a model and variant on the ladder from DDPM++ up, whose rungs learn more and more of the latent."""
    model, variant = cell
    fixed = re.fullmatch(r"scale-(\d+(?:\.\d+)?)", variant)
    scale, whole = (float(fixed[1]), "scale") if fixed else (0.0, variant)
    order = RUNGS.index(whole) if whole in RUNGS else len(RUNGS)
    return model != REFERENCE, model, order, whole, scale


def _points(axis: Axes, table: pd.DataFrame, metric: str) -> bool:
    """Draw a metric's values, one per row of the table, with intervals over seeds; return whether any number is text."""
    bars = half_widths(table[f"{metric}_se"], table["seeds"])
    wild = bars > WILD * bars[bars > 0].quantile(0.25)
    for value in table.loc[(table["model"] != REFERENCE) & (table["variant"] == ""), metric].dropna():
        axis.axvline(value, color=SOFT, linewidth=0.8, linestyle=":")
    cells = zip(table["model"], table["variant"], strict=True)
    for place, (cell, value, bar, far) in enumerate(zip(cells, table[metric], bars, wild, strict=True)):
        if far:
            middle: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "ha": "center", "va": "center"}
            axis.annotate(f"{value:.3g} ± {bar:.2g}".replace("-", "−"), (0.5, place), **middle)
            continue
        plot_interval(axis, place, value, (value - bar, value + bar), style_of(*cell))
    return bool(wild.any())
