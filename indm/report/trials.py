"""The choice among the trials of a search: apart from the tables, whose columns would otherwise run searches again."""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def spread(rows: Sequence[Row], count: int) -> list[Row]:
    """Choose ``count`` trials (at least two), spread evenly over the ranking from best to worst; all, if there are fewer."""
    ranked, count = sorted(rows, key=_place), min(count, len(rows))
    return [ranked[round(i * (len(ranked) - 1) / max(count - 1, 1))] for i in range(count)]


def best(rows: Sequence[Row]) -> Row | None:
    """Return the best trial, among the trials confirmed at full length if there are any; ``None`` without trials.

    Arguments:
        rows: the completed trainings of the ``short`` and ``confirm`` phases.
    """
    confirmed = [row for row in rows if row["phase"] == "confirm"]
    return min(confirmed or rows, key=_place, default=None)


def _place(row: Row) -> tuple[float, int]:
    """Order trials by target, and trials of equal target by their number."""
    return row["target"], row["trial"]
