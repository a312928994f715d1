"""The published tables of a suite, written and read."""

import contextlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from indm.errors import ArtifactError
from indm.report.catalogue import SHOWN
from indm.report.grades import NOT_BETTER
from indm.report.rows import read_rows, records
from indm.store.files import file_sha256, write_table
from indm.store.layout import Layout
from indm.store.manifest import Manifest, read_manifest
from indm.store.sums import NAME as SUMS
from indm.store.sums import check_sums

# A spreadsheet takes texts with these starts for formulas, which it would evaluate, and which may contact another machine.
FORMULA = ("=", "+", "-", "@", "\t", "\r")
# If the smallest effect is at least this large, effects are written with two decimals.
TENTH = 0.05
LOG_RATIO = "log ratio"


def write_published(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, with an apostrophe in front of texts that a spreadsheet would take for formulas."""
    write_table(path, table.map(_plain))


def _plain(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    with contextlib.suppress(ValueError):
        float(value)
        return value
    return f"'{value}"


def read_tables(layout: Layout, names: Iterable[str] = SHOWN) -> dict[Path, pd.DataFrame]:
    """Read tables of a suite, by their paths.

    Raises:
        ArtifactError: if one is missing, differs from its manifest or its published checksum, or has rows of another suite.
    """
    tables: dict[Path, pd.DataFrame] = {}
    remedy = f"make them again with: {again(layout)}"
    for name in names:
        path = layout.tables / f"{name}.csv"
        if not path.is_file():
            raise ArtifactError(f"{path}: missing; {_remedy(layout)}")
        tables[path] = read_rows(path)
        if "suite" not in tables[path]:
            raise ArtifactError(f"{path}: found no suite column, expected tables of a suite; {remedy}")
        if foreign := sorted(set(tables[path]["suite"]) - {layout.suite}):
            raise ArtifactError(f"{path}: found rows of suite {', '.join(foreign)}, expected {layout.suite}; {remedy}")
    if (layout.suite_folder / SUMS).is_file():
        check_sums(layout.suite_folder)
        return tables
    written = _written(layout)
    if changed := [str(path) for path in tables if written.get(path.name) != file_sha256(path)]:
        raise ArtifactError(f"found {', '.join(changed)} not as their stages wrote them; {remedy}")
    return tables


def _written(layout: Layout) -> dict[str, str]:
    """Return the checksum of each table as its stage wrote it, by the name of its file."""
    found: dict[str, str] = {}
    for made in _manifests(layout):
        found |= {Path(name).name: sha256 for name, sha256 in made.outputs.items()}
    return found


def rows_as_json(layout: Layout, names: Iterable[str]) -> str:
    """Write the rows of a suite's tables as JSON, by the tables' names; null for what is no finite number.

    See :func:`read_tables`.
    """
    tables = {path.stem: table.replace([np.inf, -np.inf], np.nan) for path, table in read_tables(layout, names).items()}
    rows = {name: records(table.astype(object).where(table.notna(), None)) for name, table in tables.items()}
    return json.dumps(rows, indent=1, allow_nan=False)


def _remedy(layout: Layout) -> str:
    """Return the command that shows published tables, or makes them, from kept results if there are any; and other suites."""
    folder = Path("docs/results", layout.suite)
    shown = f"the published one: indm show {layout.suite} --published; " * (folder / "tables").is_dir()
    restored = f"make restore SUITE={layout.suite} && " * (folder / "kept").is_dir()
    others = sorted({path.parent.parent.name for path in layout.root.glob("*/tables/fid.csv")} - {layout.suite})
    more = f"; suites with tables: {', '.join(others)} (--suite)" if others else ""
    return f"{shown}make it with: {restored}indm run {layout.suite}{more}"


def _manifests(layout: Layout) -> list[Manifest]:
    return [read_manifest(path) for path in sorted((layout.tables / "manifest").glob("*.json"))]


def edited(layout: Layout, names: Iterable[str]) -> list[str]:
    """List the files of the checkout, such as the claims, that were edited after the named tables were made from them."""
    files = {f"{name}.csv" for name in names}
    inputs: dict[str, str] = {}
    for made in _manifests(layout):
        if files & {Path(output).name for output in made.outputs}:
            inputs.update(made.inputs)
    there = {Path(name): sha256 for name, sha256 in inputs.items() if not name.startswith("results/")}
    return [str(path) for path, sha256 in there.items() if path.is_file() and file_sha256(path) != sha256]


def again(layout: Layout) -> str:
    """Return the command that makes a suite's tables again from the current files."""
    return f"snakemake --cores all --config suite={layout.suite} --forcerun table compute claims"


def ratio(row: Mapping[str, Any]) -> str:
    r"""Write what the log ratio behind *not better* means: how many times as high INDM's FID is; empty for other rows.

    .. math:: \frac{\mathrm{FID}(a)}{\mathrm{FID}(b)} = e^{-\hat d}, \qquad \hat d = \log \mathrm{FID}(b) - \log \mathrm{FID}(a),

    with geometric means over the seeds, for the treatment a and the other model b.
    """
    if row["unit"] != LOG_RATIO or row["verdict"] != NOT_BETTER:
        return ""
    return f"FID {math.exp(-row['effect']):.2f} times as high"


def in_digits(effect: float, smallest: float) -> str:
    """Write an effect, or an end of its interval.

    Log ratios, whose smallest effect is a tenth, need one decimal less than bits/dim, whose smallest effect is a hundredth.
    """
    return f"{effect:z.2f}" if smallest >= TENTH else f"{effect:z.3f}"


def effect_with_ends(row: Mapping[str, Any]) -> str:
    """Write an effect from a table of claims, with the ends of its interval if it has one."""
    effect, low, high = (in_digits(row[column], row["smallest_effect"]) for column in ("effect", "low", "high"))
    return effect + ("" if pd.isna(row["low"]) else f" [{low}, {high}]")
