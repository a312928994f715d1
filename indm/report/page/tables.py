"""The tables of the page, read from their CSV files and formatted."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from indm.report.catalogue import CATALOGUE
from indm.report.columns import described, heading
from indm.report.names import with_models
from indm.report.page.contents import Missing, missing
from indm.report.page.entries import Entry, column_entries
from indm.report.rows import read_columns

FEWEST_ROWS_TO_SHARE = 3
# What an address may have as it is, and HTML, too.
SAFE = " /:;=,.()-!*~?@$+[]{}^|"


@dataclass(frozen=True)
class Table:
    """A table of the page: rows, downloads (file name and address), and how many rows are only in the CSV.

    ``missing`` is set if the table does not exist, and ``empty`` if it has no row to show.
    """

    name: str
    path: Path
    headings: list[str] = field(default_factory=list)
    numeric: list[bool] = field(default_factory=list)
    rows: list[list[Entry]] = field(default_factory=list)
    shared: dict[str, Entry] = field(default_factory=dict)
    downloads: dict[str, tuple[str, str]] = field(default_factory=dict)
    left_out: int = 0
    missing: Missing | None = None
    empty: bool = False

    def texts(self, column: str) -> set[str]:
        """Return the texts of a column, in the rows or shared by them; empty if the table lacks it."""
        if (title := heading(column)) in self.shared:
            return {self.shared[title].text}
        return {row[self.headings.index(title)].text for row in self.rows} if title in self.headings else set()


def read_table(suite: str, path: Path) -> Table:
    """Read a table and format it: errors next to values, no empty columns, shared values in the caption.

    Published numbers for which we have no number are counted but not shown.
    """
    if not path.is_file():
        return Table(path.stem, path, missing=missing(suite, path))
    entry = CATALOGUE[path.stem]
    if not entry.section:
        return Table(path.stem, path, downloads={"CSV": (path.name, data_uri("text/csv", path.read_bytes()))})
    dropped = entry.view.dropped if entry.view else ""
    table = with_models(read_columns(path, *filter(None, [dropped])))
    count = len(table)
    if count == 0:
        reason = f"no rows: the suite {suite} does not ask for these numbers"
        return Table(path.stem, path, missing=Missing(path, reason, f"edit params/{suite}.yaml"), empty=True)
    if dropped:
        table = table[table[dropped].notna()].reset_index(drop=True)
    entries = {column: column_entries(column, table) for column in map(str, table) if _is_shown(column, table)}
    alike = [key for key, found in entries.items() if described(key).shared and len(set(found)) == 1]
    shared = {key: entries.pop(key)[0] for key in alike if len(table) >= FEWEST_ROWS_TO_SHARE}
    headings = [heading(column) for column in entries]
    rows = [list(row) for row in zip(*entries.values(), strict=True)]
    return Table(
        path.stem,
        path,
        headings,
        [all(entry.value is not None or not entry.text for entry in column) for column in entries.values()],
        rows,
        {heading(column): entry for column, entry in shared.items()},
        _downloads(path, headings, rows),
        count - len(table),
        empty=not rows,
    )


def executions(records: Sequence[Mapping[str, Any]]) -> Table:
    """Put the executions of stages into a table, with their time and memory, and into a file to download."""
    columns = ["stage", "subject", "seconds", "peak_memory_mib", "commit"]
    file = pd.DataFrame(records, columns=columns).to_csv(index=False, lineterminator="\n").encode()
    rows = []
    for record in records:
        seconds, memory = record["seconds"], record["peak_memory_mib"]
        numbers = [Entry(f"{seconds:.1f}", seconds), Entry(f"{memory:,.0f}", memory)]
        rows.append([Entry(record["stage"]), Entry(record["subject"]), *numbers])
        rows[-1].append(Entry((record["commit"] or "unknown")[:10]))
    headings = ["stage", "subject", "seconds", "peak memory, MiB", "commit"]
    downloads = {"CSV": ("executions.csv", data_uri("text/csv", file))}
    return Table(
        "provenance", Path("provenance"), headings, [False, False, True, True, False], rows, downloads=downloads
    )


def _is_shown(column: str, table: pd.DataFrame) -> bool:
    """Leave out the suite, empty columns, and errors, which are written next to their values."""
    value = column.removesuffix("_se").removesuffix("_image")
    beside_its_value = column.endswith("_se") and value in table
    return column in table and column != "suite" and not beside_its_value and bool(table[column].notna().any())


def _downloads(path: Path, headings: list[str], rows: list[list[Entry]]) -> dict[str, tuple[str, str]]:
    """Return the file's own bytes as CSV, and the formatted table as Markdown and LaTeX: file name and address."""
    table = pd.DataFrame([list(map(str, row)) for row in rows], columns=headings)
    latex = table.to_latex(index=False, escape=True).replace("±", r"$\pm$").replace("−", "$-$").replace("–", "--")
    # In Markdown, a bar would end an entry, and a tag would be rendered.
    plain = table.map(lambda text: text.replace("|", "\\|").replace("<", "&lt;"))
    texts = {
        "CSV": ("csv", "text/csv", path.read_bytes()),
        "Markdown": ("md", "text/markdown", plain.to_markdown(index=False, disable_numparse=True).encode() + b"\n"),
        "LaTeX": ("tex", "application/x-tex", latex.encode()),
    }
    return {label: (f"{path.stem}.{suffix}", data_uri(kind, text)) for label, (suffix, kind, text) in texts.items()}


def data_uri(kind: str, content: bytes) -> str:
    """Encode a file as a data URI, in the shorter of the two encodings, so that the page contains it."""
    return min(
        f"data:{kind},{quote(content, SAFE)}", f"data:{kind};base64,{base64.b64encode(content).decode()}", key=len
    )
