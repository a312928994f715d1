"""Figures from the suite's tables, as SVG files whose bytes are reproducible."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from indm.report.catalogue import PLACE
from indm.report.figures_claims import claims, known_claims
from indm.report.figures_ladder import ablation
from indm.report.figures_lines import (
    GAINS,
    discretization,
    error_compute,
    flow,
    learning_curve_flops,
    learning_curve_step,
)
from indm.report.figures_tuning import ARM, tuning
from indm.report.intervals import OVER_MANY
from indm.report.palette import INK
from indm.report.plotting import FIRST, STYLE, label_rows, note, plot_interval, stacked, styled, to_svg
from indm.report.results import read_rows
from indm.report.schema import require

# The row from which the others deviate, and the names of deviations.
BASE = "base"
DEVIATIONS = {
    "num_samples": "{} images",
    "reference": "against the {} split",
    "implementation": "{}",
    "rounding": "pixels: {}",
    "denoise": "denoise: {}",
    "weights": "weights: {}",
}


@dataclass(frozen=True)
class Plot:
    """A figure.

    Arguments:
        table: the table it reads.
        columns: the columns that it needs.
        value: the column that it shows.
        draw: the function that draws it.
        beside: further tables that it reads.
        of: a query that selects its rows; empty for all rows.
    """

    table: str
    columns: tuple[str, ...]
    value: str
    draw: Callable[..., Figure]
    beside: tuple[str, ...] = ()
    of: str = ""


def plot_figures(tables: Path) -> dict[str, bytes]:
    """Draw every figure whose table exists and has a number to show.

    Raises:
        ArtifactError: if a table lacks a column that its figure needs.
    """
    figures = {}
    for figure, drawing in FIGURES.items():
        table = _read(tables / f"{drawing.table}.csv", (*drawing.columns, drawing.value))
        rows = table.query(drawing.of) if drawing.of and len(table) else table
        if rows.get(drawing.value, pd.Series()).notna().any():
            beside = [_read(tables / f"{name}.csv", BESIDE[name]) for name in drawing.beside]
            with styled(STYLE):
                figures[figure] = to_svg(drawing.draw(rows, *beside))
    return figures


def protocol(table: pd.DataFrame) -> Figure:
    """Draw the change in FID for each deviation from the suite's protocol, one panel per dataset."""
    panels = list(table[table["factor"] != BASE].dropna(subset=["difference"]).groupby("dataset", sort=False))
    figure, axes = stacked(panels)
    for axis, (_, part) in zip(axes, panels, strict=True):
        errors = OVER_MANY * part["difference_image_se"]
        for place, (value, bar) in enumerate(zip(part["difference"], errors, strict=True)):
            plot_interval(axis, place, value, (value - bar, value + bar), FIRST)
        cells = zip(part["factor"], part["setting"], strict=True)
        label_rows(axis, [DEVIATIONS[factor].format(setting) for factor, setting in cells])
        axis.axvline(0, color=INK, linewidth=0.8)
        axis.set_xlabel("FID, difference from the suite’s protocol (left of 0: lower)")
    return note(figure, "Error bars: 95 % interval over images, of one run.")


# The columns that the figures of the claims need.
CLAIMS = (*PLACE, "id", "family", "comparison", "treatment", "against", "question", "verdict", "n", "images")
CLAIMS += ("low", "high", "smallest_effect", "planned", "failed_treatment", "failed_against")
BESIDE = {
    "differences": (*PLACE, "id", "comparison", "against", "seed", "difference"),
    "claims": ("unit", "smallest_effect"),
    "tuned": (*ARM, "reading", "trial", "steps"),
}
# Claims about INDM whose effects can be divided by a smallest effect.
DRAWN = "treatment == 'indm' and smallest_effect > 0"
SEEDS = ("differences",)
FIGURES = {
    "claims": Plot("claims", CLAIMS, "effect", claims, SEEDS, f"family == 'primary' and sde != '' and {DRAWN}"),
    "claims-exploratory": Plot(
        "claims", CLAIMS, "effect", claims, SEEDS, f"family != 'primary' and sde != '' and {DRAWN}"
    ),
    "claims-known": Plot(
        "claims", CLAIMS, "effect", known_claims, SEEDS, f"family == 'primary' and sde == '' and {DRAWN}"
    ),
    "discretization": Plot(
        "discretization",
        (*PLACE, "model", "seeds", "sampler", "steps", "sound", "fid_low", "fid_high"),
        "fid",
        discretization,
    ),
    "learning-curve-flops": Plot("learning_curve", (*PLACE, "model", "seeds", "flops"), "nll", learning_curve_flops),
    "learning-curve-step": Plot("learning_curve", (*PLACE, "model", "seeds", "step"), "nll", learning_curve_step),
    "flow": Plot("flow", (*PLACE, "model", "seeds", *GAINS, *(f"{gain}_se" for gain in GAINS)), GAINS[0], flow),
    "ablation": Plot("ablation", (*ARM, "pairs"), "nll_difference", ablation, ("claims",)),
    "error-compute": Plot(
        "toy2d",
        (*PLACE, "model", "variant", "seeds", "train_flops", "nelbo_excess_se"),
        "nelbo_excess",
        error_compute,
    ),
    "tuning": Plot(
        "tuning", (*ARM, "trial", "phase", "steps", "state", "target_image_se"), "target", tuning, ("tuned",)
    ),
    "protocol": Plot("protocol", ("dataset", "factor", "setting", "difference_image_se"), "difference", protocol),
}


def _read(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """Read a table; a missing one gives no rows, and the page names it. A table without rows need not have all columns."""
    table = read_rows(path) if path.is_file() else pd.DataFrame()
    if len(table):
        require(path, table, columns)
    return table
