"""The figures of the claims: the treatment against every model that was run, in units of each claim's smallest effect."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from indm.report.grades import starred, with_control
from indm.report.intervals import OVER_IMAGES, Interval, method, named_bars
from indm.report.names import cell_name, comparator
from indm.report.palette import GRID, INK, SOFT
from indm.report.plotting import FIRST, SECOND, WIDTH, note, plot_interval

# The columns that identify a block of rows, in each column of panels.
BLOCK = ["id", "sde", "objective"]
VERDICTS = ["question", "holds", "flow", "control", "repeatability"]
ENDS = ["effect", "low", "high"]
# The height of a row in inches, and of a question in rows.
ROW, QUESTION = 0.165, 1.6
# More dots would hide each other.
MOST_SEEDS = 25
# Length of the linear part of the scale, from 0 to 1, in decades.
LINEAR = 0.25
TICKS = [-1000, -100, -10, -1, 0, 1, 10, 100, 1000]
# For narrow columns.
FEW_TICKS = TICKS[::2]
DECIDING = (
    "These intervals decide: a primary claim’s are simultaneous over all primary claims, a control’s upper end over all controls."
    f"\nRound: against DDPM++; square: against a control. Small dots: single seeds, where at most {MOST_SEEDS}."
    " Shaded: too small to count.\nThe scale is linear from −1 to 1, then logarithmic. Holds? Does the claim hold? Flow? Is it"
    " the flow? * Borderline. “failed 1 | 0”: seeds of INDM | of the other."
)


def claims(table: pd.DataFrame, effects: pd.DataFrame, differences: pd.DataFrame) -> Figure:
    """Draw one block per claim, SDE and objective, with a row for each comparison, in one column per dataset.

    Arguments:
        table: the verdicts to draw.
        effects: the effects against baselines and controls.
        differences: the paired differences of single seeds.
    """
    keys = [*BLOCK, "dataset"]
    rows = effects.dropna(subset=["effect"]).merge(table[[*keys, *VERDICTS]], on=keys)
    datasets = list(rows["dataset"].unique())
    lines = 1 if len(datasets) == 1 else 2
    rows = _placed(rows, lines)
    seeds = differences.merge(rows[[*keys, "against", "place", "n", "smallest_effect"]], on=[*keys, "against"])
    seeds = seeds[seeds["n"] <= MOST_SEEDS]
    rows["method"] = [_method(row) for _, row in rows.iterrows()]
    # An interval over images only would look like the others, although it does not cover other trainings.
    rows.loc[rows["method"] == OVER_IMAGES, ["low", "high"]] = np.nan
    figure = Figure(figsize=(WIDTH, ROW * float(rows["place"].max()) + 1.6))
    axes = figure.subplots(1, len(datasets), squeeze=False, sharex=True, sharey=True)[0]
    for axis, dataset in zip(axes, datasets, strict=True):
        of_rows, of_seeds = (found[found["dataset"] == dataset] for found in (rows, seeds))
        _draw(axis, of_rows, of_seeds, "right" if lines == 1 else "left")
        axis.set_title(dataset if len(datasets) > 1 else "", pad=16, fontweight="bold")
    _frame(axes[0], rows, lines)
    seeds_by_method = rows[rows["method"] != ""].groupby("method")["n"]
    bars = named_bars({str(kind): found.astype(int) for kind, found in seeds_by_method})
    return note(figure, f"{bars}\n{DECIDING}")


def _method(row: "pd.Series[Any]") -> str:
    """Name the method of an interval."""
    effect, low, high = row[ENDS]
    return method(Interval(effect, low, high, row["n"], None if pd.isna(row["images"]) else row["images"]))


def _placed(rows: pd.DataFrame, lines: int) -> pd.DataFrame:
    """Give each row its place from the top, the same in all columns, with space for the question above each block.

    Arguments:
        rows: the effects.
        lines: number of lines for the question and its verdicts.
    """
    rows = rows.assign(against_what=rows["against"].map(comparator))
    cells = rows[[*BLOCK, "against_what"]].drop_duplicates()
    cells = cells.assign(block=cells.groupby(BLOCK, sort=False).ngroup()).sort_values("block", kind="stable")
    cells["place"] = np.arange(len(cells)) + (lines - 1 + QUESTION) * (cells["block"] + 1)
    return rows.merge(cells, on=[*BLOCK, "against_what"])


def _draw(axis: Axes, rows: pd.DataFrame, seeds: pd.DataFrame, verdicts: str) -> None:
    """Draw a column: the verdict of each comparison to the right of its row, and both verdicts of a claim above its block."""
    axis.axvspan(0, 1, color=GRID, alpha=0.35, linewidth=0)
    axis.axvline(0, color=INK, linewidth=0.8)
    dots = seeds["difference"] / seeds["smallest_effect"]
    axis.plot(dots, seeds["place"] + 0.3, linestyle="", marker=".", markersize=2.5, color=SOFT)
    for _, row in rows.iterrows():
        value, low, high = row[ENDS].astype(float) / row["smallest_effect"]
        plot_interval(axis, row["place"], value, (low, high), FIRST if row["role"] == "baseline" else SECOND)
        _write(axis, 1.01, row["place"], row["verdict"] + _failures(row), fontsize=7)
    for _, row in rows.drop_duplicates(BLOCK).iterrows():
        flow = with_control(row["flow"], comparator(row["control"]))
        text = f"Holds? {starred(row['holds'], row['repeatability'])}" + (f"   Flow? {flow}" if flow else "")
        _write(
            axis,
            float(verdicts == "right"),
            _above(row),
            text,
            ha=verdicts,
            fontweight="bold",
            fontsize=7 if verdicts == "right" else 6,
        ).set_in_layout(False)
    axis.spines["left"].set_visible(False)
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)
    axis.set_xscale("symlog", linthresh=1, linscale=LINEAR)
    axis.set_xlabel("effect / the smallest effect that counts")
    axis.annotate("← DDPM++ better", (0, 1), (0, 3), "axes fraction", "offset points", fontsize=7)
    axis.annotate("INDM better →", (1, 1), (0, 3), "axes fraction", "offset points", ha="right", fontsize=7)


def _above(row: "pd.Series[Any]") -> float:
    return float(row["place"]) - 1.1


def _write(axis: Axes, x: float, place: float, text: str, **style: Any) -> Annotation:
    return axis.annotate(text, (x, place), xycoords=("axes fraction", "data"), va="center", **style)


def _failures(row: "pd.Series[Any]") -> str:
    """Write how many seeds failed; empty if all are sound."""
    if not row["failed_treatment"] + row["failed_against"]:
        return ""
    return f", failed {row['failed_treatment']} | {row['failed_against']}"


def _frame(axis: Axes, rows: pd.DataFrame, lines: int) -> None:
    """Label the rows, write the questions, and set the scale, which all columns share."""
    named = rows.drop_duplicates("place")
    axis.set_yticks(named["place"], named["against_what"], fontsize=7.5)
    axis.set_ylim(float(named["place"].max()) + 0.8, -0.2)
    for _, row in named.drop_duplicates(BLOCK).iterrows():
        question = f"{row['question']}  {cell_name('', str(row['sde']), str(row['objective']))}"
        place: dict[str, Any] = {"xycoords": ("figure fraction", "data"), "va": "center", "fontweight": "bold"}
        axis.annotate(question, (0.01, _above(row) - lines + 1), **place, fontsize=8).set_in_layout(False)
    values = np.append(rows[ENDS].div(rows["smallest_effect"], axis=0).to_numpy(float), [-1.5, 1.5])
    axis.set_xlim(1.2 * np.nanmin(values), 1.2 * np.nanmax(values))
    ticks = TICKS if lines == 1 else FEW_TICKS
    axis.set_xticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks], fontsize=7.5)
    axis.set_xlim(1.2 * np.nanmin(values), 1.2 * np.nanmax(values))
