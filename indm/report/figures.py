"""Figures from the suite's tables, as SVG with repeatable bytes.

A series keeps its colour, marker and line style in every figure; colours are Okabe and Ito's ("Color Universal Design", 2008,
https://jfly.uni-koeln.de/color/), so that no reader depends on telling red from green, and markers repeat what they say.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from indm.errors import ArtifactError

# The page redraws this colour as the text's own, so that figures follow the light and the dark theme.
INK = "#1b1b1a"
GRID = "#b9b9b4"
SERIES = (
    {"color": "#0072b2", "marker": "o", "linestyle": "-"},
    {"color": "#d55e00", "marker": "s", "linestyle": "--"},
    {"color": "#009e73", "marker": "^", "linestyle": "-."},
    {"color": "#cc79a7", "marker": "D", "linestyle": ":"},
    {"color": "#e69f00", "marker": "v", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
    {"color": "#56b4e9", "marker": "P", "linestyle": (0, (1, 1))},
)
STYLE = {
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
MODELS = {"ddpmpp": "DDPM++", "indm": "INDM"}
# Where a table gives no interval of its own.
ERRORS_IN_AN_INTERVAL = 1.96


@dataclass(frozen=True)
class Drawing:
    """A figure: the table it reads, the columns it cannot do without, and the function that draws it."""

    table: str
    columns: tuple[str, ...]
    draw: Callable[[pd.DataFrame], Figure]


def draw_figures(tables: Path) -> dict[str, bytes]:
    """Draw every figure whose table is there and has rows.

    Arguments:
        tables: the folder of the suite's tables.

    Returns:
        SVG documents by the figure's name; a figure without numbers is left out rather than drawn empty.

    Raises:
        ArtifactError: if a table lacks a column that its figure needs.
    """
    figures = {}
    for name, drawing in FIGURES.items():
        table = _read(tables / f"{drawing.table}.csv", drawing.columns)
        if len(table) > 0:
            with mpl.rc_context(STYLE):
                figures[name] = to_svg(drawing.draw(table))
    return figures


def to_svg(figure: Figure) -> bytes:
    """Write a figure as an SVG document without a date, glyphs as outlines."""
    with BytesIO() as file, mpl.rc_context(STYLE):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        return file.getvalue()


def discretization(table: pd.DataFrame) -> Figure:
    """Draw FID against the steps of the sampler: a row a dataset, SDE and objective, a column a sampler, a line a model."""
    groups, samplers = list(table.groupby(GROUP, sort=False)), list(dict.fromkeys(table["sampler"]))
    styles = _styles(table)
    figure, axes = _grid(len(groups), len(samplers))
    for row, (group, part) in zip(axes, groups, strict=True):
        for axis, sampler in zip(row, samplers, strict=True):
            _lines(axis, part[part["sampler"] == sampler], "steps", "fid", styles)
            axis.set(xscale="log", yscale="log", title=sampler.replace("_", " "), xlabel="steps")
        row[0].set_ylabel(f"{_name(group)}\nFID")
    _legend(figure, axes)
    return figure


def learning_curve_step(table: pd.DataFrame) -> Figure:
    """Draw the bound, the likelihood and their gap against the training step."""
    return _learning_curve(table, "step", "training step")


def learning_curve_flops(table: pd.DataFrame) -> Figure:
    """Draw the bound, the likelihood and their gap against the operations spent on training."""
    return _learning_curve(table, "flops", "training FLOPs")


def ablation(table: pd.DataFrame) -> Figure:
    """Draw the difference that each variant makes, with its interval: a panel a metric."""
    return _forest(table, "metric", [*GROUP, "model", "variant"], "difference")


def protocol(table: pd.DataFrame) -> Figure:
    """Draw the change of FID by each deviation from the suite's protocol: a panel a dataset."""
    return _forest(table, "dataset", ["factor", "setting"], "difference", bars=True)


def claims(table: pd.DataFrame) -> Figure:
    """Draw the effect behind each verdict, with its interval: a panel a metric."""
    return _forest(table, "metric", ["claim"], "effect")


FIGURES = {
    "claims": Drawing("claims", ("claim", "metric", "effect"), claims),
    "discretization": Drawing("discretization", (*GROUP, "model", "sampler", "steps", "fid"), discretization),
    "learning-curve-step": Drawing("learning_curve", (*GROUP, "model", "step"), learning_curve_step),
    "learning-curve-flops": Drawing("learning_curve", (*GROUP, "model", "flops"), learning_curve_flops),
    "ablation": Drawing("ablation", (*GROUP, "metric", "difference"), ablation),
    "protocol": Drawing("protocol", ("dataset", "factor", "setting", "difference"), protocol),
}


def _read(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """Read a table; one that is missing has no rows, and the page says so."""
    if not path.is_file():
        return pd.DataFrame()
    table = pd.read_csv(path)
    if missing := [column for column in columns if column not in table]:
        raise ArtifactError(f"{path}: found the columns {', '.join(table)}; missing: {', '.join(missing)}")
    texts = table.columns.intersection([*GROUP, "model", "variant", "setting", "metric"])
    return table.assign(**{column: table[column].fillna("").astype(str) for column in texts})


def _learning_curve(table: pd.DataFrame, x: str, label: str) -> Figure:
    groups, values = list(table.groupby(GROUP, sort=False)), ("nelbo", "nll", "gap")
    styles = _styles(table)
    figure, axes = _grid(len(groups), len(values))
    for row, (group, part) in zip(axes, groups, strict=True):
        for axis, value in zip(row, values, strict=True):
            _lines(axis, part, x, value, styles)
            axis.set(xscale="log", xlabel=label, title={"nelbo": "NELBO", "nll": "NLL", "gap": "NELBO − NLL"}[value])
        row[0].set_ylabel(f"{_name(group)}\nbits/dim")
    _legend(figure, axes)
    return figure


def _lines(axis: Axes, table: pd.DataFrame, x: str, value: str, styles: dict[str, dict[str, Any]]) -> None:
    """Draw a line a model and variant, with one standard error up and down where the table has it."""
    for label, part in table.assign(series=_series(table)).groupby("series", sort=False):
        part = part.dropna(subset=[x, value]).sort_values(x)
        error = part.get(f"{value}_se")
        axis.errorbar(part[x], part[value], error, label=str(label), capsize=2, elinewidth=0.9, **styles[str(label)])


def _forest(table: pd.DataFrame, panel: str, labels: list[str], value: str, bars: bool = False) -> Figure:
    """Draw values with their intervals beside a line at zero, the first row of the table on top."""
    panels = list(table.groupby(panel, sort=False))
    heights = [len(part) + 2.2 for _, part in panels]
    figure = Figure(figsize=(8.2, 0.27 * sum(heights) + 0.3))
    axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for axis, (title, part) in zip(axes, panels, strict=True):
        places = range(len(part))
        low, high = _interval(part, value)
        if bars:
            axis.barh(places, part[value], height=0.55, color=SERIES[0]["color"], alpha=0.35)
        axis.hlines(places, low, high, color=INK if bars else SERIES[0]["color"], linewidth=1.4)
        axis.plot(part[value], places, "o", color=SERIES[0]["color"])
        axis.axvline(0, color=INK, linewidth=0.8)
        axis.set_yticks(places, [_name(row) for row in part[part.columns.intersection(labels, sort=False)].to_numpy()])
        axis.set(
            title=str(title).upper() if panel == "metric" else str(title), xlabel=value, ylim=(len(part) - 0.4, -0.6)
        )
        axis.grid(axis="y", visible=False)
    return figure


def _interval(table: pd.DataFrame, value: str) -> tuple[pd.Series, pd.Series]:
    """Take the table's own interval, or make one of its standard errors; without either there is a point."""
    if {"low", "high"} <= set(table):
        return table["low"], table["high"]
    half = ERRORS_IN_AN_INTERVAL * table[f"{value}_se"] if f"{value}_se" in table else 0.0
    return table[value] - half, table[value] + half


def _grid(rows: int, columns: int) -> tuple[Figure, Any]:
    figure = Figure(figsize=(max(2.3 * columns, 6.0), 2.1 * rows + 0.4))
    return figure, figure.subplots(rows, columns, squeeze=False, sharex="col", sharey=False)


def _legend(figure: Figure, axes: Any) -> None:  # noqa: ANN401 (an array of axes)
    """Put one legend above all panels; a line may be absent from some of them."""
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=4)


def _series(table: pd.DataFrame) -> list[str]:
    """Name the line of each row: its model, and its variant where it has one."""
    variants = table["variant"] if "variant" in table else [""] * len(table)
    return [
        f"{MODELS.get(model, model)}, {variant}" if variant else MODELS.get(model, model)
        for model, variant in zip(table["model"], variants, strict=True)
    ]


def _styles(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Give the plain models the first styles, whatever the table's order, and the variants those that follow."""
    found = sorted(set(_series(table)) | set(MODELS.values()), key=lambda label: ("," in label, label))
    return dict(zip(found, cycle(SERIES), strict=False))


def _name(parts: Sequence[Any]) -> str:
    texts = [str(part) for part in parts if pd.notna(part) and str(part) != ""]
    return ", ".join(MODELS.get(text, text.upper() if text in {"ve", "vp"} else text) for text in texts)
