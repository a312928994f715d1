"""The multiples of training in docs/results/README.md: a table of all published suites, and a figure of them against length."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from docs.answers import NARROW, RESULTS, SUITES, WIDTH
from docs.report import is_finished
from indm.bench.kept.page import replace_block
from indm.report.matrix import ABSENT, table
from indm.report.multiples import Arm, Trained, read_multiples, written
from indm.report.names import REFERENCE, TREATMENT, arm
from indm.report.plotting import INK, SOFT, Style, style_of, styled, to_svg

# Suites with a longer training of DDPM++ that are not rows of the table of means.
FURTHER = {"cifar10-length": "CIFAR-10, 9,000 steps"}
# The columns of the table and the lines of the figure.
MODELS: tuple[Arm, ...] = (
    (REFERENCE, "fixed-filter"),
    (REFERENCE, "preconditioned"),
    (REFERENCE, "learned-curve-filter"),
    (TREATMENT, ""),
)
# A panel per dataset on which two lengths are published, with its suites in the order of their lengths.
PANELS = {
    "CIFAR-10": ("cifar10-maps", "cifar10-3000", "cifar10-length"),
    "Fashion-MNIST": ("fashion-full", "fashion-long"),
}
# In inches: a panel, its left edges, the legend above and the label below.
PANEL, LEFT, TOP, BOTTOM = (2.35, 2.0), (0.6, 3.45), 0.95, 0.55
# Lengths beside each other, so that intervals of equal steps do not hide each other.
ASIDE = 1.06
TICKS = (1, 1.5, 2, 3, 5, 10)
COST: Style = {"linewidth": 1.0, "linestyle": "--"}


def with_multiples(page: str, published: Path) -> str:
    """Return the page of all results with the table of multiples; unchanged if no suite has one.

    Arguments:
        page: its text.
        published: the folder with one folder per published suite, which has ``tables/``.

    Raises:
        ArtifactError: if a table is missing or damaged, or the page has no place for the table.
    """
    found = multiples_of(published, {**SUITES, **FURTHER})
    if not found:
        return page
    shown = [model for model in MODELS if any(model in models for models in found.values())]
    rows = [
        [(SUITES | FURTHER)[suite], *(_cell(models[model]) if model in models else ABSENT for model in shown)]
        for suite, models in found.items()
    ]
    headings = ("multiple of training", *(arm(*model) for model in shown))
    return replace_block(page, "multiples", table(headings, rows, numbers=True), RESULTS)


def draw_multiples(published: Path) -> dict[str, bytes]:
    """Draw the figure as an SVG document, by its name; empty if no dataset has two published lengths."""
    panels = {title: multiples_of(published, suites) for title, suites in PANELS.items()}
    drawn = {title: [*suites.values()] for title, suites in panels.items() if len(suites) > 1}
    if not drawn:
        return {}
    with styled(NARROW):
        return {"multiples": to_svg(against_length(drawn))}


def multiples_of(published: Path, suites: Iterable[str]) -> dict[str, dict[Arm, Trained]]:
    """Read the models of :data:`MODELS` in each published suite that has any, by the suite's name."""
    found = {}
    for suite in suites:
        if is_finished(published, suite):
            models = {one.arm: one for one in read_multiples(published / suite / "tables")}
            found[suite] = {model: models[model] for model in MODELS if model in models}
    return {suite: models for suite, models in found.items() if models}


def _cell(found: Trained) -> str:
    """Write a multiple, and below it the cost of a step and whether the multiple is extrapolated."""
    below = f"cost × {found.flops:.2f}{', extrapolated' * found.multiple.extrapolated}"
    return f"{written(found.multiple)}<br><sub>{below}</sub>"


def against_length(panels: Mapping[str, Sequence[Mapping[Arm, Trained]]]) -> Figure:
    """Draw each model's multiple against the length of training, with the cost of its step, a panel per dataset."""
    height = TOP + PANEL[1] + BOTTOM
    figure = Figure(figsize=(WIDTH, height))
    shown = [one for suites in panels.values() for models in suites for one in models.values()]
    top = max(TICKS[-1], *(one.multiple.value for one in shown))
    for place, (title, suites) in enumerate(panels.items()):
        edges = (LEFT[place] / WIDTH, BOTTOM / height, PANEL[0] / WIDTH, PANEL[1] / height)
        axis = figure.add_axes(edges)
        _frame(axis, title, suites, top)
        for number, model in enumerate(MODELS):
            _draw(axis, [models[model] for models in suites if model in models], ASIDE ** (number - 1.5), top)
        axis.tick_params(labelleft=place == 0)
        for artist in axis.get_children():
            artist.set_clip_on(False)
    figure.text(0.5, 0.08 / height, "steps of training", ha="center", va="bottom")
    figure.text(0.01, (height - TOP + BOTTOM) / 2 / height, "multiple of training", va="center", rotation=90)
    models = [model for model in MODELS if any(one.arm == model for one in shown)]
    handles = [Line2D([], [], **style_of(*model), label=arm(*model)) for model in models]
    cost = Line2D([], [], **COST, color=SOFT, label="cost of its step")
    figure.legend(handles=[*handles, cost], loc="upper left", ncols=2, fontsize=10, borderaxespad=0.3)
    return figure


def _frame(axis: Axes, title: str, suites: Sequence[Mapping[Arm, Trained]], top: float) -> None:
    """Set the title and the logarithmic scales of a panel, with a line where a model gains nothing."""
    steps = sorted({one.steps for models in suites for one in models.values()})
    axis.set_title(title, loc="left", fontweight="bold")
    axis.set(xscale="log", yscale="log", xlim=(steps[0] / 1.3, steps[-1] * 1.3), ylim=(0.9, top * 1.05))
    axis.axhline(1, color=INK, linewidth=0.8)
    for scale, ticks in ((axis.xaxis, steps), (axis.yaxis, TICKS)):
        scale.set_ticks(ticks, minor=False)
        scale.set_ticks([], minor=True)
        scale.set_major_formatter("{x:,g}")


def _draw(axis: Axes, trained: Sequence[Trained], aside: float, top: float) -> None:
    """Draw a model's multiples with their intervals, and the cost of its step at each length; open ends reach the frame."""
    if not trained:
        return
    style = style_of(*trained[0].arm)
    at = [one.steps * aside for one in trained]
    axis.plot(at, [one.multiple.value for one in trained], **style)
    for x, one in zip(at, trained, strict=True):
        low, high = (one.multiple.low or 0.9), min(one.multiple.high, top * 1.05)
        axis.vlines(x, max(low, 0.9), high, color=style["color"], linewidth=1.2)
        if not math.isnan(one.flops):
            axis.plot([one.steps / 1.15, one.steps * 1.15], [one.flops] * 2, color=style["color"], **COST)
