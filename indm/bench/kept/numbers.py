"""The numbers of kept results, compared with the published table that was made from them."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from indm.diffusion.fixed_decoder import FIXED
from indm.errors import ArtifactError
from indm.report.numbers import VALUE_COLUMNS
from indm.report.rows import read_texts, records
from indm.store.files import TABLE_FORMAT, read_json
from indm.store.sums import REMEDY

TABLE, IMAGES = "tables/values.csv", "tables/images.csv.gz"
# By stage, the columns that identify a row of its result file. A JSON file has one row.
KEYS = {
    "curve": ("step",),
    "sweep": ("sampler", "steps"),
    "toy2d": ("model", "variant", "seed"),
    "protocol": ("factor", "setting"),
}
Row = Mapping[str, Any]
Place = tuple[str, ...]


class PublishedNumbers:
    """The numbers of a published folder, by the result file from which each was taken; none if nothing was published.

    Raises:
        ArtifactError: if the published table is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._table = folder / TABLE
        self._rows: dict[str, list[Row]] = {}
        for row in records(read_texts(self._table, *VALUE_COLUMNS)) if self._table.is_file() else ():
            self._rows.setdefault(row["source"], []).append(row)
        images = folder / IMAGES
        self._clustered = images.is_file() and "cluster" in read_texts(images)

    def refuse_others(self, here: Path, names: Iterable[str]) -> None:
        """Refuse result files, by their names in the results folder of the suite, that do not give the published numbers.

        Numbers with the fixed decoder are left out, because the table derives them from the numbers of single images; so are errors
        of likelihoods in a suite with a dataset whose images come in clusters.

        Raises:
            ArtifactError: if a file is damaged, or if a number differs from the published one, or only one side has it.
        """
        for name in sorted(self._rows.keys() & set(names)):
            published = [row for row in self._rows[name] if row["metric"] not in FIXED]
            stage = published[0]["stage"]
            ends = {"": "value"} if self._clustered and stage == "nll" else {"": "value", "_se": "se"}
            for words in _differences(_rows_of(here / name, stage), published, ends):
                raise ArtifactError(f"{here / name}: {words} as in {self._table}; {REMEDY}")


def _rows_of(path: Path, stage: str) -> dict[Place, Row]:
    """Read the rows of a result file, each by the columns that identify it."""
    if path.suffix == ".json":
        return {(): read_json(path)}
    keys = KEYS[stage]
    return {tuple(_text(row[key]) for key in keys): row for row in records(read_texts(path, *keys))}


def _differences(rows: Mapping[Place, Row], published: Sequence[Row], ends: Mapping[str, str]) -> Iterator[str]:
    """Yield in words how the rows of a result file differ from the published numbers.

    Arguments:
        rows: the rows of the result file, by what identifies them.
        published: the rows of the published table.
        ends: the published column to compare for each ending of a metric's name.
    """
    wanted = {_where(row): row for row in published}
    for (place, column), row in wanted.items():
        found = rows.get(place, {})
        for end, key in ends.items():
            name = f"{column}{end}"
            if _text(found.get(name)) != _text(row[key]):
                yield _words(place, name, _text(found.get(name)), _text(row[key]))
    for place in rows.keys() - {place for place, _ in wanted}:
        for column in sorted({column for _, column in wanted}):
            if number := _text(rows[place].get(column)):
                yield _words(place, column, number, "")


def _where(published: Row) -> tuple[Place, str]:
    """Return where a published number is in its result file: row and column."""
    metric, steps = published["metric"], _text(published["x"])
    match published["stage"]:
        case "curve":
            return (steps,), metric
        case "sweep":
            return (published["sampler"], steps), metric
        case "toy2d":
            place = (published["model"], published["variant"], _text(published["seed"]))
            return place, f"{metric}_{steps}" if steps else metric
        case "protocol":
            column, _, deviation = metric.partition(":")
            factor, _, setting = deviation.partition("=")
            return (factor, _text(setting)), column
    return (), metric


def _text(value: Any) -> str:
    """Write a number as tables do, an absent one as an empty text, and a text as it is."""
    with contextlib.suppress(TypeError, ValueError):
        return TABLE_FORMAT % float(value)
    return "" if value is None else str(value)


def _words(place: Place, column: str, found: str, expected: str) -> str:
    row = f"row {', '.join(filter(None, place))}: " if place else ""
    return f"{row}found {column} {found or 'without a number'}, expected {expected or 'no number'}"
