"""Tables as they are published: CSV files that people open in spreadsheets."""

import contextlib
from pathlib import Path
from typing import Any

import pandas as pd

from indm.store.files import write_table

# What a spreadsheet takes the start of a formula for, which it would compute, and which may ask another machine.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_published(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, with an apostrophe in front of texts that a spreadsheet would take for formulas."""
    write_table(path, table.map(_plain))


def _plain(value: Any) -> Any:
    formula = isinstance(value, str) and value.startswith(FORMULA) and not _is_number(value)
    return f"'{value}" if formula else value


def _is_number(text: str) -> bool:
    with contextlib.suppress(ValueError):
        float(text)
        return True
    return False
