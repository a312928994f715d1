"""The entries of published tables that a comparison reads: settings, and numbers, each with the error that it is judged by.

The first of these errors that exists judges a number:

1. its standard error over at least three seeds, because two seeds do not tell how far a third may lie;
2. its standard error over images, in the same row or in the row of the same model in ``nll.csv`` or ``fid.csv``;
3. for a count x of images, :math:`\\sqrt{x + 1}`.

Numbers without any of these errors are judged by a relative bound. Tables with a row per seed are read as means over the seeds.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from indm.report.catalogue import CATALOGUE, CELL, PLACE
from indm.report.intervals import FEWEST_SEEDS, TAIL
from indm.report.rows import records

# The columns that identify a row, for each table that is compared.
KEYS = {name: list(table.key) for name, table in CATALOGUE.items() if table.key}
# The published tables that are not compared, and columns of the others that are not, with the reason.
TABLES_LEFT_OUT = {
    "tuning": "a search suggests its trials from noisy numbers, so another processor may try others; tuned has its outcome",
    "images": "its means are in nll and learning_curve",
}
TIMES = "times and memory depend on the machine"
ERRORS = "errors, and the ends of intervals, set the tolerance"
DERIVED = "they follow from numbers that are compared"
CHOSEN = "a search chooses between noisy numbers"
WORDS = "they come from files of the checkout, not from a run"
FEW = f"differences of fewer than {FEWEST_SEEDS} seeds have no error; the numbers of both models are compared"
COLUMNS_LEFT_OUT = {
    "compute": {
        TIMES: ["ms_per_step", "seconds_per_1000_samples", "train_peak_memory_mib", "machine"],
    },
    "claims": {
        ERRORS: ["low", "high", "sd", "repeatability"],
        DERIVED: ["reason", "to_decide", "failed_treatment", "failed_against"],
        WORDS: ["question", "statement", "source", "why"],
    },
    "comparison": {
        WORDS: ["published", "published_source", "protocol_differences", "note", "verdict"],
        DERIVED: ["difference"],
    },
    "discretization": {ERRORS: ["fid_low", "fid_high"]},
    "fid": {WORDS: ["published_fid", "published_is", "published_source"]},
    "nll": {WORDS: ["published_nll", "published_source"]},
    "tuned": {
        CHOSEN: ["trial", "lr", "flow_lr", "at_end", "length_rule", "rank_agreement", "rank_agreement_p", "flops"],
    },
    "values": {WORDS: ["source"]},
}
# Numbers that do not depend on chance, by column or, in values, by metric: they must be equal.
SETTINGS = {
    "seeds",
    "pairs",
    "nfe",
    "num_samples",
    "images",
    "clusters",
    "sound",
    "steps",
    "parameters",
    "train_flops",
    "flops",
}
SETTINGS |= {"score_parameters", "flow_parameters", "train_flops_per_step", "step_flops", "trials", "failed"}
COUNTS = {"nll_beyond"}
# Names of numbers that are as uncertain as another one of the same images.
LIKE = {"nll_median": "nll", "nll_trimmed": "nll", "nll_fixed_median": "nll_fixed", "nll_fixed_trimmed": "nll_fixed"}
# The tables whose errors over images hold for the same model in other tables.
WITH_IMAGE_ERRORS = ("nll", "fid")
COLUMNS = ["table", "model", "row", "number", "value", "error", "freedom"]

ImageErrors = Mapping[tuple[tuple[str, ...], str], float]


class Entry(NamedTuple):
    """A value, its error (0 for a setting, NaN where unknown), and the error's degrees of freedom (infinite over images)."""

    number: str
    value: Any
    error: float
    freedom: float = np.inf


def entries(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """List the entries of a suite's tables: ``model`` names what was trained, and ``row`` the row of the table.

    Verdicts are not among them, but the effects of claims are.

    Arguments:
        tables: tables of :data:`KEYS`, by their names.
    """
    errors, found = _image_errors(tables), []
    for name, table in tables.items():
        for row in records(over_seeds(name, table)):
            place = _text_of(row, CELL if "model" in KEYS[name] else [*PLACE, "against"])
            shown = _text_of(row, _keys_over_seeds(name))
            found += [(name, place, shown, *entry) for entry in _entries(name, row, errors)]
    return pd.DataFrame(found, columns=COLUMNS).astype({"value": object, "error": float, "freedom": float})


def over_seeds(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Average a table with a row per seed over the seeds, with their standard error, and list the seeds; others stay."""
    if "seed" not in KEYS[name]:
        return table
    number = "difference" if "difference" in table else "value"
    groups = table.groupby(_keys_over_seeds(name), sort=False, dropna=False)
    means = pd.DataFrame({number: groups[number].mean(), f"{number}_se": groups[number].sem()})
    means["seeds"] = groups["seed"].agg("count")
    means["which seeds"] = groups["seed"].agg(lambda seeds: " ".join(map(str, sorted(seeds))))
    if "se" in table:
        means[f"{number}_image_se"] = groups["se"].agg(lambda errors: (errors**2).mean() ** 0.5)
        means["sound"] = groups["sound"].first()
    return means.reset_index()


def left_out(tables: Mapping[str, pd.DataFrame]) -> Iterator[str]:
    """Yield a line for each reason why a table, or columns of tables, are not compared."""
    for name, why in TABLES_LEFT_OUT.items():
        yield f"{name}: {why}"
    for why in (TIMES, DERIVED, CHOSEN, WORDS):
        if columns := _listed(tables, why):
            yield f"{columns}: {why}"
    yield f"columns _se and _image_se, and {_listed(tables, ERRORS)}: {ERRORS}"
    yield f"ablation, claims and differences, in part: {FEW}"


def _listed(tables: Mapping[str, pd.DataFrame], why: str) -> str:
    """List the columns that are left out for a reason, in tables that have rows."""
    return ", ".join(
        f"{name}.{column}"
        for name, reasons in COLUMNS_LEFT_OUT.items()
        for column in reasons.get(why, [])
        if len(tables[name]) and column in tables[name]
    )


def text(value: Any) -> str:
    """Write a value as text, because a column of numbers and texts may be read as either."""
    return "" if pd.isna(value) else str(value) if isinstance(value, str) else f"{value:g}"


def _keys_over_seeds(name: str) -> list[str]:
    return [key for key in KEYS[name] if key != "seed"]


def _text_of(row: Mapping[str, Any], keys: list[str]) -> str:
    return " ".join(filter(None, (text(row[key]) for key in keys)))


def _cell(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(text(row.get(key, "")) for key in CELL)


def _image_errors(tables: Mapping[str, pd.DataFrame]) -> dict[tuple[tuple[str, ...], str], float]:
    """Collect the standard errors over images, by model and number."""
    found: dict[tuple[tuple[str, ...], str], float] = {}
    for name in WITH_IMAGE_ERRORS:
        for row in records(tables[name]):
            known = {key.removesuffix("_image_se"): row[key] for key in row if key.endswith("_image_se")}
            found |= {(_cell(row), number): error for number, error in known.items() if not pd.isna(error)}
    return found


def _entries(name: str, row: Mapping[str, Any], errors: ImageErrors) -> Iterator[Entry]:
    """Yield the entries of a row."""
    if name == "claims":
        yield from _effect(row)
        return
    skipped = {"suite", *KEYS[name]} | {key for keys in COLUMNS_LEFT_OUT.get(name, {}).values() for key in keys}
    for column, value in row.items():
        is_error = column.endswith("_se")
        if column in skipped or is_error or pd.isna(value) or value == "":
            continue
        if isinstance(value, str) or {column, row.get("metric") if name == "values" else ""} & SETTINGS:
            yield Entry(column, value, 0.0)
        elif not _is_few(column, row):
            yield Entry(column, value, *_error(column, row, errors))


def _is_few(column: str, row: Mapping[str, Any]) -> bool:
    """Return whether a number is a difference of too few seeds, without an error over images."""
    if not column.endswith("difference"):
        return False
    count = row["pairs"] if "pairs" in row else row["seeds"]
    return count < FEWEST_SEEDS and f"{column}_image_se" not in row


def _error(column: str, row: Mapping[str, Any], errors: ImageErrors) -> tuple[float, float]:
    """Return the error of a number, and its degrees of freedom; NaN without an error."""
    count = row["pairs"] if column.endswith("_difference") else row.get("seeds", 1)
    over_seeds = row.get(f"{column}_se", np.nan)
    if count >= FEWEST_SEEDS and not pd.isna(over_seeds):
        return float(over_seeds), float(count - 1)
    if column in COUNTS:
        return float((row[column] + 1) ** 0.5), np.inf
    over_images = row.get(f"{column}_image_se", np.nan)
    if pd.isna(over_images):
        over_images = errors.get((_cell(row), LIKE.get(column, column)), np.nan)
    return float(over_images), np.inf


def _effect(row: Mapping[str, Any]) -> Iterator[Entry]:
    r"""Yield the effect of a claim, if it has an interval over seeds; its half-width is at most too large for its error.

    .. math:: s \le \frac{\text{high} - \text{low}}{2\, t_{n-1}}

    with equality unless the interval is corrected for several comparisons.
    """
    if row["n"] >= FEWEST_SEEDS and not pd.isna(row["high"]):
        freedom = float(row["n"] - 1)
        yield Entry(
            "effect", row["effect"], (row["high"] - row["low"]) / (-2 * special.stdtrit(freedom, TAIL)), freedom
        )
