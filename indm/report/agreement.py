"""Compare a suite's results with published ones: verdicts must be the same, and chance must explain the distances of numbers.

:mod:`indm.report.comparable` lists what is compared, and :mod:`indm.report.chance` judges the numbers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype
from tabulate import tabulate

from indm.errors import ArtifactError
from indm.report.chance import APART, BOUND, FAR, NONE, counts, distances
from indm.report.comparable import KEYS, entries, left_out, text
from indm.report.export import read_tables
from indm.report.names import written
from indm.report.numbers import Tidy
from indm.report.rows import read_rows, records, require
from indm.store.files import AGAIN, from_git, read_json
from indm.store.layout import Layout
from indm.store.sums import NAME as SUMS
from indm.store.sums import check_sums
from indm.terminal import printable

# The question that a verdict answers, including its numbers of seeds and images.
ASKED = ["family", "treatment", "smallest_effect", "unit", "metric", "protocol", "test", "n", "images", "planned"]
FURTHER = {
    "claims": [*ASKED, "verdict", "repeatability", "effect", "low", "high"],
    "differences": ["difference"],
    "values": ["value", "se", "sound"],
}
# A verdict with a lower repeatability may differ between processors.
REPEATABLE = 0.9
KEY = ["table", "model", "row", "number"]
ABSENT = "-"
# The reasons why the SHA-256 of the suite is unknown: of the published suite, and of the suite here.
UNKNOWN = (
    "the published provenance.json has no suite_sha256",
    "provenance/table.json of the tables here has no suite_sha256",
)


@dataclass(frozen=True)
class Agreement:
    """The result of a comparison; pairs are the published side and this one, and a suite's SHA-256 is "" where unknown.

    ``verdicts`` has a row per verdict, with ``asked``, how the questions differ; ``numbers`` one per number or setting, with the
    columns of :func:`indm.report.chance.distances`; ``left_out`` a line per reason why something is not compared.
    """

    machines: tuple[str, str]
    suites: tuple[str, str]
    verdicts: pd.DataFrame
    numbers: pd.DataFrame
    left_out: tuple[str, ...]

    @property
    def other_verdicts(self) -> pd.DataFrame:
        """The verdicts that differ, or that answer different questions."""
        return self.verdicts[(self.verdicts["published"] != self.verdicts["here"]) | (self.verdicts["asked"] != "")]

    @property
    def far_numbers(self) -> pd.DataFrame:
        """The numbers that are named: too far apart, not finite, missing on one side, or unequal settings."""
        return self.numbers[self.numbers["why"] != NONE]

    @property
    def counts(self) -> pd.DataFrame:
        """The numbers of each table: how many lie far apart, and how many chance lets one expect."""
        return counts(self.numbers, KEYS)

    @property
    def same_suite(self) -> bool:
        """Whether both sides have the same suite, as far as is known."""
        return "" in self.suites or len(set(self.suites)) == 1

    @property
    def agrees(self) -> bool:
        """Whether the suite is the same, chance explains all distances and their count, and no repeatable verdict differs."""
        numbers = set(self.numbers["why"]) <= {NONE, APART} and not self.counts["too_many"].any()
        return self.same_suite and numbers and not self.other_verdicts["repeatable"].any()

    def lines(self) -> Iterator[str]:
        """Yield the lines that report the comparison and the differences."""
        yield f"published: {printable(self.machines[0])}"
        yield f"here: {printable(self.machines[1])}"
        if not self.same_suite:
            yield f"suite: published {printable(self.suites[0])}, here {printable(self.suites[1])}: their contents differ"
        if unknown := [why for why, sha256 in zip(UNKNOWN, self.suites, strict=True) if not sha256]:
            yield f"suite: not compared, because {' and '.join(unknown)}"
        other, far = self.other_verdicts, self.far_numbers
        yield f"verdicts: {len(self.verdicts) - len(other)} of {len(self.verdicts)} the same"
        yield f"numbers: {len(self.numbers) - len(far)} of {len(self.numbers)} agree, those without an error within {BOUND:.0%}"
        yield "\n" + _tabulated(self.counts.rename(columns=SHOWN))
        yield "\nnot compared:"
        yield from (f"  {line}" for line in self.left_out)
        for table in (other, far.drop(columns=["model", "expected"])):
            if len(table):
                yield "\n" + _tabulated(table)
        yield f"\n{'They agree.' if self.agrees else 'They differ.'}"


# The heads of the table of counts.
SHOWN = {
    "same": "the same to the last digit",
    "judged": "with an error",
    "far": f"beyond {FAR:g} errors",
    "expected": "expected by chance at most",
    "too_many": "too many",
}


def _tabulated(table: pd.DataFrame) -> str:
    shown = table.astype(object).fillna(ABSENT).map(lambda value: printable(value) if isinstance(value, str) else value)
    return tabulate(shown, headers="keys", tablefmt="plain", showindex=False, floatfmt=".4g")


def agreement(published: Path, layout: Layout) -> Agreement:
    """Compare a suite's results with published ones.

    Raises:
        ArtifactError: if a table or the provenance is missing, damaged or from another suite, a published file is not the one in
            its ``SHA256SUMS``, or a table repeats a row or has no numbers.
    """
    paths = {name: published / f"tables/{name}.csv" for name in KEYS}
    record = published / "provenance.json"
    if not (record.is_file() and paths["claims"].is_file()):
        raise ArtifactError(
            f"{published}: found no provenance.json with a tables/claims.csv, expected a folder that indm publish wrote "
            "for a suite with claims, such as docs/results/digits"
        )
    if (published / SUMS).is_file():
        check_sums(published)
    with from_git():
        theirs = {name: _checked(name, layout.suite, path, read_rows(path)) for name, path in paths.items()}
        machines, suite_sha256 = _machines(published), _suite_of(record)
    own = {path.stem: (path, table) for path, table in read_tables(layout, paths).items()}
    here = {name: _checked(name, layout.suite, *own[name]) for name in paths}
    numbers = _beside(entries(theirs), entries(here), KEY)
    if numbers.empty:
        raise ArtifactError(f"{published}/tables: found no number to compare, expected some in {', '.join(KEYS)}")
    return Agreement(
        (machines, _machines(layout.suite_folder)),
        (suite_sha256, _suite_of(layout.tables / "provenance/table.json")),
        _verdict_pairs(_beside(_verdicts(theirs["claims"]), _verdicts(here["claims"]), ["claim"])),
        _judged(numbers),
        tuple(left_out(here)),
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
        asked = {key: text(row[key]) for key in ASKED}
        place = " ".join(filter(None, (text(row[key]) for key in KEYS["claims"])))
        rows.append((place, written("verdict", row["verdict"]), row["repeatability"] < REPEATABLE, asked))
    return pd.DataFrame(rows, columns=["claim", "grade", "low", "asked"])


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


def _judged(pairs: pd.DataFrame) -> pd.DataFrame:
    """Judge the distances of numbers, and sort them by table."""
    sides = {"published": pairs["value_published"], "here": pairs["value_here"]}
    found = pd.concat([pairs[KEY].assign(**sides), distances(pairs)], axis="columns")
    return found.sort_values("table", key=lambda names: names.map([*KEYS].index), kind="stable", ignore_index=True)


def _machines(folder: Path) -> str:
    return "; ".join(dict.fromkeys(str(each.get("machine", "unknown")) for each in Tidy(folder).record)) or "unknown"


def _suite_of(path: Path) -> str:
    """Read the SHA-256 of the suite from a record; empty where unknown."""
    return str(read_json(path).get("suite_sha256") or "") if path.is_file() else ""
