"""Figures from the suite's tables, as SVG with repeatable bytes.

A series keeps its colour, marker and line style in every figure; colours are Okabe and Ito's ("Color Universal Design", 2008,
https://jfly.uni-koeln.de/color/), so that no reader depends on telling red from green, and markers repeat what they say.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any, Literal, cast

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from indm.errors import ArtifactError
from indm.report.intervals import OVER_IMAGES, STUDENT, half_widths, named_bars
from indm.report.names import heading, name, names

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
TEXTS = [*GROUP, "model", "variant", "setting", "metric", "unit", "id", "control", "test", "phase", "state", "reason"]
PLAIN_MODELS = ["ddpmpp", "indm"]
# Variants of the 2-D studies, from those that know nothing of their latent's scale on.
RUNGS = [
    "",
    "same-compute",
    "same-parameters",
    "standardised",
    "scale",
    "learned-scale",
    "learned-affine",
    "learned-linear",
    "frozen-flow",
]
WIDTH = 10.0
# What is minimised, by objective; the phases of a search that are drawn against its hyper-parameters.
TARGETS = {"nll": "NELBO, bits/dim", "fid": "FID"}
PHASES = {"short": "trial", "confirm": "trained again for longer"}
# A logarithmic axis over less than this factor has hardly a 1, 2 or 5.
SHORT = 4.0
# Factor between the places of neighbouring models on a logarithmic axis of steps.
APART = 1.025


@dataclass(frozen=True)
class Plot:
    """A figure: the table it reads, the columns it cannot do without, the value it shows, and the function that draws it."""

    table: str
    columns: tuple[str, ...]
    value: str
    draw: Callable[[pd.DataFrame], Figure]


def plot_figures(tables: Path) -> dict[str, bytes]:
    """Draw every figure whose table is there and has a number to show.

    Arguments:
        tables: the folder of the suite's tables.

    Returns:
        SVG documents by the figure's name; a figure without numbers is left out rather than drawn empty.

    Raises:
        ArtifactError: if a table lacks a column that its figure needs.
    """
    figures = {}
    for figure, drawing in FIGURES.items():
        table = _read(tables / f"{drawing.table}.csv", (*drawing.columns, drawing.value))
        if table.get(drawing.value, pd.Series()).notna().any():
            with mpl.rc_context(STYLE):
                figures[figure] = to_svg(drawing.draw(table))
    return figures


def to_svg(figure: Figure) -> bytes:
    """Write a figure as an SVG document without a date, glyphs as outlines; its note, which names the error bars, is text too."""
    with BytesIO() as file, mpl.rc_context(STYLE):
        figure.savefig(
            file, format="svg", metadata={"Date": None, "Creator": None, "Description": figure.get_supxlabel()}
        )
        return file.getvalue()


def discretization(table: pd.DataFrame) -> Figure:
    """Draw FID against the steps of the sampler: a row a dataset, SDE and objective, a column a sampler, a line a model."""
    table = table.dropna(subset=["fid"])
    groups, samplers = list(table.groupby(GROUP, sort=False)), list(dict.fromkeys(table["sampler"]))
    styles, steps = _styles(table), sorted(table["steps"].unique())
    figure, axes = _grid(groups, [name(sampler) for sampler in samplers], "steps", "FID", sharey="row")
    for row, (_, part) in zip(axes, groups, strict=True):
        for axis, sampler in zip(row, samplers, strict=True):
            _lines(axis, part[part["sampler"] == sampler], "steps", "fid", styles)
            axis.set(xscale="log", yscale="log")
            axis.set_xticks(steps, [f"{step:g}" for step in steps])
            axis.xaxis.minorticks_off()
            for formatter in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
                formatter(PlainLogFormatter())
    _legend(figure, axes)
    return _note(figure, named_bars({STUDENT: table["seeds"]}))


def learning_curve_step(table: pd.DataFrame) -> Figure:
    """Draw the bound, the likelihood and their gap against the training step."""
    return _learning_curve(table, "step", "training step")


def learning_curve_flops(table: pd.DataFrame) -> Figure:
    """Draw the bound, the likelihood and their gap against the operations spent on training."""
    return _learning_curve(table, "flops", "training FLOPs")


def ablation(table: pd.DataFrame) -> Figure:
    """Draw the difference that each variant makes, with its interval: a panel a metric."""
    metrics = [column.removesuffix("_difference") for column in map(str, table) if column.endswith("_difference")]
    parts = []
    for metric in metrics:
        value = table[f"{metric}_difference"]
        bar = half_widths(table[f"{metric}_difference_se"], table["pairs"])
        panel = f"{heading(metric)}, difference from the plain baseline"
        parts.append(table.assign(panel=panel, value=value, low=value - bar, high=value + bar))
    figure = _forest(pd.concat(parts), [*GROUP, "model", "variant"])
    return _note(figure, named_bars({STUDENT: table["pairs"].dropna().astype(int)}))


def protocol(table: pd.DataFrame) -> Figure:
    """Draw the change of FID by each deviation from the suite's protocol: a panel a dataset."""
    panel = table["dataset"] + ": FID, difference from the suite’s protocol"
    rows = table.assign(panel=panel, value=table["difference"], low=float("nan"), high=float("nan"))
    return _note(_forest(rows, ["factor", "setting"], bars=True), named_bars({STUDENT: table["seeds"]}))


def ladder(table: pd.DataFrame) -> Figure:
    """Draw the models of the 2-D studies from DDPM++ up to INDM: a row a dataset, a column a metric, and a line each model."""
    table = table[table["nelbo"].notna()]
    distances = [column for column in map(str, table) if re.fullmatch(r"w1_\d+", column)][:1]
    metrics = [column for column in ("nelbo", "nll", "gap", *distances, "path_ratio", "latent_std") if column in table]
    rungs = sorted(set(zip(table["model"], table["variant"], strict=True)), key=_rung)
    groups = list(table.groupby(["dataset"], sort=False))
    figure = Figure(figsize=(WIDTH, len(groups) * (0.2 * len(rungs) + 0.5) + 0.6))
    axes = figure.subplots(len(groups), len(metrics), squeeze=False, sharey=True)
    for row, (_, part) in zip(axes, groups, strict=True):
        places = [rungs.index(cell) for cell in zip(part["model"], part["variant"], strict=True)]
        for axis, metric in zip(row, metrics, strict=True):
            _points(axis, part, places, metric)
        row[0].set_ylabel(part["dataset"].iloc[0])
        row[0].set_yticks(range(len(rungs)), [names(*rung) for rung in rungs])
        row[0].set_ylim(len(rungs) - 0.4, -0.6)
    for axis, metric in zip(axes[0], metrics, strict=True):
        axis.set_title(heading(metric))
    return _note(figure, named_bars({STUDENT: table["seeds"]}))


def tuning(table: pd.DataFrame) -> Figure:
    """Draw the target against each hyper-parameter: a row an arm, a column a hyper-parameter; failures on the upper edge."""
    columns = list(map(str, table))
    parameters = columns[columns.index("steps") + 1 : columns.index("state")]
    arms = list(table.groupby([*GROUP, "model", "variant"], sort=False))
    figure = Figure(figsize=(WIDTH, 1.9 * len(arms) + 0.8))
    axes = figure.subplots(len(arms), len(parameters), squeeze=False, sharex="col", sharey="row")
    for row, (arm, trials) in zip(axes, arms, strict=True):
        cell = [str(key) for key in cast(tuple[Any, ...], arm)]
        row[0].set_ylabel(f"{names(*cell)}\n{TARGETS[cell[2]]}")
        for axis, parameter in zip(row, parameters, strict=True):
            _trials(axis, trials, parameter)
    for axis, parameter in zip(axes[-1], parameters, strict=True):
        axis.set_xlabel(heading(parameter))
        if table[parameter].min() > 0 and table[parameter].max() > SHORT * table[parameter].min():
            axis.set_xscale("log")
    _legend(figure, axes)
    return _note(figure, "Error bars: one standard error over images.")


def claims(table: pd.DataFrame) -> Figure:
    """Draw the effect behind each verdict with its interval, and below it the effect against the control that decides."""
    # Beside the others, an interval that knows nothing of other trainings would look like one of them.
    known = table["test"] != OVER_IMAGES
    table = table.assign(low=table["low"].where(known), high=table["high"].where(known))
    panel = table["unit"] + ", positive in the direction of the claim"
    against = {"control_effect": "value", "control_low": "low", "control_high": "high"}
    plain = table.assign(panel=panel, value=table["effect"], control="")
    controlled = table[table["control"] != ""].drop(columns=["low", "high"]).rename(columns=against).assign(panel=panel)
    figure = _forest(pd.concat([plain, controlled]).sort_index(kind="stable"), ["id", *GROUP], second="control")
    kinds = table.dropna(subset=["effect"]).groupby("test", sort=False)["n"]
    seeds = {str(test): n.astype(int) for test, n in kinds}
    return _note(figure, named_bars(seeds | ({OVER_IMAGES: [1]} if OVER_IMAGES in seeds else {})))


FIGURES = {
    "claims": Plot(
        "claims", (*GROUP, "id", "unit", "n", "low", "high", "test", "control", "control_effect"), "effect", claims
    ),
    "discretization": Plot("discretization", (*GROUP, "model", "seeds", "sampler", "steps"), "fid", discretization),
    "learning-curve-step": Plot("learning_curve", (*GROUP, "model", "seeds", "step"), "nll", learning_curve_step),
    "learning-curve-flops": Plot("learning_curve", (*GROUP, "model", "seeds", "flops"), "nll", learning_curve_flops),
    "ablation": Plot("ablation", (*GROUP, "model", "variant", "pairs"), "nll_difference", ablation),
    "ladder": Plot("toy2d", ("dataset", "model", "variant", "seeds"), "nelbo", ladder),
    "tuning": Plot(
        "tuning", (*GROUP, "model", "variant", "trial", "phase", "steps", "state", "target_image_se"), "target", tuning
    ),
    "protocol": Plot("protocol", ("dataset", "seeds", "factor", "setting"), "difference", protocol),
}


def _trials(axis: Axes, table: pd.DataFrame, parameter: str) -> None:
    """Draw the trials of an arm against a hyper-parameter; one that its search has not leaves the panel empty."""
    if table[parameter].isna().all():
        axis.set_axis_off()
        return
    complete, failed = table[table["state"] == "complete"], table[table["state"] == "failed"]
    for (phase, label), style in zip(PHASES.items(), SERIES, strict=False):
        part, marker = complete[complete["phase"] == phase], str(style["marker"])
        if len(part):
            bars, colour = part["target_image_se"], str(style["color"])
            axis.errorbar(part[parameter], part["target"], bars, fmt=marker, color=colour, elinewidth=0.9, label=label)
    if len(failed):
        place = axis.get_xaxis_transform()
        axis.plot(
            failed[parameter], [1.0] * len(failed), "x", color=INK, transform=place, clip_on=False, label="failed"
        )


class PlainLogFormatter(LogFormatter):
    """Write the ticks of a logarithmic axis as plain numbers: a decade's 1, 2 and 5, or all where there would be few."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Write a tick; its position is not needed."""
        low, high = self.axis.get_view_interval() if self.axis else (1, SHORT)
        written = "123456789" if high < SHORT * low else "125"
        return f"{x:g}" if f"{x:e}"[0] in written and f"{x:.5e}"[2:7] == "00000" else ""


def _read(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """Read a table; one that is missing has no rows, and the page says so."""
    if not path.is_file():
        return pd.DataFrame()
    table = pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str))
    if missing := [column for column in columns if column not in table]:
        raise ArtifactError(f"{path}: found the columns {', '.join(map(str, table))}; missing: {', '.join(missing)}")
    return table.fillna(dict.fromkeys(TEXTS, ""))


def _learning_curve(table: pd.DataFrame, x: str, label: str) -> Figure:
    groups, values = list(table.groupby(GROUP, sort=False)), ("nelbo", "nll", "gap")
    styles = _styles(table)
    figure, axes = _grid(groups, [heading(value) for value in values], label, "bits/dim", sharey="none")
    for row, (_, part) in zip(axes, groups, strict=True):
        for axis, value in zip(row, values, strict=True):
            _lines(axis, part, x, value, styles)
            axis.set_xscale("log")
            for formatter in (axis.xaxis.set_major_formatter, axis.xaxis.set_minor_formatter):
                formatter(PlainLogFormatter())
    _legend(figure, axes)
    return _note(figure, named_bars({STUDENT: table["seeds"]}))


def _lines(axis: Axes, table: pd.DataFrame, x: str, value: str, styles: dict[str, dict[str, Any]]) -> None:
    """Draw a line a model and variant, with the intervals of its means over seeds."""
    bars = half_widths(table[f"{value}_se"], table["seeds"])
    series = list(table.assign(series=_series(table), error=bars).groupby("series", sort=False))
    for i, (label, part) in enumerate(series):
        part = part.dropna(subset=[x, value]).sort_values(x)
        # Models have steps in common, and bars that would hide each other.
        place = part[x] * (1 if x == "flops" else APART ** (i - (len(series) - 1) / 2))
        style = styles[str(label)]
        axis.errorbar(place, part[value], part["error"], label=str(label), capsize=2, elinewidth=0.9, **style)


def _points(axis: Axes, table: pd.DataFrame, places: list[int], metric: str) -> None:
    """Draw a metric's values, one a row at its place, with the intervals of their means over seeds."""
    bars = half_widths(table[f"{metric}_se"], table["seeds"])
    for place, model, value, bar in zip(places, table["model"], table[metric], bars, strict=True):
        style = SERIES[int(model != PLAIN_MODELS[0])]
        axis.hlines(place, value - bar, value + bar, color=style["color"])
        axis.plot(value, place, marker=style["marker"], color=style["color"])


def _rung(cell: tuple[str, str]) -> tuple[int, str, float]:
    """Place a model and variant on the ladder from DDPM++ up to INDM, whose rungs learn more and more of the latent."""
    model, variant = cell
    kind, _, value = variant.partition("-")
    scale = float(value) if kind == "scale" else 0.0
    whole = kind if kind == "scale" else variant
    order = RUNGS.index(whole) if whole in RUNGS else len(RUNGS)
    return order + (len(RUNGS) + 1) * (model != PLAIN_MODELS[0]), whole, scale


def _forest(table: pd.DataFrame, labels: list[str], bars: bool = False, second: str = "") -> Figure:
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


def _grid(
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


def _note(figure: Figure, text: str) -> Figure:
    """Write below a figure what its error bars are."""
    figure.supxlabel(text, x=0.01, ha="left", fontsize="medium")
    return figure


def _legend(figure: Figure, axes: Any) -> None:
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


def _styles(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Give the plain models the first styles, whatever the table's order, and the variants those that follow."""
    plain = [name(model) for model in PLAIN_MODELS]
    return dict(zip(dict.fromkeys([*plain, *sorted(_series(table))]), cycle(SERIES), strict=False))
