"""Shared parts of the figures: colours in the light and the dark theme, the style of each model, intervals and notes.

A model keeps colour, marker and line in every figure. Markers differ as well as colours. Blue to sky are Okabe and Ito's
("Color Universal Design", 2008, https://jfly.uni-koeln.de/color/), so that no reader depends on telling red from green.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from io import BytesIO
from textwrap import fill
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogFormatter
from matplotlib.transforms import Bbox

from indm.report.names import REFERENCE, TREATMENT
from indm.variants import FROZEN_FLOW, SAME_COMPUTE, SAME_PARAMETERS

PAPER, INK, SOFT, GRID = "#fdfdfb", "#1b1b1a", "#6b6b65", "#b9b9b4"
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
VIOLET, BROWN = "#7b3f98", "#7d5a44"
# The colours of the dark theme; templates/style.css has the same paper and inks.
DARK = {
    PAPER: "#16181a",
    INK: "#e6e4de",
    SOFT: "#a9a8a1",
    GRID: "#46484a",
    BLUE: "#5db4ea",
    VERMILLION: "#f08a4b",
    GREEN: "#3cc69a",
    PURPLE: "#e0a0c5",
    ORANGE: "#f0b840",
    SKY: "#8fd0f5",
    VIOLET: "#bd8fd6",
    BROWN: "#c4a08a",
}
_RULES = "".join(
    f'[style*="{kind}: {light}"]{{{kind}: {dark} !important}}'
    for light, dark in DARK.items()
    for kind in ("fill", "stroke")
)
# The background of a figure: without one, its dark lines would vanish on a dark page, as of README.md.
GROUND = (
    f'<g id="ground"><style>@media (prefers-color-scheme: dark) {{{_RULES}}}</style>'
    f'<rect width="100%" height="100%" style="fill: {PAPER}"/></g>'
)
Style = dict[str, Any]
# The style of each model. Colours are few, so that other models share grey.
COLOURED: dict[tuple[str, str], Style] = {
    (REFERENCE, ""): {"color": BLUE, "marker": "o", "linestyle": "-"},
    ("diffenc", ""): {"color": PURPLE, "marker": "v", "linestyle": ":"},
    (TREATMENT, ""): {"color": VERMILLION, "marker": "s", "linestyle": "--"},
    ("mulan", ""): {"color": BROWN, "marker": "^", "linestyle": "-."},
    (REFERENCE, SAME_COMPUTE): {"color": VIOLET, "marker": "^", "linestyle": "-"},
    (REFERENCE, "learned-curve-filter"): {"color": GREEN, "marker": "D", "linestyle": "-."},
    (REFERENCE, "fixed-filter"): {"color": SKY, "marker": "p", "linestyle": "--"},
    (TREATMENT, "learned-curve-filter"): {"color": ORANGE, "marker": "P", "linestyle": ":"},
}
GREY: Style = {"color": SOFT, "linewidth": 0.8, "markersize": 4.0, "markerfacecolor": "none"}
DASHES = (0, (5, 1, 1, 1, 1, 1))
MARKS: dict[tuple[str, str], tuple[str, Any]] = {
    (REFERENCE, SAME_PARAMETERS): ("D", "-."),
    (REFERENCE, "normalised-input"): ("v", ":"),
    (REFERENCE, "learned-range"): ("x", DASHES),
    (REFERENCE, "reconstruction"): ("+", "-"),
    (REFERENCE, "standardised"): ("8", "--"),
    (REFERENCE, "v-prediction"): ("1", "-"),
    (REFERENCE, "preconditioned"): ("^", "--"),
    (REFERENCE, "linear-skip"): ("4", "--"),
    (REFERENCE, "best-scale"): ("x", "-"),
    (REFERENCE, "fixed-scale"): ("2", "--"),
    (REFERENCE, "fixed-curve"): ("3", "--"),
    (REFERENCE, "fixed-curve-filter"): ("d", "--"),
    (REFERENCE, "fixed-filter-v"): ("P", "--"),
    (REFERENCE, "fixed-filter-circles"): ("o", "--"),
    (REFERENCE, "fixed-filter-preconditioned"): ("D", "--"),
    (REFERENCE, "learned-scale"): ("h", "-"),
    (REFERENCE, "learned-affine"): ("s", "-."),
    (REFERENCE, "learned-linear"): ("*", ":"),
    (REFERENCE, "learned-filter"): ("p", "-."),
    (REFERENCE, "learned-curve"): ("o", ":"),
    (TREATMENT, FROZEN_FLOW): ("X", ":"),
    (TREATMENT, "share-eighth"): ("d", ":"),
}
MODELS: dict[tuple[str, str], Style] = {
    **COLOURED,
    **{cell: {**GREY, "marker": marker, "linestyle": line} for cell, (marker, line) in MARKS.items()},
}
# Of models without a style of their own, such as a reader's: those in one panel differ.
OTHERS: list[tuple[str, Any]] = [("H", "-"), ("<", "-."), (">", ":"), ("4", DASHES)]
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
# In inches: a figure, and a figure that a phone shows whole.
WIDTH, COLUMN = 10.0, 4.8
# Letters of a note that fit into a column.
LETTERS = 75
# A logarithmic axis that spans less than this factor has hardly any ticks at 1, 2 or 5.
SHORT = 4.0
# An axis that spans more than this factor has too many of them.
LONG = 100.0


def style_of(model: str, variant: str = "", before: int = 0) -> Style:
    """Look up the colour, marker and line of a model, the same in every figure.

    Arguments:
        model: its family.
        variant: its variant, empty for the plain model.
        before: how many models without a style of their own stand before it in its panel.
    """
    marker, line = OTHERS[before % len(OTHERS)]
    return MODELS.get((model, variant), {**GREY, "marker": marker, "linestyle": line})


def styled(style: Mapping[Any, Any]) -> AbstractContextManager[None]:
    """Draw within the block in a style on top of Matplotlib's defaults, regardless of the user's matplotlibrc."""
    known: dict[Any, Any] = {key: value for key, value in mpl.rcParamsDefault.items() if key != "backend"}
    return mpl.rc_context({**known, **style})


def to_svg(figure: Figure) -> bytes:
    """Write a figure as an SVG without a date, with glyphs as outlines; its note on the error bars is also stored as text."""
    if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        figure.set_layout_engine(RoundedLayoutEngine())
    with BytesIO() as file, styled(STYLE):
        figure.savefig(
            file, format="svg", metadata={"Date": None, "Creator": None, "Description": figure.get_supxlabel()}
        )
        return on_ground(file.getvalue())


class RoundedLayoutEngine(ConstrainedLayoutEngine):
    """Matplotlib's constrained layout, rounded to a millionth of the figure.

    The last bits of its solution may differ between processes, and Matplotlib hashes them into the names of an SVG's clip paths.
    """

    def execute(self, fig: Figure) -> None:
        """Compute the places of the axes, and round them."""
        super().execute(fig)
        for axes in fig.axes:
            bounds = axes.get_position(original=True).bounds
            axes.set_position(Bbox.from_bounds(*(round(edge, 6) for edge in bounds)), which="original")
            # Setting a place takes the axes out of the layout.
            axes.set_in_layout(True)


class PlainLogFormatter(LogFormatter):
    """Write ticks of a logarithmic axis as plain numbers: 1, 2 and 5 of a decade, all on a short axis, only 1 on a long one.

    From 1000 on there are only 1 and 5, and only 1 on an axis beyond 10000, because 1000 and 2000 would touch, and 5000 and 10000.
    """

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Write a tick; its position is not needed."""
        low, high = self.axis.get_view_interval() if self.axis else (1, SHORT)
        usual = "1" if high >= LONG * low else "125" if x < 1000 else "15" if high < 10_000 else "1"
        written = "123456789" if high < SHORT * low or _has_one(low, high) else usual
        return f"{x:g}" if f"{x:e}"[0] in written and f"{x:.5e}"[2:7] == "00000" else ""


def _has_one(low: float, high: float) -> bool:
    """Return whether an axis has at most one tick at 1, 2 or 5, from which nothing can be read."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return sum(low <= digit * 10.0**decade <= high for decade in decades for digit in (1, 2, 5)) < 2


def plain_ticks(axis: Axis) -> None:
    """Write the ticks of a logarithmic axis as plain numbers; a linear one has them."""
    if axis.get_scale() == "linear":
        return
    axis.set_major_formatter(PlainLogFormatter())
    axis.set_minor_formatter(PlainLogFormatter())


def plot_interval(axis: Axes, place: float, value: float, ends: tuple[float, float], style: Mapping[str, Any]) -> None:
    """Draw a value and its interval in a row of a panel."""
    axis.hlines(place, *ends, color=style["color"])
    axis.plot(value, place, **{**style, "linestyle": ""})


def label_rows(axis: Axes, labels: Sequence[str]) -> None:
    """Name the rows of a panel, from the top down."""
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)


def note(figure: Figure, text: str) -> Figure:
    """Write a note below a figure, which describes its error bars."""
    letters = int(LETTERS * figure.get_figwidth() / COLUMN)
    lines = [fill(line, letters) for line in text.splitlines()]
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize="medium")
    return figure


def on_ground(svg: bytes) -> bytes:
    """Put a figure on a background that follows the reader's light or dark theme."""
    head, opening, rest = svg.partition(b"<svg")
    attributes, end, shapes = rest.partition(b">\n")
    return head + opening + attributes + end + f" {GROUND}\n".encode() + shapes
