"""Which trials of a search are trained again, and which is the best: by their ``target``, the lowest first."""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def spread(rows: Sequence[Row], count: int) -> list[Row]:
    """Choose ``count`` trials spread evenly over the ranking, the best and the worst among them; all, if they are fewer.

    Arguments:
        rows: the trials that did not fail.
        count: at least two.
    """
    ranked, count = sorted(rows, key=_place), min(count, len(rows))
    return [ranked[round(i * (len(ranked) - 1) / max(count - 1, 1))] for i in range(count)]


def best(rows: Sequence[Row]) -> Row | None:
    """Return the best trial: of those confirmed at full length, where any was; ``None`` where there are none.

    Arguments:
        rows: the trainings that did not fail, of phases ``short`` and ``confirm``.
    """
    confirmed = [row for row in rows if row["phase"] == "confirm"]
    return min(confirmed or rows, key=_place, default=None)


def _place(row: Row) -> tuple[float, int]:
    """Order trials by target, and the earlier one first where two have the same."""
    return row["target"], row["trial"]
