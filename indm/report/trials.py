"""The choice among the trials of a search: apart from the tables, whose columns would otherwise run searches again."""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def spread(rows: Sequence[Row], count: int, objective: str) -> list[Row]:
    """Choose ``count`` trials (at least two), spread evenly over the ranking from best to worst; all, if there are fewer."""
    first, count = best(rows, objective), min(count, len(rows))
    ranked = sorted(rows, key=lambda row: (row != first, *_place(row)))
    return [ranked[round(i * (len(ranked) - 1) / max(count - 1, 1))] for i in range(count)]


def best(rows: Sequence[Row], objective: str) -> Row | None:
    """Return the best trial, among the trials confirmed at full length if there are any; ``None`` without trials.

    For the ``nll`` objective, it has the lowest target, the validation NELBO. For the ``fid`` objective, it has the lowest
    validation NELBO of the trials whose FID is at most one standard error of the lowest FID above it.

    Arguments:
        rows: the completed trainings of the ``short`` and ``confirm`` phases.
        objective: the objective of their training.
    """
    rows = [row for row in rows if row["phase"] == "confirm"] or rows
    lowest = min(rows, key=_place, default=None)
    if lowest is None or objective != "fid":
        return lowest
    tied = [row for row in rows if row["target"] <= lowest["target"] + lowest["target_se"]]
    return min(tied, key=lambda row: (row["valid_nelbo"], *_place(row)))


def _place(row: Row) -> tuple[float, int]:
    """Order trials by target, and trials of equal target by their number."""
    return row["target"], row["trial"]
