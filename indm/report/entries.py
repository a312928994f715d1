"""Entries on a track: verdicts on their numbers, the page of an entry, and the records of a track."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from indm.report.differences import Paired
from indm.report.grades import grade
from indm.report.intervals import Numbers, interval
from indm.report.names import name
from indm.report.plotting import COLUMN, SOFT, STYLE, note, style_of, styled
from indm.report.rows import records

ENTRY, DDPMPP, RECORD = "entry", "ddpmpp", "record"
VERDICT_COLUMNS = ["against", "verdict", "effect", "low", "high", "smallest_effect", "unit", "n", "images", "reason"]
UNIT = "bits/dim"
# The states of an accepted entry.
CLAIM, CHECKED, BEST = "claim", "confirmed", "record"
# How a figure marks them: entries are maps in front of DDPM++, so they have its colour once they are confirmed.
CONFIRMED, CLAIMED = style_of(DDPMPP), {"color": SOFT, "marker": "s"}
NOTE = """95 % intervals at equal operations. Circles: confirmed; squares: claims.
Entries of about equal cost stand next to each other."""
# Distances in a figure, as shares of what it spans: from mark to mark of equal cost, and from label to label.
ASIDE, ABOVE = 0.025, 0.075


def column(model: str, seed: int) -> str:
    """Return the name of a training's column."""
    return f"{model}-s{seed}"


def chosen_decoders(runs: pd.DataFrame) -> dict[str, str]:
    """Choose each model's decoder by its mean bound on validation data: the learned one, unless the fixed one is lower.

    Arguments:
        runs: ``model``, ``nelbo`` and ``nelbo_fixed``, a row for each training.
    """
    means = runs.groupby("model", sort=False)[["nelbo", "nelbo_fixed"]].mean()
    return {str(model): "nelbo_fixed" if row.nelbo_fixed < row.nelbo else "nelbo" for model, row in means.iterrows()}


def verdicts(
    numbers: pd.DataFrame, seeds: Sequence[int], smallest: float, models: Iterable[str], *, images: bool
) -> pd.DataFrame:
    """Judge the entry against other models.

    Arguments:
        numbers: bounds in bits/dim, a row for each image or density, and a column for each model and seed.
        seeds: the S seeds.
        smallest: the smallest effect that counts, in bits/dim.
        models: what it is judged against.
        images: whether rows are images, whose choice is a source of error too; otherwise they are averaged for each seed.

    Returns:
        A row for each model; an effect is positive where the entry's bound is lower.
    """
    return pd.DataFrame([_row(numbers, seeds, smallest, model, images) for model in models], columns=VERDICT_COLUMNS)


def _row(numbers: pd.DataFrame, seeds: Sequence[int], smallest: float, against: str, images: bool) -> dict[str, Any]:
    differences = _matrix(numbers, against, seeds) - _matrix(numbers, ENTRY, seeds)
    paired = Paired(tuple(seeds), differences if images else differences.mean(1), len(seeds))
    found = interval(paired.differences)
    verdict = grade(paired, found, smallest)
    row = {
        "against": against,
        "verdict": verdict.word,
        "reason": verdict.reason,
        "smallest_effect": smallest,
        "unit": UNIT,
    }
    return row | found._asdict()


def _matrix(numbers: pd.DataFrame, model: str, seeds: Sequence[int]) -> Numbers:
    """Return the numbers of a model, shape (S, rows)."""
    return np.asarray(numbers[[column(model, seed) for seed in seeds]], dtype=float).T


def page(about: Mapping[str, Any], means: Mapping[str, float], found: pd.DataFrame) -> str:
    """Write the page of an entry.

    Arguments:
        about: the content of ``entry.json``.
        means: the mean bound of each model in bits/dim.
        found: the verdicts.
    """
    track = f"{about['track']}, version {about['version']}"
    lines = [
        f"# {about['label']} on track {track}",
        "",
        *(_sentence(about, row) for row in records(found)),
        "",
    ]
    lines += [
        "| model | bound, bits/dim | decoder | operations of a step | steps | seconds of a step |",
        "|---|--:|---|--:|--:|--:|",
    ]
    for model, facts in about["models"].items():
        numbers = [f"{facts['step_flops']:.4g}", f"{facts['steps']:,}", f"{facts['step_seconds']:.3g}"]
        decoder = "fixed" if facts["decoder"] == "nelbo_fixed" else "learned"
        lines.append(f"| {facts['label']} | {means[model]:.4f} | {decoder} | {' | '.join(numbers)} |")
    return "\n".join([*lines, "", *_notes(about)]) + "\n"


def _sentence(about: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Write the verdict against a model, and how far the entry's bound lies below that model's."""
    label = about["models"][row["against"]]["label"]
    against = "DDPM++" if row["against"] == DDPMPP else f"the record, {label}"
    where = "below" if row["effect"] >= 0 else "above"
    effect = f"{abs(row['effect']):.4f} bits/dim {where} (95 % interval {row['low']:.4f} to {row['high']:.4f} below)"
    return f"- Against {against}: **{name(row['verdict'])}**.\n  Its bound lies {effect}."


def _notes(about: Mapping[str, Any]) -> list[str]:
    status = (
        f"The nonce is `{about['nonce']}`." if about["nonce"] else "Without a nonce, this is a claim of its author."
    )
    made = about["made"]
    # The earlier format has other seeds, and counted a tenth of the steps.
    earlier = about["format"] == "indm-entry-1"
    seconds = "so compare the seconds, too." if earlier else "so compare the seconds, too, which include the counting."
    return [
        f"The {len(about['seeds'])} seeds follow from the {'syntax tree' if earlier else 'bytes'} of entry.py and from the track.",
        status,
        "",
        "All models have trained for the same number of operations. Only matmuls and convolutions count as operations,",
        seconds,
        "",
        f"Made with torch {made['torch']} on",
        f"{made['machine']}.",
    ]


def records_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the accepted entries of a track, lowest bound relative to DDPM++ first.

    Arguments:
        rows: ``label``, ``link``, ``status``, ``cost`` (operations of a step relative to DDPM++), and the verdicts' rows against
            DDPM++ (``ddpmpp``) and the record of its time (``record``, None if that was DDPM++).
    """
    head = ["| entry | status | a step, relative to DDPM++ | against DDPM++ | against the record of its time |"]
    return "\n".join([*head, "|---|---|--:|---|---|", *map(_record_row, sorted(rows, key=_by_effect))])


def _by_effect(row: Mapping[str, Any]) -> float:
    return -float(row["ddpmpp"]["effect"])


def _record_row(row: Mapping[str, Any]) -> str:
    cells = [
        f"[{row['label']}]({row['link']})",
        row["status"],
        f"{row['cost']:.2f}",
        _cell(row["ddpmpp"]),
        _cell(row["record"]),
    ]
    return f"| {' | '.join(cells)} |"


def _cell(verdict: Mapping[str, Any] | None) -> str:
    if verdict is None:
        return "–"
    ends = f"{verdict['low']:.3f} to {verdict['high']:.3f}"
    return f"{name(verdict['verdict'])}, {verdict['effect']:.3f} ({ends})"


def _cost_and_effect(row: Mapping[str, Any]) -> tuple[float, float]:
    return round(row["cost"], 1), row["ddpmpp"]["effect"]


def _draw_group(axis: Axes, cost: float, rows: Sequence[Mapping[str, Any]], apart: tuple[float, float]) -> None:
    """Draw entries of about the same cost next to one another, and their labels to the right, each above the last one."""
    aside, above = apart
    place, label = cost - aside * (len(rows) - 1) / 2, -math.inf
    right = place + aside * len(rows)
    for row in rows:
        found, style = row["ddpmpp"], CLAIMED if row["status"] == CLAIM else CONFIRMED
        axis.vlines(place, found["low"], found["high"], color=style["color"])
        axis.plot(place, found["effect"], marker=style["marker"], color=style["color"], linestyle="none")
        label = max(label + above, found["effect"])
        line = {"arrowstyle": "-", "color": SOFT, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4}
        axis.annotate(row["label"], (place, found["effect"]), xytext=(right, label), va="center", arrowprops=line)
        place += aside


def records_figure(rows: Sequence[Mapping[str, Any]], track: str) -> Figure:
    """Draw how far the bound of each entry lies below DDPM++'s, against the operations of a step.

    Arguments:
        rows: see :func:`records_table`.
        track: the track's name.
    """
    with styled(STYLE):
        figure = Figure(figsize=(COLUMN, 3.2))
        axis = figure.subplots()
        wide = max(row["cost"] for row in rows) - min(row["cost"] for row in rows) or 1.0
        high = max(row["ddpmpp"]["high"] for row in rows) - min(row["ddpmpp"]["low"] for row in rows)
        ordered = sorted(rows, key=_cost_and_effect)
        for cost, group in groupby(ordered, lambda row: _cost_and_effect(row)[0]):
            _draw_group(axis, cost, list(group), (ASIDE * wide, ABOVE * high))
        axis.axhline(0, color=SOFT, linewidth=0.7)
        axis.margins(y=0.25)
        axis.set_xlabel("operations of a step, relative to DDPM++")
        axis.set_ylabel("bits/dim below DDPM++")
        axis.set_title(f"Track {track}")
        return note(figure, NOTE)
