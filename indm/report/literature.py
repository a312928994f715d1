"""The schema of ``params/published.csv``, the numbers in papers."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from indm.errors import ParamsError
from indm.measured import PUBLISHED_METRICS

# The protocol of a number, empty if its source does not state it.
PROTOCOL = ["extractor", "implementation", "num_samples", "parameters", "steps"]
# The columns that identify a number; sources may disagree about a number.
NUMBER = ["dataset", "model", "sde", "objective", "variant", "metric", "sampler"]
PUBLISHED_COLUMNS = [*NUMBER, "value", "source", "locator", "note", *PROTOCOL]
COUNT = (r"([1-9][0-9]*)?", "a whole number above 0, or an empty cell")
# Each column's expression, and its meaning.
ALLOWED = {
    "objective": (r"(nll|fid)?", "nll, fid or an empty cell"),
    "metric": ("|".join(PUBLISHED_METRICS), ", ".join(PUBLISHED_METRICS)),
    "sampler": (r"(pc|ode)?", "pc (of the reverse SDE), ode or an empty cell"),
    "value": (r"-?[0-9]+(\.[0-9]+)?", "a number in decimals, such as 2.97"),
    **dict.fromkeys(("num_samples", "parameters", "steps"), COUNT),
}


def load_published(path: Path) -> list[dict[str, str]]:
    """Read and validate the published numbers; cells stay texts, and absent cells are empty texts.

    Raises:
        ParamsError: if the file cannot be read or has other columns; otherwise one line for each mistake: line, column, the value
            found and the values expected.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            columns, *rows = [(reader.line_num, row) for row in reader if row] or [(1, [])]
    except (OSError, ValueError, csv.Error) as error:
        raise ParamsError(f"{path}: cannot be read ({error}); run from the top of a checkout") from None
    if columns[1] != PUBLISHED_COLUMNS:
        raise ParamsError(f"{path}: found the columns {columns[1]}, expected {PUBLISHED_COLUMNS}")
    if found := list(_mistakes(rows)):
        raise ParamsError("\n".join(f"{path}: {mistake}" for mistake in found))
    return [dict(zip(PUBLISHED_COLUMNS, row, strict=True)) for _, row in rows]


def _mistakes(rows: list[tuple[int, list[str]]]) -> Iterator[str]:
    lines: dict[tuple[str, ...], int] = {}
    for line, cells in rows:
        if len(cells) != len(PUBLISHED_COLUMNS):
            yield f"line {line}: found {len(cells)} cells, expected {len(PUBLISHED_COLUMNS)}, one per column"
            continue
        row = dict(zip(PUBLISHED_COLUMNS, cells, strict=True))
        for column, (expression, expected) in ALLOWED.items():
            if not re.fullmatch(expression, row[column]):
                yield f"line {line}, column {column}: found {row[column]!r}, expected {expected}"
        number = tuple(row[column] for column in NUMBER)
        if (first := lines.setdefault(number, line)) != line:
            yield f"line {line}: found the number of line {first} again ({', '.join(filter(None, number))}), expected it once"
