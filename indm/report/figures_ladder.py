"""Figures of the ladder from DDPM++ up to INDM: the models of the 2-D studies, and the effect of each variant on images."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from indm.report.intervals import STUDENT, half_widths, named_bars
from indm.report.names import REFERENCE, heading, name, names
from indm.report.palette import INK
from indm.report.plotting import GROUP, PLAIN, WIDTH, label_rows, note, plot_interval

# An interval this many times as wide as the metric's narrow ones is written as text, because drawing it would squeeze the others.
# The lower quartile counts as narrow, because most rows may be wide, and a single one may be narrow by chance.
WILD = 400.0
# Variants in order: first the ones that do not adapt the scale of their latent.
RUNGS = [
    "",
    "same-compute",
    "same-parameters",
    "reconstruction",
    "normalised-input",
    "learned-range",
    "standardised",
    "scale",
    "learned-scale",
    "learned-affine",
    "learned-linear",
    "frozen-flow",
]


def ladder(table: pd.DataFrame) -> Figure:
    """Draw the models of the 2-D studies from DDPM++ up to INDM: one row per dataset, one column per metric."""
    table = table[table["nelbo"].notna()]
    distances = [column for column in map(str, table) if re.fullmatch(r"w1_\d+", column)][:1]
    units = {"nelbo": "nats", "nll": "nats", "gap": "nats", **dict.fromkeys(distances, "data units")}
    units |= {"path_ratio": "length / displacement", "latent_std": "latent units"}
    units = {metric: unit for metric, unit in units.items() if metric in table}
    figure, written = _climb(table.groupby(["dataset"], sort=False), units)
    wide = " A number with ±: its interval is too wide to be drawn." if written else ""
    return note(figure, f"{named_bars({STUDENT: table['seeds']})}{wide}")


def ablation(table: pd.DataFrame) -> Figure:
    """Draw each variant's difference from the baseline with its interval: one column per metric, in the order of the ladder."""
    metrics = [column for column in map(str, table) if column.endswith("_difference")]
    compared = table[table[metrics].notna().any(axis=1)].assign(seeds=lambda rows: rows["pairs"].astype(int))
    units = {metric: "log ratio" if metric == "log_fid_difference" else "bits/dim" for metric in metrics}
    figure, written = _climb(compared.groupby(GROUP, sort=False), units)
    for axis in figure.axes:
        axis.axvline(0, color=INK, linewidth=0.8)
    wide = " A number with ±: its interval is too wide to be drawn." if written else ""
    bars = named_bars({STUDENT: compared["seeds"]})
    return note(figure, f"{bars} Left of 0: smaller than the plain {name(REFERENCE)}’s.{wide}")


def _climb(groups: Iterable[tuple[Any, pd.DataFrame]], units: Mapping[str, str]) -> tuple[Figure, bool]:
    """Draw one row of panels per group and one column per metric, from DDPM++ up to INDM; return whether any number is text."""
    parts = [(group, part.iloc[_by_rung(part)]) for group, part in groups]
    # The name of a group is rotated and needs this height.
    heights = [max(0.2 * len(part) + 0.5, 1.2) for _, part in parts]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.7))
    axes = figure.subplots(len(parts), len(units), squeeze=False, sharey="row", height_ratios=heights)
    written = False
    for row, (group, part) in zip(axes, parts, strict=True):
        for axis, metric in zip(row, units, strict=True):
            written |= _points(axis, part, metric)
            axis.xaxis.set_major_locator(MaxNLocator(3))
            axis.grid(axis="y", visible=False)
        row[0].set_ylabel(names(*group))
        label_rows(row[0], [names(*cell) for cell in zip(part["model"], part["variant"], strict=True)])
    for top, bottom, (metric, unit) in zip(axes[0], axes[-1], units.items(), strict=True):
        top.set_title(heading(metric.removesuffix("_difference")))
        bottom.set_xlabel(unit)
    return figure, written


def _by_rung(table: pd.DataFrame) -> list[int]:
    cells = list(zip(table["model"], table["variant"], strict=True))
    return sorted(range(len(cells)), key=lambda place: rung(cells[place]))


def rung(cell: tuple[str, str]) -> tuple[bool, str, int, str, float]:
    """Place a model and variant on the ladder from DDPM++ up, whose rungs learn more and more of the latent.

    Returns:
        The sort key.
    """
    model, variant = cell
    fixed = re.fullmatch(r"scale-(\d+(?:\.\d+)?)", variant)
    scale, whole = (float(fixed[1]), "scale") if fixed else (0.0, variant)
    order = RUNGS.index(whole) if whole in RUNGS else len(RUNGS)
    return model != REFERENCE, model, order, whole, scale


def _points(axis: Axes, table: pd.DataFrame, metric: str) -> bool:
    """Draw a metric's values, one per row of the table, with intervals over seeds; return whether any number is text."""
    bars = half_widths(table[f"{metric}_se"], table["seeds"])
    wild = bars > WILD * bars[bars > 0].quantile(0.25)
    rows = zip(table["model"], table[metric], bars, wild, strict=True)
    for place, (model, value, bar, far) in enumerate(rows):
        if far:
            middle: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "ha": "center", "va": "center"}
            axis.annotate(f"{value:.3g} ± {bar:.2g}".replace("-", "−"), (0.5, place), **middle)
            continue
        plot_interval(axis, place, value, (value - bar, value + bar), PLAIN[model])
    return bool(wild.any())
