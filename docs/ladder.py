"""The figure of the ladder in docs/report.md: the gain of each map over no map against the cost of its step, on each dataset.

Gains and their intervals are computed like an exploratory claim, so that a map has the same numbers in this figure and in a table.
"""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from docs.answers import NARROW, WIDTH
from docs.report import FLOW, LONGER, NO_MAP, RUNGS, Model, is_finished
from indm.bench.suite.claims import load_claims
from indm.bench.suite.load import load_suite
from indm.errors import ArtifactError
from indm.report.claims import Claim, Claims, Side
from indm.report.differences import compare
from indm.report.intervals import Interval, interval
from indm.report.names import arm
from indm.report.numbers import Tidy
from indm.report.page.means import ARMS
from indm.report.plotting import GRID, INK, PAPER, SOFT, Style, style_of, styled, to_svg
from indm.report.rows import read_rows, records

# The panels: suites whose models train for equal steps with the nll objective, each drawn once it is published.
PANELS = {
    "digits-seeds": "8×8 digits",
    "fashion-full": "Fashion-MNIST",
    "cifar10-maps": "CIFAR-10, 1,000 steps",
    "cifar10-3000": "CIFAR-10, 3,000 steps",
    "celeba64-6000": "CelebA, 64×64",
}
# What is drawn, in the order of the legend: the models of README's table. Other maps cost as much as these and would hide them.
MODELS: list[Model] = [*ARMS]
# The claim whose metric and smallest effect the gains have; only the treatment differs.
LIKE = "better-nelbo-maps"
# Suites that did not record the time of a step, and the row of docs/scaling.md in which the flow's step was timed later.
TIMED = {"digits-seeds": "digits", "fashion-full": "Fashion-MNIST", "cifar10-3000": "CIFAR-10"}
TIME = r"^\| {} \| of the published runs \(\w+\) \| [\d.]+ \| ([\d.]+) \|"
# In inches: the places of the columns, a panel, the pitch of the rows, the legend above and the label below.
COLUMNS, PANEL, PITCH, TOP, BOTTOM = (0.75, 3.5), (2.4, 1.6), 2.15, 1.35, 0.6
# Models whose costs differ by less than this factor share a line, on which intervals may overlap.
CLOSE = 1.05
# In points: the bar of an interval, and how much wider it is than one that is drawn upon it.
BAR, WIDER = 1.2, 2.8
TICKS = (1.0, 1.5, 2.0, 2.5, 3.0)
# Room at the ends of an axis: of costs as a factor, of gains as a share of their range.
ROOM = (1.12, 0.06)
# The time of a step: a stroke at the end of a line from its FLOPs.
STROKE: Style = {"marker": "|", "markersize": 7, "markeredgewidth": 1.6}
DOTTED: Style = {"linewidth": 1.0, "linestyle": (0, (1, 1))}
MEASURED, SMALL = "in time, where measured", "too small to count"
SHADE: Style = {"color": GRID, "alpha": 0.5, "linewidth": 0}


class Point(NamedTuple):
    """A model of a panel: its gain over no map in bits/dim, and its cost in FLOPs and in time, in steps of DDPM++.

    The time is NaN where it was not measured.
    """

    gain: Interval
    flops: float
    time: float


def draw_ladder(published: Path, params: Path, scaling: Path) -> dict[str, bytes]:
    """Draw the figure as an SVG document, by its name; empty if none of its suites is published.

    Arguments:
        published: the folder with one folder per published suite, which contains ``tables/``.
        params: the folder of the suites and of the claims.
        scaling: the page with the times of a step that suites did not record.

    Raises:
        ArtifactError: if a table is missing or damaged, or the page lacks a time.
        ParamsError: if a suite or a claim has a mistake.
    """
    panels = {suite: points_of(published, params, scaling, suite) for suite in PANELS if is_finished(published, suite)}
    if not panels:
        return {}
    with styled(NARROW):
        return {"ladder": to_svg(ladder(panels, _like(params).smallest.effect))}


def points_of(published: Path, params: Path, scaling: Path, suite: str) -> dict[Model, Point]:
    """Read the models of a suite: DDPM++, whose gain over itself is 0; its maps; and DDPM++ at INDM's compute, at INDM's cost."""
    costs = read_rows(published / suite / "tables/compute.csv")
    by_model = {(row["model"], row["variant"]): row for row in records(costs[costs["objective"] == "nll"])}
    points = {NO_MAP: Point(Interval(0.0, 0.0, 0.0, 0), 1.0, math.nan)}
    for model, gain in gains(published / suite / "tables", params, suite).items():
        at = by_model[FLOW if model == LONGER else model]
        flops, time = (at[key] / by_model[NO_MAP][key] for key in ("train_flops_per_step", "ms_per_step"))
        if math.isnan(time) and model == FLOW and suite in TIMED:
            time = _time(scaling, TIMED[suite])
        points[model] = Point(gain, flops, math.nan if model == LONGER else time)
    return points


def gains(tables: Path, params: Path, suite: str) -> dict[Model, Interval]:
    """Compute the gain of each map, and of DDPM++ at INDM's compute, over DDPM++, with its 95 % interval, in bits/dim.

    Arguments:
        tables: the published tables of the suite.
        params: the folder of the suites and of the claims.
        suite: its name, which says how it is graded.

    Raises:
        ArtifactError: if a table is missing or damaged.
        ParamsError: if the suite or a claim has a mistake.
    """
    numbers = Tidy(tables.parent)
    values, images = _of_nll(numbers.values), _of_nll(numbers.images)
    found = load_suite(params / f"{suite}.yaml")
    asked = {f"gain-{place}": model for place, model in enumerate(MODELS) if model != NO_MAP}
    like = _like(params)
    claims = [like.model_copy(update={"id": name, "treatment": _side(model)}) for name, model in asked.items()]
    compared = compare(values, images, Claims(claims=claims), found.grading, found.failed_beyond)
    return {asked[one.claim.id]: interval(one.paired.differences) for one in compared if one.paired.seeds}


def _of_nll(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["objective"] == "nll"]


def _side(model: Model) -> Side:
    return Side(model=model[0], variant=model[1])


def _like(params: Path) -> Claim:
    return next(it for it in load_claims(params / "claims.yaml").claims if it.id == LIKE)


def _time(scaling: Path, size: str) -> float:
    """Read how long a step of INDM takes, in steps of DDPM++ by the same code."""
    pattern = TIME.format(size)
    if not (found := re.search(pattern, scaling.read_text(encoding="utf-8"), flags=re.MULTILINE)):
        raise ArtifactError(f"{scaling}: found no time of INDM's step on {size}; expected a row like {pattern}")
    return float(found[1])


def ladder(panels: Mapping[str, Mapping[Model, Point]], smallest: float) -> Figure:
    """Draw the gains against the costs: a panel per suite, all with the same axes.

    Arguments:
        panels: the models of each suite of :data:`PANELS`.
        smallest: the smallest gain that counts, in bits/dim.
    """
    rows = math.ceil(len(panels) / len(COLUMNS))
    height = TOP + PITCH * (rows - 1) + PANEL[1] + BOTTOM
    figure = Figure(figsize=(WIDTH, height))
    points = [point for panel in panels.values() for point in panel.values()]
    for place, (suite, panel) in enumerate(panels.items()):
        row, column = divmod(place, len(COLUMNS))
        bottom = height - TOP - PITCH * row - PANEL[1]
        edges = (COLUMNS[column] / WIDTH, bottom / height, PANEL[0] / WIDTH, PANEL[1] / height)
        axis = figure.add_axes(edges)
        _frame(axis, PANELS[suite], points, smallest)
        _draw(axis, panel)
        axis.tick_params(labelleft=column == 0)
        for artist in axis.get_children():
            artist.set_clip_on(False)
    figure.text(0.5, 0.1 / height, "FLOPs of a training step, in steps of DDPM++", ha="center", va="bottom")
    figure.text(0.01, (height - TOP + BOTTOM) / 2 / height, "gain over DDPM++, bits/dim", va="center", rotation=90)
    _legends(figure, height, [model for model in MODELS if any(model in panel for panel in panels.values())])
    return figure


def _frame(axis: Axes, title: str, points: Iterable[Point], smallest: float) -> None:
    """Set the title and the scales of a panel, and shade the gains that are too small to count."""
    costs = [cost for point in points for cost in (point.flops, point.time) if not math.isnan(cost)]
    ends = [end for point in points for end in (point.gain.low, point.gain.high, -smallest) if not math.isnan(end)]
    room = ROOM[1] * (max(ends) - min(ends))
    axis.set_title(title, loc="left", fontweight="bold")
    axis.axhspan(-smallest, smallest, **SHADE)
    axis.axhline(0, color=INK, linewidth=0.8)
    axis.set_xscale("log")
    axis.set(xlim=(min(1, *costs) / ROOM[0], max(costs) * ROOM[0]), ylim=(min(ends) - room, max(ends) + room))
    axis.set_xticks([], minor=True)
    axis.set_xticks([tick for tick in TICKS if tick < axis.get_xlim()[1]], minor=False)
    axis.xaxis.set_major_formatter("{x:g}")


def _draw(axis: Axes, panel: Mapping[Model, Point]) -> None:
    """Draw each model's gain with its interval at its FLOPs, and a stroke at its time; a line for DDPM++ at INDM's compute."""
    if LONGER in panel:
        axis.axhline(panel[LONGER].gain.effect, color=style_of(*LONGER)["color"], linewidth=0.9, linestyle="--")
    for place, (model, (gain, flops, time)) in enumerate(panel.items()):
        style = _style(model)
        above = sum(_overlap(panel[model], later) for later in list(panel.values())[place + 1 :])
        axis.vlines(flops, gain.low, gain.high, color=style["color"], linewidth=BAR + WIDER * above)
        if not math.isnan(time):
            axis.plot([flops, time], [gain.effect] * 2, color=style["color"], **DOTTED)
            axis.plot(time, gain.effect, **style | STROKE)
        axis.plot(flops, gain.effect, **style)


def _overlap(one: Point, other: Point) -> bool:
    """Return whether two models have nearly equal costs and intervals that overlap."""
    close = max(one.flops, other.flops) < CLOSE * min(one.flops, other.flops)
    return close and one.gain.low <= other.gain.high and other.gain.low <= one.gain.high


def _style(model: Model) -> Style:
    """Return a model's style, without a line; the marker is open where the diffusion is linear in the data."""
    found = style_of(*model)
    inside = PAPER if _is_linear(model) else found["color"]
    return found | {"linestyle": "", "markersize": 7, "markerfacecolor": inside}


def _is_linear(model: Model) -> bool:
    """Return whether the diffusion is linear in the data."""
    return model == LONGER or RUNGS[model].linear


def _legends(figure: Figure, height: float, models: Iterable[Model]) -> None:
    """Name the linear models on the left and the nonlinear ones on the right, and explain the other marks below."""
    handles = {model: Line2D([], [], **_style(model), label=arm(*model)) for model in models}
    linear = [handle for model, handle in handles.items() if _is_linear(model)]
    nonlinear = [handle for handle in handles.values() if handle not in linear]
    marks = [Line2D([], [], **STROKE, color=SOFT, linestyle="", label=MEASURED), Patch(**SHADE, label=SMALL)]
    for x, title, shown in ((0, "Linear (open)", linear), (0.5, "Nonlinear (filled)", nonlinear + marks)):
        legend = figure.legend(
            handles=shown, title=title, loc="upper left", bbox_to_anchor=(x, 1), fontsize=10, borderaxespad=0.3
        )
        legend.set_alignment("left")
