"""The rows of one file: read, and checked for what its kind requires: keys or columns, types, finite numbers, rows.

A manifest shows whether a file is unchanged since its stage wrote it; these checks show whether the stage wrote a valid result.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import pandas as pd

from indm.errors import ArtifactError
from indm.measured import FLOW_METRICS
from indm.report.catalogue import CELL
from indm.store.files import AGAIN, read_json

# The file is unchanged since its stage wrote it, so running the stage again would not help.
REMEDY = "look at the log of its stage"


class Kind(Enum):
    """The kinds of values that a file may require."""

    TEXT = "a text"
    NUMBER = "a finite number"
    OPTIONAL = "a finite number, or nothing"


def _all(kind: Kind, *names: str) -> dict[str, Kind]:
    return dict.fromkeys(names, kind)


def _measured(*metrics: str) -> dict[str, Kind]:
    return _all(Kind.NUMBER, *metrics) | _all(Kind.OPTIONAL, *(f"{metric}_se" for metric in metrics))


Row = Mapping[str, Any]
Schema = Mapping[str, Kind]
# nll_uncorrected is there only if the suite asks for it.
NUMBERS = ("nll", "nelbo", "nelbo_no_reconstruction", "gap")
# Absent for a model without an ODE, and where the suite leaves the ODE out; see :func:`indm.report.numbers.collect`.
OF_ODE = ("nll", "gap")
CELL_KEYS = _all(Kind.TEXT, *CELL)
# By kind of file. The first ones are JSON objects, the others tables.
KINDS: dict[str, Schema] = {
    # The FLOPs of an imported checkpoint are unknown.
    "train": _all(Kind.NUMBER, "steps")
    | _all(Kind.OPTIONAL, "score_parameters", "flow_parameters", "train_flops_per_step"),
    # The adaptive ODE chooses its own steps.
    "sample": _all(Kind.TEXT, "sampler") | _all(Kind.NUMBER, "nfe", "num_samples") | _all(Kind.OPTIONAL, "steps"),
    "fid": _all(Kind.TEXT, "extractor") | _measured("fid"),
    "nll": _all(Kind.NUMBER, "images")
    | _all(Kind.OPTIONAL, "nll_uncorrected", "nll_uncorrected_se")
    | _measured(*NUMBERS),
    "flow": _all(Kind.NUMBER, "images", "log_det_se", *FLOW_METRICS),
    "reference": _all(Kind.TEXT, "extractor"),
    "curve": _all(Kind.NUMBER, "step", "flops", "images", "log_det_bound")
    | _all(Kind.TEXT, "split")
    | _all(Kind.OPTIONAL, *OF_ODE, *(f"{key}_se" for key in OF_ODE))
    | _measured("nelbo"),
    "nll_images": _all(Kind.NUMBER, "image", *NUMBERS) | _all(Kind.OPTIONAL, *OF_ODE),
    "curve_images": _all(Kind.NUMBER, "step", "image", "nelbo") | _all(Kind.OPTIONAL, *OF_ODE),
    # A sampler that cannot produce images has a reason instead of numbers.
    "sweep": _all(Kind.TEXT, "sampler", "skip")
    | _all(Kind.NUMBER, "steps")
    | _all(Kind.OPTIONAL, "nfe", "num_samples", "fid", "fid_se", "kid", "kid_se"),
    # A failed trial has a reason instead of numbers; hyper-parameters have further columns.
    "tune": _all(Kind.TEXT, "phase", "state", "reason")
    | _all(Kind.NUMBER, "trial", "steps", "flops")
    | _all(Kind.OPTIONAL, "target", "target_se", "train_nelbo", "train_nelbo_se", "valid_nelbo", "valid_nelbo_se")
    | _all(Kind.OPTIONAL, "valid_nelbo_raw_flow", "valid_nelbo_raw_flow_se"),
    "protocol": _all(Kind.TEXT, "factor", "setting", "note")
    | _all(Kind.OPTIONAL, "fid", "fid_se", "difference", "difference_se"),
    "toy2d": _all(Kind.TEXT, "model", "variant") | _all(Kind.NUMBER, "seed"),
    "images": _all(Kind.TEXT, "suite", "stage")
    | CELL_KEYS
    | _all(Kind.NUMBER, "seed", "image", "nelbo")
    | _all(Kind.OPTIONAL, "x", *OF_ODE),
    "values": _all(Kind.TEXT, "suite", "stage", "metric", "sampler", "source")
    | CELL_KEYS
    | _all(Kind.NUMBER, "value")
    | _all(Kind.OPTIONAL, "seed", "x", "sound", "se"),
}
# Columns that hold texts in any table: in result files, and in the tables made from them.
TEXTS = [name for kind in KINDS.values() for name, value in kind.items() if value is Kind.TEXT]
TEXTS += ["published_source", "reading", "length_rule", "at_end", "treatment", "against", "to_decide"]


def read_rows(path: Path, kind: str | None = None, columns: Iterable[str] = ()) -> pd.DataFrame:
    """Read a table: absent texts as empty texts, absent numbers as NaN; check its kind, a key of :data:`KINDS`, if it has one.

    Raises:
        ArtifactError: if it is missing, not a table, lacks a column, or is not of this kind.
    """
    table = _read(path, columns, dtype=dict.fromkeys(TEXTS, str))
    table = table.fillna(dict.fromkeys(table.columns.intersection(TEXTS), ""))
    if kind is not None:
        _check_table(path, table, kind)
    return table


def read_columns(path: Path, *columns: str) -> pd.DataFrame:
    """Read a table whose columns are texts or numbers, whole ones as such, and absent ones as absent; see :func:`read_rows`."""
    return _read(path, columns, dtype=dict.fromkeys(TEXTS, str), dtype_backend="numpy_nullable")


def read_texts(path: Path, *columns: str) -> pd.DataFrame:
    """Read a table as texts, with absent texts empty; see :func:`read_rows`."""
    return _read(path, columns, dtype=str, keep_default_na=False)


def _read(path: Path, columns: Iterable[str], **options: Any) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, **options)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(f"{path}: cannot be read as a table ({reason}); {AGAIN}") from None
    require(path, table, columns)
    return table


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """List the rows of a table as mappings from the names of its columns."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def read_object(path: Path, kind: str, run: str | None = None) -> dict[str, Any]:
    """Read a result that is a JSON object.

    Raises:
        ArtifactError: if it is missing, not JSON, from another run, or lacks a key; or if a number in it is not finite.
    """
    content = read_json(path)
    if run is not None and content.get("run") != run:
        raise ArtifactError(f"{path}: found the result of run {content.get('run')}, expected run {run}; {AGAIN}")
    has_none = content.get("no_ode") or content.get("ode_images") == 0
    spared = _all(Kind.OPTIONAL, *OF_ODE) if has_none else {}
    for key, expected in {**KINDS[kind], **spared}.items():
        _check(path, f"key {key}", content.get(key), expected)
    for key, value in _numbers(content):
        _check(path, f"key {key}", value, Kind.OPTIONAL)
    return content


def require(path: Path, table: pd.DataFrame, columns: Iterable[str], remedy: str = AGAIN) -> None:
    """Refuse a table that lacks a column."""
    if missing := [name for name in columns if name not in table]:
        raise ArtifactError(f"{path}: found no column {', '.join(missing)}, expected it in this table; {remedy}")


def _check_table(path: Path, table: pd.DataFrame, kind: str) -> None:
    """Check a table of results.

    Raises:
        ArtifactError: if it has no rows, lacks a column, or has a value of another kind.
    """
    require(path, table, KINDS[kind], REMEDY)
    if table.empty:
        raise ArtifactError(f"{path}: found no rows, expected some; {REMEDY}")
    for name, expected in KINDS[kind].items():
        for row, value in enumerate(table[name].tolist(), start=1):
            absent = expected is Kind.OPTIONAL and isinstance(value, float) and math.isnan(value)
            _check(path, f"row {row}, column {name}", None if absent else value, expected)
    if kind == "sweep" and (unsaid := table.index[table["fid"].isna() & (table["skip"] == "")].tolist()):
        raise ArtifactError(f"{path}: row {unsaid[0] + 1}: found no fid and no skip, expected one of them; {REMEDY}")
    if kind == "tune" and (odd := table.index[table["target"].isna() == (table["state"] == "complete")].tolist()):
        found = f"found state {table['state'][odd[0]]} and target {table['target'][odd[0]]:g}"
        raise ArtifactError(
            f"{path}: row {odd[0] + 1}: {found}, expected one for complete trials and no others; {REMEDY}"
        )


def _numbers(content: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Yield every float, at any depth, with its keys."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield from _numbers(value, f"{key}.{name}" if key else name)
    elif isinstance(content, list):
        for i, value in enumerate(content):
            yield from _numbers(value, f"{key}.{i}")
    elif isinstance(content, float):
        yield key, content


def _check(path: Path, place: str, value: Any, expected: Kind) -> None:
    if expected is Kind.TEXT:
        fits = isinstance(value, str)
    elif value is None:
        fits = expected is Kind.OPTIONAL
    else:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not fits:
        found = "nothing" if value is None else repr(value)
        raise ArtifactError(f"{path}: {place}: found {found}, expected {expected.value}; {REMEDY}")
