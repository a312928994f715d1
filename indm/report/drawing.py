"""What the figures share: their style, series, panels, legend and note.

A series keeps its colour, marker and line style in every figure; colours are Okabe and Ito's ("Color Universal Design", 2008,
https://jfly.uni-koeln.de/color/), so that no reader depends on telling red from green, and markers repeat what they say.
"""

from collections.abc import Sequence
from io import BytesIO
from itertools import cycle
from typing import Any, Literal

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from indm.report.intervals import half_widths
from indm.report.names import name, names

# The page redraws this colour as the text's own, so that figures follow the light and the dark theme.
INK = "#1b1b1a"
GRID = "#b9b9b4"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = "os^DvPX<>p*h"
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
# No two share a marker; those that share a colour differ in their line too.
SERIES = [
    {"color": COLOURS[i % 6], "marker": marker, "linestyle": LINES[(i + i // 6) % 6]}
    for i, marker in enumerate(MARKERS)
]
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "indm",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "savefig.transparent": True,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "grid.color": GRID,
}
GROUP = ["dataset", "sde", "objective"]
PLAIN_MODELS = ["ddpmpp", "indm"]
WIDTH = 10.0
# A logarithmic axis over less than this factor has hardly a 1, 2 or 5.
SHORT = 4.0
# Over more than this one, they are too many.
LONG = 100.0
# Factor between the places of neighbouring models on a logarithmic axis of steps.
APART = 1.025


def to_svg(figure: Figure) -> bytes:
    """Write a figure as an SVG document without a date, glyphs as outlines; its note, which names the error bars, is text too."""
    with BytesIO() as file, mpl.rc_context(STYLE):
        figure.savefig(
            file, format="svg", metadata={"Date": None, "Creator": None, "Description": figure.get_supxlabel()}
        )
        return file.getvalue()


class PlainLogFormatter(LogFormatter):
    """Write the ticks of a logarithmic axis as plain numbers: a decade's 1, 2 and 5, all where there would be few, or 1 alone."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Write a tick; its position is not needed."""
        low, high = self.axis.get_view_interval() if self.axis else (1, SHORT)
        written = "123456789" if high < SHORT * low else "125" if high < LONG * low else "1"
        return f"{x:g}" if f"{x:e}"[0] in written and f"{x:.5e}"[2:7] == "00000" else ""


def plain_ticks(axis: Axis) -> None:
    """Write the ticks of a logarithmic axis as plain numbers."""
    axis.set_major_formatter(PlainLogFormatter())
    axis.set_minor_formatter(PlainLogFormatter())


def draw_lines(axis: Axes, table: pd.DataFrame, x: str, value: str, styles: dict[str, dict[str, Any]]) -> None:
    """Draw a line a model and variant, with the intervals of its means over seeds."""
    bars = half_widths(table[f"{value}_se"], table["seeds"])
    series = list(table.assign(series=_series(table), error=bars).groupby("series", sort=False))
    for i, (label, part) in enumerate(series):
        part = part.dropna(subset=[x, value]).sort_values(x)
        # Models have steps in common, and bars that would hide each other.
        place = part[x] * (1 if x == "flops" else APART ** (i - (len(series) - 1) / 2))
        style = styles[str(label)]
        axis.errorbar(place, part[value], part["error"], label=str(label), capsize=2, elinewidth=0.9, **style)


def forest(table: pd.DataFrame, labels: list[str], bars: bool = False, second: str = "") -> Figure:
    """Draw values with their intervals beside a line at zero, a panel for each text of ``panel``.

    Arguments:
        table: columns ``panel``, ``value``, ``low``, ``high`` and those of ``labels``; the first row is drawn on top.
        labels: the columns that name a row.
        bars: draw a bar from zero to each value.
        second: a column whose rows with a text are drawn in a second style, named by it.
    """
    panels = list(table.dropna(subset=["value"]).groupby("panel", sort=False))
    heights = [len(part) + 2.4 for _, part in panels]
    figure = Figure(figsize=(WIDTH, 0.26 * sum(heights) + 0.3))
    axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for axis, (title, part) in zip(axes, panels, strict=True):
        places = range(len(part))
        for place, (_, row) in zip(places, part.iterrows(), strict=True):
            style = SERIES[int(second != "" and row[second] != "")]
            if bars:
                axis.barh(place, row["value"], height=0.55, color=style["color"], alpha=0.35)
            axis.hlines(
                place, row["low"], row["high"], color=INK if bars else style["color"], linestyle=style["linestyle"]
            )
            axis.plot(row["value"], place, marker=style["marker"], color=style["color"])
        axis.axvline(0, color=INK, linewidth=0.8)
        axis.set_yticks(places, [_label(row, labels, second) for _, row in part.iterrows()])
        axis.set(ylim=(len(part) - 0.4, -0.6))
        axis.set_title(str(title), loc="left")
        axis.grid(axis="y", visible=False)
    return figure


def _label(row: pd.Series, labels: list[str], second: str) -> str:
    if second and row[second]:
        return f"against {row[second]}"
    return names(*(str(row[label]) for label in labels))


def grid(
    groups: Sequence[Any], columns: list[str], x: str, y: str, sharey: Literal["none", "row"]
) -> tuple[Figure, Any]:
    """Lay out a row of panels for each group, its name on the left, and a column for each text of ``columns``."""
    figure = Figure(figsize=(WIDTH, 1.9 * len(groups) + 0.8))
    axes = figure.subplots(len(groups), len(columns), squeeze=False, sharex="col", sharey=sharey)
    for row, (group, _) in zip(axes, groups, strict=True):
        row[0].set_ylabel(f"{names(*group)}\n{y}")
    for axis, title, bottom in zip(axes[0], columns, axes[-1], strict=True):
        axis.set_title(title)
        bottom.set_xlabel(x)
    return figure, axes


def note(figure: Figure, text: str) -> Figure:
    """Write below a figure what its error bars are."""
    figure.supxlabel(text, x=0.01, ha="left", fontsize="medium")
    return figure


def legend(figure: Figure, axes: Any) -> None:
    """Put one legend above all panels; a line may be absent from some of them."""
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=5)


def _series(table: pd.DataFrame) -> list[str]:
    """Name the line of each row: its model, and its variant where it has one."""
    variants = table["variant"] if "variant" in table else [""] * len(table)
    return [names(model, variant) for model, variant in zip(table["model"], variants, strict=True)]


def styles_of(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Give the plain models the first styles, whatever the table's order, and the variants those that follow."""
    plain = [name(model) for model in PLAIN_MODELS]
    return dict(zip(dict.fromkeys([*plain, *sorted(_series(table))]), cycle(SERIES), strict=False))
