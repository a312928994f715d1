"""The FID and NLL tables: one row per dataset x SDE x model x variant x objective, seeds aggregated, published numbers beside."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import pandas as pd

from indm.errors import ArtifactError

Result = Mapping[str, Any]

CELL = ["dataset", "sde", "model", "variant", "objective"]
FID_METRICS = ["fid", "kid", "is", "precision", "recall", "clean_fid", "legacy_fid"]
FID_COLUMNS = [
    "suite",
    *CELL,
    "seeds",
    "sampler",
    "nfe",
    "num_samples",
    "extractor",
    *(column for metric in FID_METRICS for column in (metric, f"{metric}_se")),
    "published_fid",
    "published_is",
    "published_source",
]
NLL_COLUMNS = [
    "suite",
    *CELL,
    "seeds",
    "nll",
    "nll_se",
    "nll_uncorrected",
    "nelbo",
    "nelbo_se",
    "nelbo_no_residual",
    "gap",
    "gap_se",
    "published_nll",
    "published_source",
]
PUBLISHED_COLUMNS = [
    "dataset",
    "model",
    "sde",
    "objective",
    "variant",
    "metric",
    "sampler",
    "value",
    "source",
    "locator",
    "note",
]
# The published FIDs and inception scores are of this network; beside another extractor's they would mean nothing.
PUBLISHED_EXTRACTOR = "inception-v3-compat"
# Rows of real images: the smallest values that a perfect model could be expected to reach.
FLOORS = {"test": "real (test split)", "train-halves": "real (two halves of train)"}


def read_published(path: Path) -> pd.DataFrame:
    """Read the published numbers, texts as they stand, absent cells as empty texts.

    Raises:
        ArtifactError: if the file is missing or has other columns.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); run from the top of a checkout") from None
    if list(table.columns) != PUBLISHED_COLUMNS:
        raise ArtifactError(f"{path}: found the columns {list(table.columns)}, expected {PUBLISHED_COLUMNS}")
    return table


def published_value(published: pd.DataFrame, cell: Result, metric: str, sampler: str = "") -> dict[str, Any]:
    """Look up the published number of a cell: same keys and kind of sampler; else nothing."""
    kind = {"": "", "ode": "ode"}.get(sampler, "pc")
    match = published[(published["metric"] == metric) & published["sampler"].isin(["", kind])]
    for key in CELL:
        match = match[match[key] == cell[key]]
    if len(match) == 0:
        return {f"published_{metric}": None, "published_source": None}
    first = match.iloc[0]
    return {f"published_{metric}": float(first["value"]), "published_source": f"{first['source']}, {first['locator']}"}


def _published_beside(published: pd.DataFrame, cell: Result, sampler: str) -> dict[str, Any]:
    """Look up the published FID and inception score of a cell, and name the source of each once."""
    found = {metric: published_value(published, cell, metric, sampler) for metric in ("fid", "is")}
    sources = dict.fromkeys(source for row in found.values() if (source := row["published_source"]))
    return found["fid"] | found["is"] | {"published_source": "; ".join(sources) or None}


def fid_table(
    suite: str,
    runs: Iterable[Result],
    samples: Mapping[str, Result],
    fids: Mapping[str, Result],
    references: Mapping[str, Result],
    published: pd.DataFrame,
) -> pd.DataFrame:
    """Tabulate the image metrics, and under them the floors of every dataset.

    Arguments:
        suite: name of the suite.
        runs: ``run`` and the cell's keys of every run.
        samples: ``samples.json`` of every run.
        fids: ``fid.json`` of every run.
        references: ``reference.json`` of every dataset.
        published: the published numbers.

    Returns:
        The table; a standard error is over images where there is one seed and over seeds where there are several.
    """
    rows = pd.DataFrame([{**run, **samples[run["run"]], **fids[run["run"]]} for run in runs])
    protocol = ["sampler", "nfe", "num_samples", "extractor"]
    table = []
    for cell, group in _cells(rows):
        row = {**cell, **_protocol(group, protocol)}
        for metric in FID_METRICS:
            row |= _mean(group, metric)
        table.append(row | _published_beside(_comparable(published, group), cell, group["sampler"].iloc[0]))
    for dataset, reference in references.items():
        for floor, values in reference["floors"].items():
            table.append({"dataset": dataset, "model": FLOORS[floor], "extractor": reference["extractor"], **values})
    return _finish(suite, table, FID_COLUMNS)


def nll_table(suite: str, runs: Iterable[Result], nlls: Mapping[str, Result], published: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the likelihood numbers, in bits/dim.

    Arguments:
        suite: name of the suite.
        runs: ``run`` and the cell's keys of every run.
        nlls: ``nll.json`` of every run.
        published: the published numbers.

    Returns:
        The table; a standard error is over images where there is one seed and over seeds where there are several.
    """
    rows = pd.DataFrame([{**run, **nlls[run["run"]]} for run in runs])
    values = ["nll", "nll_uncorrected", "nelbo", "nelbo_no_residual", "gap"]
    table = []
    for cell, group in _cells(rows):
        row = {**cell, "seeds": len(group)}
        for value in values:
            row |= _mean(group, value)
        table.append(row | published_value(published, cell, "nll"))
    return _finish(suite, table, NLL_COLUMNS)


def present(table: pd.DataFrame) -> str:
    """Set a table for reading in a terminal: errors beside their values, absent values as dashes, empty columns left out."""
    columns = []
    for column in table:
        error = f"{column}_se"
        if str(column).endswith("_se") or table[column].isna().all():
            continue
        cells = [
            _cell(value, table[error].iloc[i] if error in table else None) for i, value in enumerate(table[column])
        ]
        width = max(map(len, [str(column), *cells]))
        columns.append([text.ljust(width) for text in [str(column), *cells]])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def _cell(value: Any, error: Any) -> str:  # noqa: ANN401 (a cell of any type)
    if pd.isna(value):
        return "-"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if error is None or pd.isna(error) else f"{value:.3f} ± {error:.3f}"


def _cells(rows: pd.DataFrame) -> Iterable[tuple[dict[str, Any], pd.DataFrame]]:
    for key, group in rows.groupby(CELL, sort=False):
        yield dict(zip(CELL, cast(tuple[str, ...], key), strict=True)), group


def _comparable(published: pd.DataFrame, group: pd.DataFrame) -> pd.DataFrame:
    """Keep the published numbers where a cell has their extractor; keep none beside another one."""
    return published if group["extractor"].iloc[0] == PUBLISHED_EXTRACTOR else published.iloc[:0]


def _mean(group: pd.DataFrame, value: str) -> dict[str, Any]:
    numbers = pd.to_numeric(group[value])  # A metric that no seed has is a column of None.
    error = numbers.sem() if len(group) > 1 else group[f"{value}_se"].iloc[0]
    return {value: numbers.mean(), f"{value}_se": error}


def _protocol(group: pd.DataFrame, keys: list[str]) -> dict[str, Any]:
    """Take the protocol that the seeds of a cell share.

    Raises:
        ArtifactError: if they differ; their mean would have no meaning.
    """
    found = group[["sampler", "num_samples", "extractor"]].drop_duplicates()
    if len(found) > 1:
        raise ArtifactError(
            f"runs {', '.join(group['run'])}: found different protocols, expected one: {found.to_dict('list')}"
        )
    return {"seeds": len(group)} | {key: group[key].iloc[0] if key != "nfe" else group[key].mean() for key in keys}


def _finish(suite: str, rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    table = pd.DataFrame([{"suite": suite, **row} for row in rows], columns=columns)
    integers = [column for column in ("seeds", "num_samples") if column in columns]
    return table.astype(dict.fromkeys(integers, "Int64"))
