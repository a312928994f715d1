"""The figure of the claims: effects of very different size and unit on one scale, that of each claim's smallest effect."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from indm.report.export import effect_with_ends
from indm.report.intervals import OVER_IMAGES, named_bars
from indm.report.names import names
from indm.report.palette import GRID, INK
from indm.report.plotting import FIRST, GROUP, SECOND, label_rows, note, plot_interval, stacked

# The panels; a claim that asks for no size has none that could be its unit.
PRIMARY, IMAGES, TOYS, NO_SIZE = "Primary claims", "Exploratory claims", "Claims in two dimensions", "In {}"
READING = (
    "Between −1 and 1 the scale is linear, beyond logarithmic; shaded: too small to count."
    " Square: against the control that decides."
)
NUMBERS = ["effect", "low", "high"]
TICKS = [-100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100]


def claims(table: pd.DataFrame) -> Figure:
    """Draw the effect behind each verdict with its interval, and below it the effect against the control that decides."""
    rows = _rows(table)
    panels = list(rows.dropna(subset=["effect"]).groupby("panel", sort=False))
    figure, axes = stacked(panels)
    ends = _ends(rows)
    for axis, (_, part) in zip(axes, panels, strict=True):
        _draw(axis, part)
        if part["smallest_effect"].iloc[0] > 0:
            _scale(axis, ends)
    kinds = table.dropna(subset=["effect"]).groupby("test", sort=False)["n"]
    seeds = {str(test): n.astype(int) for test, n in kinds}
    bars = named_bars(seeds | ({OVER_IMAGES: [1]} if OVER_IMAGES in seeds else {}))
    return note(figure, f"{bars}\n{READING}")


def _rows(table: pd.DataFrame) -> pd.DataFrame:
    """List what to draw: each effect, then that against the control, scaled, with its panel, label and text."""
    # Beside the others, an interval that knows nothing of other trainings would look like one of them.
    known = table["test"] != OVER_IMAGES
    table = table.assign(low=table["low"].where(known), high=table["high"].where(known))
    table = table.assign(panel=[_panel(row) for _, row in table.iterrows()])
    against = {f"control_{column}": column for column in NUMBERS}
    controlled = table[table["control"] != ""].drop(columns=NUMBERS).rename(columns=against)
    rows = pd.concat([table.assign(control=""), controlled]).sort_index(kind="stable")
    return rows.sort_values("panel", key=lambda panels: panels.map(_order), kind="stable")


def _panel(row: "pd.Series[Any]") -> str:
    if row["smallest_effect"] == 0:
        return NO_SIZE.format(row["unit"])
    if row["family"] == "primary":
        return PRIMARY
    return IMAGES if row["sde"] else TOYS


def _order(panel: str) -> int:
    known = (PRIMARY, IMAGES, TOYS)
    return known.index(panel) if panel in known else len(known)


def _scaled(rows: pd.DataFrame) -> NDArray[np.float64]:
    """Return effect, low and high of each row, shape (R, 3), in units of the smallest effect where there is one."""
    smallest = rows["smallest_effect"]
    scaled: NDArray[np.float64] = rows[NUMBERS].div(smallest.where(smallest > 0, 1.0), axis=0).to_numpy(float)
    return scaled


def _ends(rows: pd.DataFrame) -> tuple[float, float]:
    """Return the ends of the axis that all claims of some size share."""
    values = np.append(_scaled(rows[rows["smallest_effect"] > 0]), [-1.5, 1.5])
    return 1.2 * float(np.nanmin(values)), 1.2 * float(np.nanmax(values))


def _scale(axis: Axes, ends: tuple[float, float]) -> None:
    axis.axvspan(0, 1, color=GRID, alpha=0.35, linewidth=0)
    axis.set_xscale("symlog", linthresh=1)
    axis.set_xticks(TICKS, [f"{tick:g}".replace("-", "−") for tick in TICKS])
    axis.set_xlim(ends)
    axis.set_xlabel("effect / the claim’s smallest effect")


def _draw(axis: Axes, part: pd.DataFrame) -> None:
    """Draw a panel: on the right of each row stand its numbers, in their own unit, and the verdict."""
    for place, ((_, row), (value, low, high)) in enumerate(zip(part.iterrows(), _scaled(part), strict=True)):
        plot_interval(axis, place, value, (low, high), SECOND if row["control"] else FIRST)
        axis.annotate(_text(row), (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=7)
    label_rows(axis, [_label(row) for _, row in part.iterrows()])
    axis.tick_params(axis="y", labelsize=7.5)
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.set_xlabel(f"effect, {part['unit'].iloc[0]}")


def _label(row: "pd.Series[Any]") -> str:
    if row["control"]:
        return f"against {row['control']}"
    return names(row["id"].replace("-", " "), *(str(row[key]) for key in GROUP))


def _text(row: "pd.Series[Any]") -> str:
    numbers = effect_with_ends({column: row[column] for column in NUMBERS}).replace("-", "−")
    verdict = "" if row["control"] else f"; {row['holds']}"
    return f"{numbers} {row['unit']}{verdict}"
