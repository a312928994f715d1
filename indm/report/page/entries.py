"""An entry of a page's table: the text that is shown, and the value in its file."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import pandas as pd

from indm.report.grades import BETTER, NOT_BETTER, UNDECIDED, WORSE
from indm.report.names import written

GRADES = {BETTER: "✓", WORSE: "✗", NOT_BETTER: "−", UNDECIDED: "?"}
MOST_DECIMALS = 6
LARGEST_PLAIN = 1e7


@dataclass(frozen=True)
class Entry:
    """An entry: the text that is shown and the value in its file, the same for its error, and the symbol of a grade."""

    text: str = ""
    value: str = ""
    error: str = ""
    error_value: str = ""
    symbol: str = ""

    def __str__(self) -> str:
        return f"{self.text} ± {self.error}" if self.error else self.text or "–"


def set_numbers(values: Sequence[str], errors: Sequence[str]) -> list[tuple[str, str]]:
    """Round all numbers of a column, and their errors, in the same way.

    They have two digits of the median error or, without errors, three digits of the median number. Integers stay whole, and very
    large and very small numbers are written with an exponent. An empty text stays empty.
    """
    if not any(errors) and all(value.lstrip("-").isdigit() for value in values if value):
        return [(_minus(f"{int(value):,}") if value else "", "") for value in values]
    numbers, spread = ([abs(float(text)) for text in texts if text] for texts in (values, errors))
    sizes = [size for size in spread or numbers if size]
    decimals = (1 if spread else 2) - math.floor(math.log10(median(sizes))) if sizes else 0
    plain = decimals <= MOST_DECIMALS and max(numbers, default=0.0) < LARGEST_PLAIN
    form = f"z,.{max(decimals, 0)}f" if plain else ".3g"
    return [
        (_minus(format(float(value), form)) if value else "", format(float(error), form) if value and error else "")
        for value, error in zip(values, errors, strict=True)
    ]


def column_entries(column: str, table: pd.DataFrame) -> list[Entry]:
    """Format the texts of a column, with numbers next to their errors, one entry per row."""
    texts = list(table[column])
    if not all(is_number(text) for text in texts if text):
        return [text_entry(column, text) for text in texts]
    # With one seed there is no error over seeds, so the error over images is shown instead.
    empty = pd.Series("", index=table.index)
    over = zip(table.get(f"{column}_se", empty), table.get(f"{column}_image_se", empty), strict=True)
    errors = [seeds or images for seeds, images in over]
    numbers = zip(set_numbers(texts, errors), texts, errors, strict=True)
    return [Entry(text, value, error_text, error) for (text, error_text), value, error in numbers]


def text_entry(column: str, text: str) -> Entry:
    """Format a text, or a number without an error: grades get their symbol, and names are written for readers."""
    if column == "verdict":
        return Entry(text, symbol=GRADES.get(text, ""))
    return Entry(written(column, text), value=text if is_number(text) else "")


def is_number(text: str) -> bool:
    """Return whether a text of a table is a finite number."""
    return re.fullmatch(r"-?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", text, flags=re.IGNORECASE) is not None


def _minus(text: str) -> str:
    return text.replace("-", "−")
