r"""Whether results agree with published ones of the same suite: the same verdicts, and numbers within their standard errors.

Numbers are means over seeds. Another processor sums in another order, which a training amplifies, at most to the size of another
seed's effect; so a number :math:`x` with the standard error :math:`s` agrees with :math:`x', s'` if

.. math:: |x - x'| \le 3 \sqrt{s^2 + s'^2} .
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate

from indm.errors import ArtifactError
from indm.report.export import read_tables
from indm.report.grades import REPEATABLE
from indm.report.results import CELL, read_rows, records
from indm.store.files import read_json
from indm.store.layout import Layout

# What names a row of each table of numbers, beside its cell.
NUMBERS: dict[str, list[str]] = {
    "fid": [],
    "nll": [],
    "learning_curve": ["step"],
    "discretization": ["sampler", "steps"],
    "toy2d": [],
}
# Columns without an error that must be the same, or the rows are of something else.
SETTINGS = ["seeds", "nfe", "num_samples", "images", "parameters", "train_flops", "flops"]
CLAIM = ["id", "dataset", "sde", "objective"]
# Standard errors of a difference within which numbers agree.
FAR = 3.0


@dataclass(frozen=True)
class Agreement:
    """What a comparison found.

    Arguments:
        machines: where the published results were made, and where those that are here.
        verdicts: a row a verdict: ``claim``, ``published``, ``here``, ``borderline``.
        numbers: a row a number: ``table``, ``row``, ``number``, ``published``, ``here``, ``standard_errors``.
    """

    machines: tuple[str, str]
    verdicts: pd.DataFrame
    numbers: pd.DataFrame

    @property
    def other_verdicts(self) -> pd.DataFrame:
        """The verdicts that differ."""
        return self.verdicts[self.verdicts["published"] != self.verdicts["here"]]

    @property
    def far_numbers(self) -> pd.DataFrame:
        """The numbers that lie too far apart, or are missing on one side."""
        return self.numbers[~(self.numbers["standard_errors"] <= FAR)]

    @property
    def agrees(self) -> bool:
        """Whether no number lies too far off, and no verdict differs but those that another draw may change."""
        return self.far_numbers.empty and bool(self.other_verdicts["borderline"].all())

    def lines(self) -> Iterator[str]:
        """Say what was compared and what differs."""
        yield f"published: {self.machines[0]}"
        yield f"here: {self.machines[1]}"
        same = int((self.numbers["published"] == self.numbers["here"]).sum())
        other, far = self.other_verdicts, self.far_numbers
        yield f"verdicts: {len(self.verdicts) - len(other)} of {len(self.verdicts)} the same"
        within = f"{len(self.numbers) - len(far)} of {len(self.numbers)} within {FAR:g} standard errors"
        yield f"numbers: {within}, {same} the same to the last digit"
        for table in (other, far):
            if len(table):
                shown = table.replace({np.nan: "-"})
                yield "\n" + tabulate(shown, headers="keys", tablefmt="plain", showindex=False, floatfmt=".4g")
        yield f"\n{'They agree.' if self.agrees else 'They differ.'}"


def agreement(published: Path, layout: Layout) -> Agreement:
    """Set a suite's results beside published ones.

    Arguments:
        published: the published folder: ``tables/``, ``provenance.json``.
        layout: where the results lie.

    Raises:
        ArtifactError: if a table or the provenance is missing or damaged, or if the published ones are of another suite.
    """
    here = {path.stem: table for path, table in read_tables(layout).items()}
    there = {name: read_rows(published / f"tables/{name}.csv") for name in ("claims", *NUMBERS)}
    if foreign := {suite for table in there.values() for suite in table["suite"]} - {layout.suite}:
        raise ArtifactError(
            f"{published}/tables: found results of suite {', '.join(foreign)}, expected {layout.suite}: the folder's name"
        )
    verdicts = _verdicts(there["claims"]).merge(
        _verdicts(here["claims"]), on="claim", how="outer", suffixes=("", "_here")
    )
    borderline = verdicts["borderline"].eq(True) | verdicts["borderline_here"].eq(True)
    verdicts = verdicts.rename(columns={"grade": "published", "grade_here": "here"}).assign(borderline=borderline)
    numbers = [_numbers(name, there[name]).merge(_numbers(name, here[name]), on=KEY, how="outer") for name in NUMBERS]
    return Agreement(
        (_machines(published / "provenance.json"), _own_machines(layout)),
        verdicts[["claim", "published", "here", "borderline"]].fillna({"published": "-", "here": "-"}),
        _distances(pd.concat(numbers, ignore_index=True)),
    )


KEY = ["table", "row", "number"]


def _verdicts(claims: pd.DataFrame) -> pd.DataFrame:
    names = claims[CLAIM].fillna("").agg(" ".join, axis=1).str.split().str.join(" ")
    return pd.DataFrame({"claim": names, "grade": claims["grade"], "borderline": claims["repeatability"] < REPEATABLE})


def _numbers(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """List the numbers of a table, each with its standard error: over seeds, or else over images; settings have none."""
    keys = [*CELL, *NUMBERS[name]]
    columns = [
        str(column)
        for column in table
        if column in SETTINGS or f"{column}_se" in table or f"{column}_image_se" in table
    ]
    columns = [column for column in columns if not column.endswith("_image")]
    rows = []
    for row in records(table):
        place = " ".join(
            f"{row[key]:g}" if isinstance(row[key], float) else str(row[key]) for key in keys if row[key] != ""
        )
        for column in columns:
            errors = [row.get(f"{column}_se", np.nan), row.get(f"{column}_image_se", np.nan)]
            error = next((error for error in errors if not pd.isna(error)), 0.0)
            rows.append((name, place, column, row[column], error))
    return pd.DataFrame(rows, columns=[*KEY, "value", "se"]).dropna(subset="value")


def _distances(numbers: pd.DataFrame) -> pd.DataFrame:
    difference = (numbers["value_x"] - numbers["value_y"]).abs()
    apart: pd.Series[float] = (difference / np.hypot(numbers["se_x"], numbers["se_y"])).mask(difference == 0, 0.0)
    return pd.DataFrame(
        {
            **{key: numbers[key] for key in KEY},
            "published": numbers["value_x"],
            "here": numbers["value_y"],
            "standard_errors": apart,
        }
    )


def _machines(path: Path) -> str:
    return "; ".join(dict.fromkeys(execution["machine"] for execution in read_json(path)["executions"]))


def _own_machines(layout: Layout) -> str:
    paths = sorted(layout.suite_folder.glob("runs/*/provenance/train.json"))
    return "; ".join(dict.fromkeys(str(read_json(path)["machine"]) for path in paths)) or "unknown"
