"""The figures of the claims: the treatment against every model that was run, in units of each claim's smallest effect."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from indm.report.differences import SIMPLE
from indm.report.intervals import FEWEST_SEEDS, Interval, method, named_bars
from indm.report.names import cell_name, comparator, name
from indm.report.plotting import GRID, INK, SOFT, WIDTH, note, plot_interval, style_of

# The columns that identify a block of rows, in each column of panels.
BLOCK = ["id", "sde", "objective"]
ENDS = ["effect", "low", "high"]
# The height of a row in inches, and of a question in rows.
ROW, QUESTION = 0.165, 1.6
# More dots would hide each other.
MOST_SEEDS = 25
# Length of the linear part of the scale, from 0 to 1, in decades.
LINEAR = 0.25
TICKS = [-1000, -100, -10, -1, 0, 1, 10, 100, 1000]
# For narrow columns, and for effects that stay below ten.
FEW_TICKS = TICKS[::2]
CLOSE_TICKS = [-5, -2, -1, 0, 1, 2, 5]
SIMULTANEOUS = "\nSimultaneous: over all comparisons of primary claims that answer one question."
MARKS = (
    f"\nA mark has the colour of the model over which INDM is compared. Small dots: single seeds, where at most {MOST_SEEDS}."
    " Shaded: too small to count.\nThe scale is linear from −1 to 1, then logarithmic. “failed 1 | 0”: seeds of INDM | the other."
)


def claims(table: pd.DataFrame, differences: pd.DataFrame) -> Figure:
    """Draw one block per claim, SDE and objective, with a row for each comparison, in one column per dataset."""
    rows = table.dropna(subset=["effect"])
    datasets = list(rows["dataset"].unique())
    rows = _placed(rows)
    keys = [*BLOCK, "dataset", "comparison", "against"]
    seeds = differences.merge(rows[[*keys, "place", "n", "smallest_effect"]], on=keys)
    seeds = seeds[seeds["n"] <= MOST_SEEDS]
    ends = rows[[*ENDS, "n", "images"]].astype(object).to_numpy()
    known = (Interval(row[0], row[1], row[2], row[3], None if pd.isna(row[4]) else row[4]) for row in ends)
    rows["method"] = [*map(method, known)]
    # An interval over images only does not cover other trainings, and one over two seeds would squeeze the others.
    rows.loc[rows["n"] < FEWEST_SEEDS, ["low", "high"]] = np.nan
    figure = Figure(figsize=(WIDTH, ROW * float(rows["place"].max()) + 1.6))
    axes = figure.subplots(1, len(datasets), squeeze=False, sharex=True, sharey=True)[0]
    for axis, dataset in zip(axes, datasets, strict=True):
        _draw(axis, *(found[found["dataset"] == dataset] for found in (rows, seeds)))
        axis.set_title(dataset if len(datasets) > 1 else "", pad=16, fontweight="bold")
    largest = float(np.nanmax(np.abs(rows[ENDS].div(rows["smallest_effect"], axis=0).to_numpy(float))))
    _frame(axes[0], rows, seeds, FEW_TICKS if len(datasets) > 1 else CLOSE_TICKS if largest < 10 else TICKS)
    seeds_by_method = rows[rows["method"] != ""].groupby("method")["n"]
    kinds = {str(kind): found.astype(int) for kind, found in seeds_by_method}
    if rows["family"].iloc[0] != "primary":
        return note(figure, named_bars(kinds) + MARKS)
    return note(figure, named_bars(kinds, "simultaneous interval") + SIMULTANEOUS + MARKS)


def known_claims(table: pd.DataFrame, differences: pd.DataFrame) -> Figure:
    """Draw claims about known densities, with a block for each density and length below each other; see :func:`claims`."""
    return claims(*(rows.assign(sde=rows["dataset"], dataset="") for rows in (table, differences)))


def _placed(rows: pd.DataFrame) -> pd.DataFrame:
    """Give each row its place from the top, the same in all columns, with space for the question above each block."""
    cells = rows[[*BLOCK, "comparison", "against"]].drop_duplicates()
    cells = cells.assign(block=cells.groupby(BLOCK, sort=False).ngroup()).sort_values("block", kind="stable")
    cells["place"] = np.arange(len(cells)) + QUESTION * (cells["block"] + 1)
    return rows.merge(cells, on=[*BLOCK, "comparison", "against"])


def _draw(axis: Axes, rows: pd.DataFrame, seeds: pd.DataFrame) -> None:
    """Draw a column, with the verdict of each comparison to the right of its row."""
    axis.axvspan(-1, 1, color=GRID, alpha=0.35, linewidth=0)
    axis.axvline(0, color=INK, linewidth=0.8)
    dots = seeds["difference"] / seeds["smallest_effect"]
    axis.plot(dots, seeds["place"] + 0.3, linestyle="", marker=".", markersize=2.5, color=SOFT)
    for _, row in rows.iterrows():
        value, low, high = row[ENDS].astype(float) / row["smallest_effect"]
        plot_interval(axis, row["place"], value, (low, high), style_of(*row["against"].split()))
        verdict, failed = name(row["verdict"]), row[["failed_treatment", "failed_against"]]
        verdict += f", failed {failed.iloc[0]} | {failed.iloc[1]}" if failed.any() else ""
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center"}
        axis.annotate(verdict, (1.01, row["place"]), **place, fontsize=7)
    axis.spines["left"].set_visible(False)
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)
    axis.set_xscale("symlog", linthresh=1, linscale=LINEAR)
    axis.set_xlabel("effect / the smallest effect that counts")
    axis.annotate("← other model better", (0, 1), (0, 3), "axes fraction", "offset points", fontsize=7)
    axis.annotate("INDM better →", (1, 1), (0, 3), "axes fraction", "offset points", ha="right", fontsize=7)


def _frame(axis: Axes, rows: pd.DataFrame, seeds: pd.DataFrame, ticks: list[int]) -> None:
    """Label the rows, write the questions, and set the scale, which all columns share."""
    named = rows.drop_duplicates("place")
    simple = named["comparison"] == SIMPLE
    labels = named["against"].map(comparator) + simple.map({True: " (simple control)", False: ""})
    axis.set_yticks(named["place"], labels.tolist(), fontsize=7.5)
    axis.set_ylim(float(named["place"].max()) + 0.8, -0.2)
    for _, row in named.drop_duplicates(BLOCK).iterrows():
        question = f"{row['question']}  {cell_name('', str(row['sde']), str(row['objective']))}"
        place: dict[str, Any] = {"xycoords": ("figure fraction", "data"), "va": "center", "fontweight": "bold"}
        axis.annotate(question, (0.01, float(row["place"]) - 1.1), **place, fontsize=8).set_in_layout(False)
    ends = rows[ENDS].div(rows["smallest_effect"], axis=0).to_numpy(float)
    values = np.concatenate(
        [ends.ravel(), (seeds["difference"] / seeds["smallest_effect"]).to_numpy(float), [-1.5, 1.5]]
    )
    axis.set_xticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks], fontsize=7.5)
    axis.set_xlim(1.2 * np.nanmin(values), 1.2 * np.nanmax(values))
