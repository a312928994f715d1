"""The tables of a suite for a terminal, at most a hundred columns wide: rows in groups, the best of each group marked.

The files have every column; the lines below a table list what was left out to save width.
"""

from collections.abc import Iterator
from itertools import groupby
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from indm.report.answers import answers_of, kinds_of
from indm.report.catalogue import CATALOGUE, FLOORS, SHOWN, View
from indm.report.columns import HIGHER, described, heading
from indm.report.export import again, edited, effect_with_ends, read_tables
from indm.report.matrix import short
from indm.report.names import names, row_name, written
from indm.report.rows import records
from indm.report.verdicts import CHANGED
from indm.store.layout import Layout
from indm.terminal import WIDTH, grid

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

BEST = "★"
# Rows in place of a model: real images.
NO_MODELS = (*FLOORS.values(),)
# Shown unless others are asked for; below them, the matrix of verdicts.
FIRST = ("nll", "fid", "toy2d")
# Spaces between two columns, and letters of a label's line: longer ones would push numbers out of the terminal.
GAP, LABEL = 2, 21
VIEWS = {name: table.view for name, table in CATALOGUE.items() if table.view}


class GridEntry(NamedTuple):
    """A number or a text in a row, and whether it is the best of its group."""

    text: str
    best: bool = False

    @property
    def width(self) -> int:
        return len(self.text) + 2 * self.best


def show(layout: Layout, asked: tuple[str, ...], every: bool = False) -> "Iterator[RenderableType]":
    """Yield the lines to print: the tables of a suite that are asked for, or else those of :data:`FIRST` or all that have rows.

    Raises:
        ArtifactError: if a table is missing, differs from its manifest, or has rows of another suite.
    """
    from rich.text import Text

    tables = {path.stem: table for path, table in read_tables(layout, asked or SHOWN).items()}
    listed = SHOWN if every else FIRST
    chosen = asked or tuple(name for name in listed if len(tables[name]) and not VIEWS[name].asked_for)
    for name in chosen:
        yield _title(name)
        yield from _table(tables[name], VIEWS[name]) if len(tables[name]) else [Text("The suite has no such rows.")]
        if name == "claims":
            yield from _changes(tables[name])
            yield from _statements(tables[name]) if asked else []
        yield Text()
    if not asked and not every and len(tables["claims"]):
        chosen = (*chosen, "claims")
        yield _title("claims")
        yield from _verdicts(tables["claims"], layout.suite)
        yield from _changes(tables["claims"])
        yield Text()
    rows = {name: f" ({len(table)} rows)" for name, table in tables.items()}
    others = [name + rows.get(name, "") for name in SHOWN if name not in chosen]
    if others:
        yield Text(f"Not shown: {', '.join(others)}. See one with: indm show {layout.suite} NAME, all with --all")
    chance = "maybe by chance: see indm show claims"
    yield Text(f"{BEST} best mean of its group, {chance}. ± one standard error over seeds.")
    yield Text(f"Every column: {layout.tables}/NAME.csv")
    for path in edited(layout, chosen):
        words = "was edited after these tables were made; make them again with"
        yield Text(f"{path} {words}: {again(layout)}", style="bold")


def _title(name: str) -> "Text":
    from rich.text import Text

    return Text(f"{name}: {CATALOGUE[name].title}", style="bold underline")


def _verdicts(table: pd.DataFrame, suite: str) -> "Iterator[RenderableType]":
    """Yield the matrix of verdicts on primary claims, a grid for each question."""
    from rich.text import Text

    primary = table[table["family"] == "primary"]
    answers = answers_of(primary)
    kinds = kinds_of(answers)
    for question, found in groupby(answers, key=lambda it: it.asked):
        yield Text(f"\n{question}", style="italic")
        shown = grid(["", *kinds])
        for it in found:
            shown.add_row(it.place, *(short(*it.cells.get(kind, [])) for kind in kinds))
        yield shown
    others = len(table) - len(primary)
    yield Text(
        f"\nA number is the treatment's advantage. Intervals and {others} exploratory rows: indm show {suite} claims"
    )


def _changes(table: pd.DataFrame) -> "Iterator[Text]":
    """Yield how the seeds have changed since the suite was registered, as every row of the claims says."""
    from rich.text import Text

    reasons = (str(reason) for reason in table["reason"])
    found = dict.fromkeys(reason.partition("; ")[0] for reason in reasons if reason.startswith(CHANGED))
    yield from (Text(f"All rows: {text}.", "bold") for text in found)


def _statements(table: pd.DataFrame) -> "Iterator[Text]":
    """Yield the statement of each claim, which is printed only if the claims are asked for."""
    from rich.text import Text

    for row in records(table.drop_duplicates("id")):
        yield Text.assemble("\n", (str(row["id"]), "bold"), f" ({row['family']}): {row['statement']}")


def _table(table: pd.DataFrame, view: View) -> "Iterator[RenderableType]":
    from rich.text import Text

    rows = table[table[view.dropped].notna()] if view.dropped else table
    filled = [column for column in view.columns if column in rows and rows[column].notna().any()]
    narrow: dict[str, None] = {}
    for _, group in rows.groupby(list(view.group), sort=False):
        title = names(*(str(value) for value in group[list(view.group)].iloc[0].fillna("")))
        columns = _across(group, view) if view.across else {column: _marked(group, column) for column in filled}
        # If the values of a column go across, there is one row per label.
        labelled = records(group.drop_duplicates(list(view.label)) if view.across else group)
        labels = [fill(row_name(row, view.label), LABEL) for row in labelled]
        kept = _fitting(labels, columns, last=bool(view.across))
        narrow |= dict.fromkeys(heading(key) for key in columns if key not in kept)
        yield Text(f"\n{title}", style="italic")
        shown = grid(["", *map(heading, kept)])
        for label, *entries in zip(labels, *(columns[key] for key in kept), strict=True):
            shown.add_row(
                label, *(Text(f"{BEST} {one.text}", "bold green") if one.best else one.text for one in entries)
            )
        yield shown
    if len(rows) < len(table):
        yield Text(f"Left out: {len(table) - len(rows)} rows without a number here.")
    if narrow:
        yield Text(f"Left out to save width: {', '.join(narrow)}.")


def _across(group: pd.DataFrame, view: View) -> dict[str, list[GridEntry]]:
    """Write one number of a group, with one column per value of another column."""
    labels = group[list(view.label)].fillna("").agg("\0".join, axis=1)
    found = {}
    for value, part in group.groupby(view.across, sort=True):
        entries = dict(zip(labels[part.index], _marked(part, view.columns[0]), strict=True))
        found[f"{view.across} {value}"] = [entries.get(label, GridEntry("-")) for label in dict.fromkeys(labels)]
    return found


def _marked(group: pd.DataFrame, column: str) -> list[GridEntry]:
    """Write a column, and mark its best number if a direction is better and there are several models."""
    best = None
    if better := described(column).better:
        models = group[~group["model"].isin(NO_MODELS)] if group["model"].nunique() > 1 else group.iloc[:0]
        found = models[column].dropna()
        best = None if len(found) < 2 else found.max() if better == HIGHER else found.min()
    return [
        GridEntry(_number(row, column), row.get("model") not in NO_MODELS and row[column] == best)
        for row in records(group)
    ]


def _number(row: dict[str, Any], column: str) -> str:
    """Write an entry: a number with its standard error over seeds, or an effect with its interval."""
    value, error = row[column], row.get(f"{column}_se")
    if column == "effect":
        return effect_with_ends(row)
    if pd.isna(value) or value == "":
        return "-"
    if not isinstance(value, float):
        return written(column, str(value))
    return f"{value:.3f} ± {error:.3f}" if error is not None and not pd.isna(error) else f"{value:.4g}"


def _fitting(labels: list[str], columns: dict[str, list[GridEntry]], *, last: bool) -> list[str]:
    """Name the first columns that fit next to the labels, or the last ones, in their order."""
    used, kept = max((len(line) for label in labels for line in label.splitlines()), default=0), []
    for key, entries in reversed(columns.items()) if last else columns.items():
        used += GAP + max(len(heading(key)), *(entry.width for entry in entries))
        if used > WIDTH:
            break
        kept.append(key)
    return kept[::-1] if last else kept
