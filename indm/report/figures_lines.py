"""Figures of lines: likelihoods during training, errors against compute, FID against sampler steps, gains of flows by frequency.

A panel shows the plain models in bold and a few controls, most of them in thin grey, named next to it in the order of their ends.
Further controls get separate panels, so that a reader distinguishes at most six lines.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from textwrap import fill
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from indm.measured import BAND_METRICS, FLOW_METRICS
from indm.report.catalogue import PLACE
from indm.report.columns import heading
from indm.report.figures_ladder import rung
from indm.report.intervals import FEWEST_SEEDS, STUDENT, half_widths, named_bars
from indm.report.names import REFERENCE, arm, cell_name, name
from indm.report.plotting import COLUMN, GRID, INK, MODELS, SOFT, WIDTH, note, plain_ticks, style_of

# Number of panels in a row, and of controls in a panel.
ABREAST, CONTROLS = 3, 4
HEIGHT = 2.1
# Characters of a line of a vertical label, which a panel of this height has room for.
LABEL = 26
BOLD = {"linewidth": 1.8, "zorder": 3}
# Factor between a single number of steps and the edges of its axis.
SINGLE = 1.5
# Letters of a name's line next to a panel.
LETTERS = 18
# Factor between the places of neighbouring lines on a logarithmic axis of steps.
APART = 1.03
# Of FLOPs, which differ between models, a smaller one.
APART_FLOPS = 1.025
# On an axis of less than a factor of two, an even smaller one, so that equal FLOPs do not look different.
APART_NARROW = 1.006
BESIDE = " Models of equal FLOPs stand beside each other."
# Factor between a number of steps that is too small and the edges of its shading.
SHADE = 1.25
ON_LOGARITHM = " Means and intervals are those of log FID, exponentiated."
TOO_FEW = "\nShaded: fewer steps than the sampler needs: its own error may be what is measured, and no claim uses them."
GAINS = [metric for metric in FLOW_METRICS if metric.startswith("gain")]
Scale = Literal["linear", "log"]


@dataclass(frozen=True, eq=False)
class Panel:
    """A panel: title, label of the vertical axis, the columns for x and y, and the lines (label, rows, style)."""

    title: str
    y_label: str
    x: str
    value: str
    lines: list[tuple[str, pd.DataFrame, dict[str, Any]]]
    y_scale: Scale = "linear"


def discretization(table: pd.DataFrame) -> Figure:
    """Draw FID against sampler steps: one panel per sampler for each dataset, SDE and objective."""
    table = table.dropna(subset=["fid"])
    rows = []
    for group, part in _groups(table):
        label, swept = f"{cell_name(*group)}\nFID, lower is better", [*part.groupby("sampler", sort=False)]
        rows += [
            [
                Panel(name(str(sampler)), label, "steps", "fid", list(_lines(rows, arms)), "log")
                for sampler, rows in swept
            ]
            for arms in _arms(part)
        ]
    figure, axes = _draw(rows, "sampler steps")
    steps = sorted(table["steps"].unique())
    for axis, panel in zip(axes, chain(*rows), strict=True):
        axis.set_xticks(steps, [f"{step:g}" for step in steps])
        axis.xaxis.minorticks_off()
        for step in {step for _, line, _ in panel.lines for step in line.loc[line["sound"] == 0, "steps"]}:
            axis.axvspan(step / SHADE, step * SHADE, facecolor=GRID, alpha=0.4, linewidth=0, zorder=0)
    few = TOO_FEW if (table["sound"] == 0).any() else ""
    return note(figure, named_bars({STUDENT: table["seeds"]}) + ON_LOGARITHM + few)


def learning_curve_step(table: pd.DataFrame) -> Figure:
    """Draw the bound against the training step; also the likelihood and their gap, unless the suite leaves the ODE out."""
    values = ("nelbo", *(value for value in ("nll", "gap") if table[value].notna().any()))
    return _learning_curve(table, values, "step", "training steps")


def learning_curve_flops(table: pd.DataFrame) -> Figure:
    """Draw the bound against training FLOPs, in one narrow column of panels, because the page begins with it."""
    curves, label = _scaled(table)
    return _learning_curve(curves, ("nelbo",), "flops", label, abreast=1)


def _scaled(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Divide the FLOPs of a table by a power of a thousand, and label their axis."""
    digits = 3 * int(math.log10(table["flops"].max()) / 3)
    unit = f"$10^{{{digits}}}$ FLOPs" if digits else "FLOPs"
    return table.assign(flops=table["flops"] / 10**digits), f"training, {unit}"


def _learning_curve(
    table: pd.DataFrame, values: tuple[str, ...], x: str, x_label: str, abreast: int = ABREAST
) -> Figure:
    # A single step is not a curve; it is only shown if there are no curves at all.
    curves = table[table.groupby(PLACE)["step"].transform("nunique") > 1]
    rows = []
    for group, part in _groups(curves if len(curves) else table):
        labels = {value: f"{cell_name(*group)}\n{heading(value)}, bits/dim" for value in values}
        lines = [list(_lines(part, arms)) for arms in _arms(part)]
        rows += [[Panel("", labels[value], x, value, found) for found in lines] for value in values]
    figure, axes = _draw(rows, x_label, abreast)
    for axis, panel in zip(axes, chain(*rows), strict=True):
        plain_ticks(axis.xaxis)
        _show_single(axis, panel)
    beside = BESIDE if x == "flops" else ""
    return note(figure, named_bars({STUDENT: table["seeds"]}) + beside)


def _show_single(axis: Axes, panel: Panel) -> None:
    """Give the axis of a panel with one number of steps a tick and a width; a logarithmic axis would have neither."""
    places = {float(place) for _, part, _ in panel.lines for place in part[panel.x].dropna()}
    if len(places) == 1:
        (place,) = places
        axis.set_xlim(place / SINGLE, place * SINGLE)
        axis.set_xticks([place], [f"{place:g}"])
        axis.xaxis.minorticks_off()


def flow(table: pd.DataFrame) -> Figure:
    """Draw the gain of each flow against spatial frequency: the middle of each band, relative to the highest frequency."""
    bands = [
        table.assign(frequency=(i + 0.5) / len(GAINS), gain=table[gain], gain_se=table[f"{gain}_se"])
        for i, gain in enumerate(GAINS)
    ]
    rows = [
        [Panel("", f"{cell_name(*group)}\ngain of the map", "frequency", "gain", list(_lines(part, arms)), "log")]
        for group, part in _groups(pd.concat(bands))
        for arms in _arms(part)
    ]
    figure, axes = _draw(rows, "frequency, relative to the highest")
    for axis in axes:
        plain_ticks(axis.xaxis)
    return note(figure, named_bars({STUDENT: table["seeds"]}))


def bands(table: pd.DataFrame) -> Figure:
    """Draw how far each model's share of the bound lies below the baseline's in each band of spatial frequencies.

    The errors of both models are added as if they were independent, so that intervals are wider than those of paired differences.
    """
    plain = table[(table["model"] == REFERENCE) & (table["variant"] == "")]
    both = table.merge(plain, on=PLACE, suffixes=("", "_plain"))
    both = both[(both["model"] != REFERENCE) | (both["variant"] != "")].dropna(subset=[BAND_METRICS[0]])
    parts = []
    for i, band in enumerate(BAND_METRICS):
        lead, error = both[f"{band}_plain"] - both[band], np.hypot(both[f"{band}_se"], both[f"{band}_se_plain"])
        parts.append(both.assign(frequency=(i + 0.5) / len(BAND_METRICS), lead=lead, lead_se=error))
    rows = []
    for group, part in _groups(pd.concat(parts)):
        label = f"{cell_name(*group)}\nbits/dim below {name(REFERENCE)}"
        rows += [[Panel("", label, "frequency", "lead", list(_lines(part, arms)))] for arms in _arms(part)]
    figure, axes = _draw(rows, "frequency, relative to the highest")
    for axis in axes:
        axis.axhline(0, color=INK, linewidth=0.8)
        plain_ticks(axis.xaxis)
    return note(figure, named_bars({STUDENT: both["seeds"]}))


def error_compute(table: pd.DataFrame) -> Figure:
    """Draw the distance of each model's bound from a known density against training FLOPs: a panel per density."""
    found = table.dropna(subset=["nelbo_excess"]).rename(columns={"train_flops": "flops"})
    table, x_label = _scaled(found)
    density = table["dataset"].str.rpartition("-")[0]
    label = f"{heading('nelbo_excess')}, bits/dim"
    rows = [
        [Panel(str(name), label, "flops", "nelbo_excess", list(_lines(part, arms)), "log")]
        for name, part in table.groupby(density, sort=False)
        for arms in _arms(part)
    ]
    figure, axes = _draw(rows, x_label)
    for axis in axes:
        plain_ticks(axis.xaxis)
    bars = named_bars({STUDENT: table["seeds"]})
    return note(figure, f"{bars} Lower left is better; each line joins two lengths of training.{BESIDE}")


def _groups(table: pd.DataFrame) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    for group, part in table.assign(variant=table.get("variant", "")).groupby(PLACE, sort=False):
        yield tuple(map(str, group)), part


def _arms(table: pd.DataFrame) -> list[list[tuple[str, str]]]:
    """Distribute the controls evenly over panels, in the order of the ladder; every panel has the plain models."""
    cells = sorted(set(zip(table["model"], table["variant"], strict=True)), key=rung)
    plain, controls = ([cell for cell in cells if (cell[1] == "") == wanted] for wanted in (True, False))
    parts = np.array_split(np.arange(len(controls)), max(-(-len(controls) // CONTROLS), 1))
    return [[*plain, *(controls[i] for i in part)] for part in parts]


def _lines(table: pd.DataFrame, arms: Iterable[tuple[str, str]]) -> Iterator[tuple[str, pd.DataFrame, dict[str, Any]]]:
    others = 0
    for model, variant in arms:
        part = table[(table["model"] == model) & (table["variant"] == variant)]
        yield arm(model, variant), part, style_of(model, variant, others) | ({} if variant else BOLD)
        others += (model, variant) not in MODELS


def _draw(rows: list[list[Panel]], x_label: str, abreast: int = ABREAST) -> tuple[Figure, list[Axes]]:
    """Draw panels in rows; lists of one panel share a row, and panels with the same vertical label share a scale."""
    figure, placed = _lay_out(rows, abreast)
    for axis, panel in placed:
        _name_lines(axis, _draw_lines(axis, panel))
        axis.set(title=panel.title, xlabel=x_label)
        axis.tick_params(which="both", labelsize=7.5)
        if panel.y_scale == "log":
            plain_ticks(axis.yaxis)
    return figure, [axis for axis, _ in placed]


def _lay_out(rows: list[list[Panel]], abreast: int) -> tuple[Figure, list[tuple[Axes, Panel]]]:
    if all(len(row) == 1 for row in rows):
        rows = [[row[0] for row in rows]]
    rows = [row[i : i + abreast] for row in rows for i in range(0, len(row), abreast)]
    figure = Figure(figsize=(WIDTH if abreast > 1 else COLUMN, HEIGHT * len(rows) + 0.4))
    grid = figure.subplots(len(rows), max(map(len, rows)), squeeze=False)
    for axes, row in zip(grid, rows, strict=True):
        for axis in axes[len(row) :]:
            axis.set_axis_off()
    placed = [
        (axis, panel) for axes, row in zip(grid, rows, strict=True) for axis, panel in zip(axes, row, strict=False)
    ]
    first: dict[str, Axes] = {}
    for axis, panel in placed:
        axis.set(xscale=_x_scale(panel), yscale=panel.y_scale)
        if (alike := first.setdefault(panel.y_label, axis)) is not axis:
            axis.sharey(alike)
        if alike is axis or axis.get_subplotspec().is_first_col():
            axis.set_ylabel("\n".join(fill(line, LABEL) for line in panel.y_label.splitlines()))
    return figure, placed


def _x_scale(panel: Panel) -> Scale:
    """Return a linear scale if the lines span less than a factor of two, in which a logarithmic one has hardly any ticks."""
    found = pd.concat([part[panel.x] for _, part, _ in panel.lines]).dropna()
    places = found[found > 0]
    return "linear" if places.nunique() > 1 and places.max() < 2 * places.min() else "log"


def _draw_lines(axis: Axes, panel: Panel) -> list[Line2D]:
    """Draw the lines of a panel, with intervals over seeds."""
    lines = []
    for i, (label, table, style) in enumerate(panel.lines):
        part = _with_ends(table, panel.value).dropna(subset=[panel.x, panel.value]).sort_values(panel.x)
        # Models share steps and FLOPs, so their bars would hide each other.
        apart = APART_NARROW if axis.get_xscale() == "linear" else APART_FLOPS if panel.x == "flops" else APART
        place = part[panel.x] * apart ** (i - (len(panel.lines) - 1) / 2)
        bars = [part["mean"] - part["low"], part["high"] - part["mean"]]
        line, _, _ = axis.errorbar(place, part["mean"], bars, elinewidth=0.7, **style)
        line.set_label(label)
        lines += [line] if len(part) else []
    return lines


def _with_ends(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """Add the mean over seeds and its interval; the geometric mean if the table has the ends of an interval."""
    if f"{value}_low" in table:
        low, high = table[f"{value}_low"].astype(float), table[f"{value}_high"].astype(float)
        several = table["seeds"] >= FEWEST_SEEDS
        mean = ((low * high) ** 0.5).fillna(table[value])
        return table.assign(mean=mean, low=low.where(several), high=high.where(several))
    bars = half_widths(table[f"{value}_se"], table["seeds"])
    return table.assign(mean=table[value], low=table[value] - bars, high=table[value] + bars)


def _name_lines(axis: Axes, lines: list[Line2D]) -> None:
    """Name the lines next to their panel, from the highest end down, because names at the ends would hide other lines."""
    lines = sorted(lines, key=lambda line: float(np.asarray(line.get_ydata())[-1]), reverse=True)
    narrow: dict[str, Any] = {"handlelength": 1.8, "handletextpad": 0.4, "borderaxespad": 0.2}
    labels = [fill(str(line.get_label()), LETTERS) for line in lines]
    legend = axis.legend(lines, labels, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7, **narrow)
    for line, text in zip(lines, legend.get_texts(), strict=True):
        text.set(color=SOFT if line.get_color() == SOFT else INK, fontweight=_weight(line))


def _weight(line: Line2D) -> str:
    return "bold" if line.get_linewidth() == BOLD["linewidth"] else "normal"
