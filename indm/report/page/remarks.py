"""Remarks on numbers that look wrong on a page but are not, one line each, next to their table."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from indm.registry import FAMILIES
from indm.report.names import heading, name, names
from indm.report.page.entries import Entry, set_numbers
from indm.report.results import CELL, read_rows, records

# A line: texts, and numbers with their values in the file.
Remark = list[str | Entry]
# A rise by less than this many standard errors of the difference may be due to chance.
CHANCE = 2.0


def remarks(tables: Path) -> dict[str, list[Remark]]:
    """List the remarks by table.

    Arguments:
        tables: the folder of the suite's tables; a table that is missing or has no rows gets no remarks.
    """
    found = {path.stem: read_rows(path) for path in sorted(tables.glob("*.csv")) if path.stem in OF}
    return {table: list(OF[table](rows)) if len(rows) else [] for table, rows in found.items()}


def _steps(table: pd.DataFrame) -> Iterator[Remark]:
    """Explain where more steps of a sampler do not help."""
    for (dataset, sde, sampler), part in table.dropna(subset=["fid"]).groupby(
        ["dataset", "sde", "sampler"], sort=False
    ):
        cells = part.groupby([key for key in CELL if key in part], sort=False)
        rises = [rise for _, swept in cells if (rise := _rise(swept))]
        if rises:
            low, high = max(rises, key=lambda rise: rise[1]["fid"] / rise[0]["fid"])
            numbers = [_entry(row, "fid") for row in (low, high)]
            who = names(*(str(low.get(key, "")) for key in ("model", "variant", "objective")))
            yield [
                f"{name(str(sampler))} under {name(str(sde))} on {name(str(dataset))}: more steps give a higher FID in"
                f" {len(rises)} of {len(cells)} models,"
                f" for example from {low['steps']:g} to {high['steps']:g} for {who} (",
                numbers[0],
                " to ",
                numbers[1],
                "). With few steps this sampler is a poor approximation, and its error may not fall with every further step.",
            ]


def _rise(swept: pd.DataFrame) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Find two neighbouring numbers of steps where the larger one has the higher FID, by more than chance."""
    for low, high in pairwise(records(swept.sort_values("steps"))):
        error = sum((_error(row) or 0.0) ** 2 for row in (low, high)) ** 0.5
        if high["fid"] - low["fid"] > CHANCE * error:
            return low, high
    return None


def _error(row: dict[str, Any], column: str = "fid") -> float | None:
    """Return the standard error over seeds or, with one seed, over images; ``None`` without either."""
    errors = [row.get(f"{column}{kind}", float("nan")) for kind in ("_se", "_image_se")]
    return next((float(error) for error in errors if not pd.isna(error)), None)


def _odes(table: pd.DataFrame, column: str) -> Iterator[Remark]:
    """Explain where there is no NLL."""
    for model in table["model"].unique():
        if model in FAMILIES and (reason := FAMILIES.literal(model, "NO_ODE")):
            yield [f"{name(model)} has no NLL ({heading(column)} is empty): {reason}."]


def _known(table: pd.DataFrame) -> Iterator[Remark]:
    yield from _odes(table, "nll_excess")


def _gaps(table: pd.DataFrame) -> Iterator[Remark]:
    """Explain that a gap may be absent or negative."""
    yield from _odes(table, "nll")
    negative = table[table["gap"] < 0]
    if len(negative):
        yield [
            f"The gap is negative in {len(negative)} of {len(table)} rows, down to ",
            _entry(records(negative.sort_values("gap"))[0], "gap"),
            ". NELBO bounds the likelihood of the SDE, but NLL is the likelihood of the ODE. These are two models, so the bound of"
            " the SDE may lie below the NLL of the ODE.",
        ]


def _floors(table: pd.DataFrame) -> Iterator[Remark]:
    """Explain why a model may score below real images."""
    real = table["model"].str.startswith("real")
    for dataset, part in table[~real].groupby("dataset", sort=False):
        floors = table[real & (table["dataset"] == dataset)].dropna(subset=["fid"])
        if len(floors) and len(below := part[part["fid"] < floors["fid"].max()]):
            floor = records(floors.sort_values("fid"))[-1]
            reasons = "models are trained on the reference images, and the floor has an error, too"
            if floor["num_samples"] < part["num_samples"].min():
                reasons = f"few images bias FID upwards, and this floor uses only {floor['num_samples']:g}; {reasons}"
            yield [
                f"{len(below)} of {len(part)} models on {dataset} have a lower FID than {floor['model']} (",
                _entry(floor, "fid"),
                f"): {reasons}.",
            ]


def _protocol(table: pd.DataFrame) -> Iterator[Remark]:
    """Explain why the suite's own number of images does not give the suite's own FID."""
    for dataset, part in table.groupby("dataset", sort=False):
        base = re.search(r": (\d+) images", " ".join(part[part["factor"] == "base"]["note"].astype(str)))
        again = part[(part["factor"] == "num_samples") & (part["setting"] == (base[1] if base else ""))]
        if len(again) and (row := records(again)[0])["difference"] != 0:
            yield [
                f"The row “images, {row['setting']}” of {dataset} is not the suite’s own protocol: it averages over groups of"
                f" {row['setting']} newly sampled images. The difference is due to chance (",
                _entry(row, "difference"),
                ").",
            ]


def _entry(row: dict[str, Any], column: str) -> Entry:
    """Format a number of a table, with its error."""
    value, found = repr(float(row[column])), _error(row, column)
    error = "" if found is None else repr(found)
    ((text, error_text),) = set_numbers([value], [error])
    return Entry(text, value, error_text, error)


OF = {"discretization": _steps, "nll": _gaps, "toy2d": _known, "fid": _floors, "protocol": _protocol}
