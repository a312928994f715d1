"""The table of means on the first screen: no map, cheaper maps, INDM, and DDPM++ at INDM's compute."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from indm.report.catalogue import CELL, PLACE
from indm.report.names import REFERENCE, TREATMENT, arm, name, names
from indm.report.page.entries import Entry, column_entries
from indm.report.rows import read_columns
from indm.variants import SAME_COMPUTE

LADDER = ("", "fixed-filter", "learned-curve-filter")
CELLS = (*((REFERENCE, variant) for variant in LADDER), (TREATMENT, ""), (REFERENCE, SAME_COMPUTE))
ARMS = {cell: arm(*cell) for cell in CELLS}
# Rows for images: the table, and the metric.
OF_IMAGES = {"NELBO": ("nll", "nelbo"), "NLL": ("nll", "nll"), "FID": ("fid", "fid")}
FEW = "FID, few steps"
# Rows for known densities: numbers of which the lowest is counted.
OF_DENSITIES = {
    "nelbo_excess": ("Bound", "NELBO above the truth"),
    "true_gap": ("Variational gap", "in two dimensions"),
    "energy_16": ("Few steps", "energy distance at 16 steps"),
}


class Row(NamedTuple):
    """A number of each of :data:`ARMS`, with a label and a remark."""

    label: str
    remark: str
    entries: list[Entry]


def read_means(tables: Path) -> dict[str, list[Row]]:
    """Read the means on each dataset and SDE, by their names; without INDM on images, count the lowest over known densities."""
    found = {stem: read_cells(tables / f"{stem}.csv") for stem in ("nll", "fid", "discretization", "toy2d")}
    ours = found["nll"][found["nll"]["model"] == "indm"]
    places = ours[PLACE[:2]].drop_duplicates().itertuples(index=False, name=None)
    means = {names(*place): list(_of_images(found, dict(zip(PLACE, place, strict=False)))) for place in places}
    densities = found["toy2d"]["dataset"].nunique()
    means = means or {f"{densities} trials on known densities": list(_of_densities(found["toy2d"]))}
    return {title: rows for title, rows in means.items() if rows}


def read_cells(path: Path) -> pd.DataFrame:
    """Read a table of cells, with absent texts empty; empty if it is missing."""
    texts, numbers = [*CELL, "decoder", "sampler"], ["steps", "sound"]
    table = read_columns(path) if path.is_file() else pd.DataFrame()
    table = table.reindex(columns=list(dict.fromkeys([*texts, *numbers, *map(str, table)])))
    return table.astype(dict.fromkeys(texts, object)).fillna(dict.fromkeys(texts, ""))


def _of_images(found: Mapping[str, pd.DataFrame], place: Mapping[str, str]) -> Iterator[Row]:
    """Yield the rows of one dataset and SDE, each with the objective that is trained for it, or else the only one."""
    here = {stem: table[(table[list(place)] == list(place.values())).all(axis=1)] for stem, table in found.items()}
    for label, (stem, metric) in OF_IMAGES.items():
        yield from _row(label, here[stem], metric, stem)
    swept = here["discretization"]
    swept = swept[(swept["sound"] == 1) & swept["fid"].notna()] if "fid" in swept else swept[:0]
    for (sampler, steps), part in _fewest(swept):
        yield from _row(FEW, part, "fid", "fid", f"{steps} steps, {name(sampler)}; ")


def _fewest(swept: pd.DataFrame) -> list[tuple[tuple[str, int], pd.DataFrame]]:
    """Find the fewest steps at which a sampler is sound for the most models; of several samplers, the one with the lowest FID."""
    groups = [((str(key[0]), int(str(key[1]))), part) for key, part in swept.groupby(["sampler", "steps"], sort=False)]
    groups.sort(key=lambda one: (-len(one[1]), one[0][1], one[1]["fid"].min()))
    return groups[:1]


def _row(label: str, rows: pd.DataFrame, metric: str, objective: str, remark: str = "") -> Iterator[Row]:
    """Yield the row of a metric; nothing without a number of INDM."""
    chosen = objective if objective in set(rows["objective"]) else next(iter(rows["objective"]), "")
    cells = rows[rows["objective"] == chosen].set_index(["model", "variant"], drop=False)
    numbers = pd.DataFrame([read_number(cells, cell, metric) for cell in ARMS], dtype="Float64")
    if numbers["value"].notna()[CELLS.index((TREATMENT, ""))]:
        yield Row(label, f"{remark}{chosen} objective", column_entries("value", numbers))


def read_number(cells: pd.DataFrame, arm: tuple[str, str], metric: str) -> dict[str, Any]:
    """Return a number and its errors, absent ones as such, with the decoder of claims."""
    ends = ("", "_se", "_image_se")
    if arm not in cells.index:
        return dict.fromkeys((f"value{end}" for end in ends), pd.NA)
    cell = cells.loc[[arm]].iloc[0]
    fixed = "_fixed" if cell["decoder"] == "fixed" and f"{metric}_fixed" in cell else ""
    return {f"value{end}": cell.get(f"{metric}{fixed}{end}", pd.NA) for end in ends}


def _of_densities(table: pd.DataFrame) -> Iterator[Row]:
    """Yield on how many densities each of the models has the lowest mean, of the models that have one."""
    for metric, (label, remark) in OF_DENSITIES.items():
        if metric not in table:
            continue
        wide = table.pivot_table(metric, "dataset", ["model", "variant"], "first")
        numbers = wide.reindex(columns=pd.MultiIndex.from_tuples(ARMS)).astype(float).dropna(thresh=2)
        lowest = numbers.idxmin(axis=1)
        texts = [f"{sum(lowest == arm)} of {len(numbers)}" if numbers[arm].notna().any() else "" for arm in ARMS]
        yield Row(label, remark, [Entry(text) for text in texts])
