"""The matrix of verdicts: a row for each claim and place, and a column for each kind of comparison."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from indm.report.catalogue import PLACE
from indm.report.differences import COMPARISONS, CONTROL, FIXED_NUMBER
from indm.report.names import names
from indm.report.results import records


class Row(NamedTuple):
    """A claim at one place: its question, the unit of its effects, the place, and the row of ``claims`` of each kind."""

    question: str
    unit: str
    place: str
    compared: Mapping[str, Mapping[str, Any]]


def kinds_of(table: pd.DataFrame) -> list[str]:
    """List the kinds of comparisons that ``claims`` has, in their order, without exploratory controls."""
    return [kind for kind in (*COMPARISONS, FIXED_NUMBER) if kind in set(table["comparison"])]


def matrix(table: pd.DataFrame, where: Sequence[str] = tuple(PLACE)) -> Iterator[Row]:
    """Yield the rows of the matrix, without exploratory controls.

    Arguments:
        table: rows of ``claims``.
        where: the columns that name a place; rows are kept apart by all columns of :data:`PLACE`, too.
    """
    keys = list(dict.fromkeys(["id", *PLACE, *where]))
    for _, part in table[table["comparison"] != CONTROL].groupby(keys, sort=False, dropna=False):
        first = part.iloc[0]
        place = names(*(str(first[key]) for key in where if not pd.isna(first[key])))
        compared = {row["comparison"]: row for row in records(part)}
        yield Row(first["question"], first["unit"], place, compared)
