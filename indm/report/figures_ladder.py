"""The figure of the ladder: models of the 2-D studies, from DDPM++ up to INDM."""

import re

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from indm.report.drawing import PLAIN_MODELS, SERIES, WIDTH, note
from indm.report.intervals import STUDENT, half_widths, named_bars
from indm.report.names import heading, names

# Variants, from those that know nothing of their latent's scale on.
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
    """Draw the models of the 2-D studies from DDPM++ up to INDM: a row a dataset, a column a metric, and a line each model."""
    table = table[table["nelbo"].notna()]
    distances = [column for column in map(str, table) if re.fullmatch(r"w1_\d+", column)][:1]
    metrics = [column for column in ("nelbo", "nll", "gap", *distances, "path_ratio", "latent_std") if column in table]
    rungs = sorted(set(zip(table["model"], table["variant"], strict=True)), key=rung)
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
    return note(figure, named_bars({STUDENT: table["seeds"]}))


def rung(cell: tuple[str, str]) -> tuple[int, str, float]:
    """Place a model and variant on the ladder from DDPM++ up to INDM, whose rungs learn more and more of the latent.

    Arguments:
        cell: the names of model and variant.

    Returns:
        What to sort by.
    """
    model, variant = cell
    fixed = re.fullmatch(r"scale-(\d+(?:\.\d+)?)", variant)
    scale, whole = (float(fixed[1]), "scale") if fixed else (0.0, variant)
    order = RUNGS.index(whole) if whole in RUNGS else len(RUNGS)
    return order + (len(RUNGS) + 1) * (model != PLAIN_MODELS[0]), whole, scale


def _points(axis: Axes, table: pd.DataFrame, places: list[int], metric: str) -> None:
    """Draw a metric's values, one a row at its place, with the intervals of their means over seeds."""
    bars = half_widths(table[f"{metric}_se"], table["seeds"])
    for place, model, value, bar in zip(places, table["model"], table[metric], bars, strict=True):
        style = SERIES[int(model != PLAIN_MODELS[0])]
        axis.hlines(place, value - bar, value + bar, color=style["color"])
        axis.plot(value, place, marker=style["marker"], color=style["color"])
