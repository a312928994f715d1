"""An entry of a page's table: the text that is shown, and the number in its file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import pandas as pd
from pandas.api.types import is_numeric_dtype

from indm.report.matrix import ABSENT, Form, plain
from indm.report.names import written

MOST_DECIMALS = 6
LARGEST_PLAIN = 1e7
# A number of a table; a whole one is an ``int``.
Number = int | float


@dataclass(frozen=True)
class Entry:
    """An entry: the text that is shown and the number in its file, and the same for its error."""

    text: str = ""
    value: Number | None = None
    error: str = ""
    error_value: Number | None = None

    def __str__(self) -> str:
        return f"{self.text} ± {self.error}" if self.error else self.text or ABSENT


def set_entry(entry: Entry, form: Form) -> str:
    """Write an entry in a table of a document."""
    if entry.value is None:
        return plain(str(entry))
    text = form.number(entry.text, entry.value)
    if entry.error_value is None:
        return text
    return text + form.error(f" ± {form.number(entry.error, entry.error_value)}")


def set_numbers(values: Sequence[Number | None], errors: Sequence[Number | None]) -> list[tuple[str, str]]:
    """Round all numbers of a column, and their errors, in the same way.

    They have two digits of the median error or, without errors, three digits of the median number. Integers stay whole, and very
    large and very small numbers are written with an exponent. An absent number is an empty text.
    """
    known, spread = ([abs(number) for number in numbers if number is not None] for numbers in (values, errors))
    if not spread and all(isinstance(value, int) for value in known):
        return [(_minus("" if value is None else f"{value:,}"), "") for value in values]
    sizes = [size for size in spread or known if 0 < size < math.inf]
    decimals = (1 if spread else 2) - math.floor(math.log10(median(sizes))) if sizes else 0
    is_plain = decimals <= MOST_DECIMALS and max(known, default=0.0) < LARGEST_PLAIN
    form = f"z,.{max(decimals, 0)}f" if is_plain else ".3g"
    return [
        (
            "" if value is None else _minus(format(float(value), form)),
            "" if value is None or error is None else format(float(error), form),
        )
        for value, error in zip(values, errors, strict=True)
    ]


def column_entries(column: str, table: pd.DataFrame) -> list[Entry]:
    """Format a column, with numbers next to their errors, one entry per row."""
    if not is_numeric_dtype(table[column]):
        return [Entry("" if pd.isna(text) else written(column, text)) for text in table[column]]
    # With one seed there is no error over seeds, so the error over images is shown instead.
    empty = pd.Series(pd.NA, table.index, "Float64")
    over_seeds, over_images = (table.get(f"{column}{end}", empty).astype("Float64") for end in ("_se", "_image_se"))
    values, errors = _numbers(table[column]), _numbers(over_seeds.fillna(over_images))
    texts = set_numbers(values, errors)
    return [Entry(*one) for one in _beside(texts, values, errors)]


def _beside(
    texts: list[tuple[str, str]], values: list[Number | None], errors: list[Number | None]
) -> list[tuple[str, Number | None, str, Number | None]]:
    rows = zip(texts, values, errors, strict=True)
    return [(text, value, error_text, error if error_text else None) for (text, error_text), value, error in rows]


def _numbers(column: "pd.Series[float]") -> list[Number | None]:
    return [None if pd.isna(number) else number for number in column.tolist()]


def _minus(text: str) -> str:
    return text.replace("-", "−")
