r"""Compare a suite's results with published ones: verdicts must be the same, numbers equal within their standard errors.

Numbers are means over seeds, the same seeds on both sides. Another processor adds floats in another order, and training amplifies
the difference, at most to the effect of another seed. A number :math:`x` with the standard error :math:`s` agrees with the
published :math:`x', s'` if

.. math:: |x - x'| \le 3 \sqrt{s'^2 + \min(s, 3 s')^2} .

The minimum is needed because a single training that goes astray widens :math:`s` as much as it moves :math:`x`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype
from tabulate import tabulate

from indm.errors import ArtifactError
from indm.report.catalogue import CATALOGUE
from indm.report.export import read_tables
from indm.report.results import read_rows, records
from indm.report.schema import require
from indm.store.files import AGAIN, from_git, read_json
from indm.store.layout import Layout
from indm.terminal import printable

# Settings: columns that must be equal on both sides.
SETTINGS = ["seeds", "nfe", "num_samples", "images", "parameters", "train_flops", "flops"]
SETTINGS += ["sampler", "extractor", "split"]
# The columns that identify a row, for each table that is compared.
KEYS = {name: list(table.key) for name, table in CATALOGUE.items() if table.key}
# The question that a verdict answers, including its numbers of seeds and images.
ASKED = ["family", "smallest_effect", "unit", "metric", "protocol", "n", "images"]
FURTHER = {"claims": [*ASKED, "verdict", "repeatability"]}
# A verdict with a lower repeatability may differ between processors.
REPEATABLE = 0.9
NUMBERS = [name for name in KEYS if name not in FURTHER]
KEY = ["table", "row", "number"]
# Numbers agree within FAR standard errors of their difference; our own error counts up to WIDE times the published one.
FAR = 3.0
WIDE = 3.0
ABSENT = "-"
# The reasons why the SHA-256 of the suite is unknown: of the published suite, and of the suite here.
UNKNOWN = (
    "the published provenance.json has no suite_sha256",
    "provenance/table.json of the tables here has no suite_sha256",
)


@dataclass(frozen=True)
class Agreement:
    """The result of a comparison; pairs are the published side and this one, and a suite's SHA-256 is "" where unknown.

    ``verdicts`` has a row per verdict, with ``asked``, how the questions differ, and ``numbers`` one per number.
    """

    machines: tuple[str, str]
    suites: tuple[str, str]
    verdicts: pd.DataFrame
    numbers: pd.DataFrame

    @property
    def other_verdicts(self) -> pd.DataFrame:
        """The verdicts that differ, or that answer different questions."""
        return self.verdicts[(self.verdicts["published"] != self.verdicts["here"]) | (self.verdicts["asked"] != "")]

    @property
    def far_numbers(self) -> pd.DataFrame:
        """The numbers that lie too far apart, are not finite, or are missing on one side."""
        return self.numbers[~(self.numbers["standard_errors"] <= FAR)]

    @property
    def same_suite(self) -> bool:
        """Whether both sides have the same suite, as far as is known."""
        return "" in self.suites or len(set(self.suites)) == 1

    @property
    def agrees(self) -> bool:
        """Whether the suite is the same, all numbers are close enough, and no repeatable verdict differs."""
        return self.same_suite and self.far_numbers.empty and not self.other_verdicts["repeatable"].any()

    def lines(self) -> Iterator[str]:
        """Yield the lines that report the comparison and the differences."""
        yield f"published: {printable(self.machines[0])}"
        yield f"here: {printable(self.machines[1])}"
        if not self.same_suite:
            yield f"suite: published {printable(self.suites[0])}, here {printable(self.suites[1])}: their contents differ"
        if unknown := [why for why, sha256 in zip(UNKNOWN, self.suites, strict=True) if not sha256]:
            yield f"suite: not compared, because {' and '.join(unknown)}"
        same = int((self.numbers["published"] == self.numbers["here"]).sum())
        other, far = self.other_verdicts, self.far_numbers
        yield f"verdicts: {len(self.verdicts) - len(other)} of {len(self.verdicts)} the same"
        within = f"{len(self.numbers) - len(far)} of {len(self.numbers)} within {FAR:g} standard errors"
        yield f"numbers: {within}, {same} the same to the last digit"
        for table in (other, far):
            if len(table):
                shown = table.fillna(ABSENT).map(lambda value: printable(value) if isinstance(value, str) else value)
                yield "\n" + tabulate(shown, headers="keys", tablefmt="plain", showindex=False, floatfmt=".4g")
        yield f"\n{'They agree.' if self.agrees else 'They differ.'}"


def agreement(published: Path, layout: Layout) -> Agreement:
    """Compare a suite's results with published ones.

    Raises:
        ArtifactError: if a table or the provenance is missing, damaged or from another suite, or a table repeats a row or has no
            numbers.
    """
    paths = {name: published / f"tables/{name}.csv" for name in KEYS}
    record = published / "provenance.json"
    if not (record.is_file() and paths["claims"].is_file()):
        raise ArtifactError(
            f"{published}: found no provenance.json with a tables/claims.csv, expected a folder that indm publish wrote "
            "for a suite with claims, such as docs/results/digits"
        )
    with from_git():
        published_tables = {name: _checked(name, layout.suite, path, read_rows(path)) for name, path in paths.items()}
        machines, suite_sha256 = _machines(record), _suite_of(record)
    own = {path.stem: (path, table) for path, table in read_tables(layout, paths).items()}
    here = {name: _checked(name, layout.suite, *own[name]) for name in paths}
    sides = {name: (_numbers(name, published_tables[name]), _numbers(name, here[name])) for name in NUMBERS}
    numbers = pd.concat([_beside(*pair, KEY) for pair in sides.values()])
    if numbers.empty:
        raise ArtifactError(f"{published}/tables: found no number to compare, expected some in {', '.join(NUMBERS)}")
    return Agreement(
        (machines, _own_machines(layout)),
        (suite_sha256, _suite_of(layout.tables / "provenance/table.json")),
        _verdict_pairs(_beside(_verdicts(published_tables["claims"]), _verdicts(here["claims"]), ["claim"])),
        _distances(numbers),
    )


def _checked(name: str, suite: str, path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Return a table after checking that it has the columns to be compared, only rows of the suite, and each row once."""
    require(path, table, ["suite", *KEYS[name], *FURTHER.get(name, [])])
    _check_errors(path, table)
    if foreign := sorted(set(table["suite"]) - {suite}):
        raise ArtifactError(
            f"{path}: found rows of suite {', '.join(foreign)}, expected {suite}, the name of the folder"
        )
    if twice := table.index[table.duplicated(KEYS[name])].tolist():
        raise ArtifactError(f"{path}: row {twice[0] + 2} repeats an earlier row; expected each once; {AGAIN}")
    return table


def _check_errors(path: Path, table: pd.DataFrame) -> None:
    """Check the numbers that set a tolerance: squaring hides a negative sign, and an infinite error makes everything agree."""
    # Standard errors, repeatabilities, numbers of seeds.
    columns = [key for key in map(str, table) if key.endswith("_se") or key in ("repeatability", "n")]
    for column in columns if len(table) else ():
        if not is_numeric_dtype(table[column]):
            raise ArtifactError(f"{path}: found text in the {column} column, expected numbers; {AGAIN}")
        known = table[column].dropna()
        if len(odd := known[~(np.isfinite(known) & (known >= 0))]):
            words = f"found {odd.iloc[0]:g}, expected a finite number of at least 0"
            raise ArtifactError(f"{path}: row {int(odd.index[0]) + 2}, column {column}: {words}; {AGAIN}")


def _beside(published: pd.DataFrame, here: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    return published.merge(here, on=key, how="outer", suffixes=("_published", "_here"), validate="one_to_one")


def _verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """List the verdicts, each named by its claim, place and comparison."""
    rows = []
    for row in records(table):
        asked = {key: _text(row[key]) for key in ASKED}
        rows.append((_place("claims", row), row["verdict"], row["repeatability"] < REPEATABLE, asked))
    return pd.DataFrame(rows, columns=["claim", "grade", "low", "asked"])


def _text(value: Any) -> str:
    """Write a value as text, because a column of numbers and texts may be read as either."""
    return "" if pd.isna(value) else str(value) if isinstance(value, str) else f"{value:g}"


def _verdict_pairs(pairs: pd.DataFrame) -> pd.DataFrame:
    """Mark the verdicts that may not differ; those may that have the same question and a low repeatability on either side."""
    whole = pairs["grade_published"].notna() & pairs["grade_here"].notna()
    both = [(row["asked_published"], row["asked_here"]) for row in records(pairs[whole])]
    texts = [
        "; ".join(f"{key}: published {then[key]}, here {here[key]}" for key in then if then[key] != here[key])
        for then, here in both
    ]
    asked = pd.Series(texts, pairs.index[whole], dtype=object).reindex(pairs.index, fill_value="")
    low = whole & (asked == "") & (pairs["low_published"].eq(True) | pairs["low_here"].eq(True))
    grades = {side: pairs[f"grade_{side}"].fillna(ABSENT) for side in ("published", "here")}
    return pd.DataFrame({"claim": pairs["claim"], **grades, "repeatable": ~low, "asked": asked})


def _numbers(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """List the numbers of a table, each with its standard error over seeds, or else over images; for settings the error is 0."""
    rows = [(name, _place(name, row), *number) for row in records(table) for number in _row_numbers(name, row)]
    return pd.DataFrame(rows, columns=[*KEY, "value", "se"]).astype({"value": object, "se": float})


def _place(name: str, row: Mapping[str, Any]) -> str:
    return " ".join(text for text in (_text(row[key]) for key in KEYS[name]) if text)


def _row_numbers(name: str, row: Mapping[str, Any]) -> Iterator[tuple[str, Any, float]]:
    """Yield name, value and standard error of each number in a row, and of each setting that is not part of its key."""
    for column, value in row.items():
        errors = [row[end] for end in (f"{column}_se", f"{column}_image_se") if end in row]
        if pd.isna(value) or value == "" or column in KEYS[name] or not (errors or column in SETTINGS):
            continue
        yield column, value, float(next((error for error in errors if not pd.isna(error)), 0.0))


def _distances(pairs: pd.DataFrame) -> pd.DataFrame:
    """Measure the distance of the two sides in standard errors: 0 where they are equal, infinite where they cannot be compared."""
    published, here = pairs["value_published"], pairs["value_here"]
    error = np.hypot(pairs["se_published"], np.minimum(pairs["se_here"], WIDE * pairs["se_published"]))
    values = [pd.to_numeric(side, errors="coerce") for side in (published, here)]
    apart: pd.Series[float] = (values[0] - values[1]).abs() / error
    same = (published == here) & ~values[0].isin([np.inf, -np.inf])
    columns = {"published": published, "here": here, "standard_errors": apart.mask(same, 0.0).fillna(np.inf)}
    return pd.DataFrame({**{key: pairs[key] for key in KEY}, **columns})


def _machines(path: Path) -> str:
    executions = read_json(path).get("executions")
    executions = executions if isinstance(executions, list) else []
    found = [entry.get("machine") for entry in executions if isinstance(entry, dict)]
    known = [machine for machine in found if isinstance(machine, str)]
    if not known or len(known) < len(executions):
        raise ArtifactError(f"{path}: found no machine, expected one for each execution; {AGAIN}")
    return "; ".join(dict.fromkeys(known))


def _suite_of(path: Path) -> str:
    """Read the SHA-256 of the suite from a record; empty where unknown."""
    return str(read_json(path).get("suite_sha256") or "") if path.is_file() else ""


def _own_machines(layout: Layout) -> str:
    paths = sorted(layout.suite_folder.rglob("provenance/*.json"))
    return "; ".join(dict.fromkeys(str(read_json(path).get("machine", "unknown")) for path in paths)) or "unknown"
