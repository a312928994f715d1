"""Figures from the suite's tables, as SVG with repeatable bytes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from indm.errors import ArtifactError
from indm.report.drawing import (
    GROUP,
    STYLE,
    draw_lines,
    forest,
    grid,
    legend,
    note,
    plain_ticks,
    styles_of,
    to_svg,
)
from indm.report.figures_ladder import ladder, rung
from indm.report.figures_tuning import tuning
from indm.report.intervals import OVER_IMAGES, STUDENT, half_widths, named_bars
from indm.report.names import heading, name

TEXTS = [*GROUP, "model", "variant", "setting", "metric", "unit", "id", "control", "test", "phase", "state", "reason"]


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


def discretization(table: pd.DataFrame) -> Figure:
    """Draw FID against the steps of the sampler: a row a dataset, SDE and objective, a column a sampler, a line a model."""
    table = table.dropna(subset=["fid"])
    groups, samplers = list(table.groupby(GROUP, sort=False)), list(dict.fromkeys(table["sampler"]))
    styles, steps = styles_of(table), sorted(table["steps"].unique())
    figure, axes = grid(groups, [name(sampler) for sampler in samplers], "steps", "FID", sharey="row")
    for row, (_, part) in zip(axes, groups, strict=True):
        for axis, sampler in zip(row, samplers, strict=True):
            draw_lines(axis, part[part["sampler"] == sampler], "steps", "fid", styles)
            axis.set(xscale="log", yscale="log")
            axis.set_xticks(steps, [f"{step:g}" for step in steps])
            axis.xaxis.minorticks_off()
            plain_ticks(axis.yaxis)
    legend(figure, axes)
    return note(figure, named_bars({STUDENT: table["seeds"]}))


def learning_curve_step(table: pd.DataFrame) -> Figure:
    """Draw the bound, the likelihood and their gap against the training step."""
    return _learning_curve(table, "step", "training step")


def learning_curve_flops(table: pd.DataFrame) -> Figure:
    """Draw the bound, the likelihood and their gap against the operations spent on training."""
    return _learning_curve(table, "flops", "training FLOPs")


def ablation(table: pd.DataFrame) -> Figure:
    """Draw the difference that each variant makes, with its interval: a panel a metric, from DDPM++ up the ladder to INDM."""
    groups = [part.iloc[_by_rung(part)] for _, part in table.groupby(GROUP, sort=False)]
    table = pd.concat(groups, ignore_index=True)
    metrics = [column.removesuffix("_difference") for column in map(str, table) if column.endswith("_difference")]
    parts = []
    for metric in metrics:
        value = table[f"{metric}_difference"]
        bar = half_widths(table[f"{metric}_difference_se"], table["pairs"])
        panel = f"{heading(metric)}, difference from the plain baseline"
        parts.append(table.assign(panel=panel, value=value, low=value - bar, high=value + bar))
    figure = forest(pd.concat(parts), [*GROUP, "model", "variant"])
    return note(figure, named_bars({STUDENT: table["pairs"].dropna().astype(int)}))


def protocol(table: pd.DataFrame) -> Figure:
    """Draw the change of FID by each deviation from the suite's protocol: a panel a dataset."""
    panel = table["dataset"] + ": FID, difference from the suite’s protocol"
    rows = table.assign(panel=panel, value=table["difference"], low=float("nan"), high=float("nan"))
    return note(forest(rows, ["factor", "setting"], bars=True), named_bars({STUDENT: table["seeds"]}))


def claims(table: pd.DataFrame) -> Figure:
    """Draw the effect behind each verdict with its interval, and below it the effect against the control that decides."""
    # Beside the others, an interval that knows nothing of other trainings would look like one of them.
    known = table["test"] != OVER_IMAGES
    table = table.assign(low=table["low"].where(known), high=table["high"].where(known))
    panel = table["unit"] + ", positive in the direction of the claim"
    against = {"control_effect": "value", "control_low": "low", "control_high": "high"}
    plain = table.assign(panel=panel, value=table["effect"], control="")
    controlled = table[table["control"] != ""].drop(columns=["low", "high"]).rename(columns=against).assign(panel=panel)
    figure = forest(pd.concat([plain, controlled]).sort_index(kind="stable"), ["id", *GROUP], second="control")
    kinds = table.dropna(subset=["effect"]).groupby("test", sort=False)["n"]
    seeds = {str(test): n.astype(int) for test, n in kinds}
    return note(figure, named_bars(seeds | ({OVER_IMAGES: [1]} if OVER_IMAGES in seeds else {})))


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


def _read(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """Read a table; one that is missing has no rows, and the page says so; without rows it need not have all columns."""
    if not path.is_file():
        return pd.DataFrame()
    table = pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str))
    missing = [column for column in columns if column not in table]
    if missing and len(table) > 0:
        raise ArtifactError(f"{path}: found the columns {', '.join(map(str, table))}; missing: {', '.join(missing)}")
    return table.fillna(dict.fromkeys(TEXTS, ""))


def _by_rung(table: pd.DataFrame) -> list[int]:
    cells = list(zip(table["model"], table["variant"], strict=True))
    return sorted(range(len(cells)), key=lambda place: rung(cells[place]))


def _learning_curve(table: pd.DataFrame, x: str, label: str) -> Figure:
    groups, values = list(table.groupby(GROUP, sort=False)), ("nelbo", "nll", "gap")
    styles = styles_of(table)
    figure, axes = grid(groups, [heading(value) for value in values], label, "bits/dim", sharey="none")
    for row, (_, part) in zip(axes, groups, strict=True):
        for axis, value in zip(row, values, strict=True):
            draw_lines(axis, part, x, value, styles)
            axis.set_xscale("log")
            plain_ticks(axis.xaxis)
    legend(figure, axes)
    return note(figure, named_bars({STUDENT: table["seeds"]}))
