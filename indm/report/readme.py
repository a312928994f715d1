"""The tables of README.md, from the published results of the suites on digits: nothing in them is written by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from indm.report.export import present
from indm.report.grades import NO_DATA, REPEATABLE
from indm.report.names import names
from indm.report.results import CELL, read_rows, records
from indm.store.blocks import replace_block
from indm.store.files import read_json

# The suites whose verdicts stand side by side, with what they are; the first one's numbers are shown too.
SUITES = {"digits": "a first look", "digits-full": "the evidence"}
NUMBERS = ("fid", "nll", "nelbo", "gap")


def with_results(readme: str, published: Path) -> str:
    """Return README.md with the tables of the published results; as it is, where those of the default suite are not published.

    Arguments:
        readme: its text.
        published: the folder that has a folder for each published suite: ``tables/``, ``provenance.json``.

    Raises:
        ArtifactError: if a file is missing or damaged, or README.md has no place for a table.
    """
    folders = {suite: published / suite for suite in SUITES if (published / suite / "provenance.json").is_file()}
    if (default := next(iter(SUITES))) not in folders:
        return readme
    claims = {suite: read_rows(folder / "tables/claims.csv") for suite, folder in folders.items()}
    for family in ("primary", "exploratory"):
        parts = {suite: table[table["family"] == family] for suite, table in claims.items()}
        readme = replace_block(readme, family, verdicts(parts), "README.md")
    fid, nll = (read_rows(folders[default] / f"tables/{name}.csv") for name in ("fid", "nll"))
    executions = read_json(folders[default] / "provenance.json")["executions"]
    machines = list(dict.fromkeys(execution["machine"] for execution in executions))
    return replace_block(readme, "numbers", numbers(fid, nll, machines), "README.md")


def verdicts(claims: Mapping[str, pd.DataFrame]) -> str:
    """Write a row a claim and a column a suite: the grade at each place, with its effect and interval, and what was asked of it.

    A star says that another draw might change it. Places are named where a claim has several.

    Arguments:
        claims: the table of claims of each suite.
    """
    heads = [f"`{suite}`: {SUITES[suite]}" for suite in claims]
    lines = [f"| claim | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    table = pd.concat(claims.values(), ignore_index=True)
    for _, part in table.groupby("id", sort=False):
        seen = [row for row in records(part) if row["grade"] != NO_DATA]
        several = len({_place(row) for row in seen}) > 1
        cells = [_cell([row for row in seen if row["suite"] == suite], several) for suite in claims]
        statement = str(part["statement"].iloc[0]).removesuffix(".").replace("|", "\\|")
        worth = f"{part['unit'].iloc[0]}; smallest effect {part['smallest_effect'].iloc[0]:g}"
        lines.append(f"| {statement} ({worth}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def _place(row: Mapping[str, Any]) -> str:
    return names(row["dataset"], row["sde"], row["objective"])


def _cell(rows: list[dict[str, Any]], several: bool) -> str:
    return "; ".join((f"{_place(row)}: " if several else "") + _verdict(row) for row in rows) or NO_DATA


def _verdict(row: Mapping[str, Any]) -> str:
    grade = f"{row['grade']}*" if row["repeatability"] < REPEATABLE else str(row["grade"])
    control = "" if pd.isna(row["control_effect"]) else f"; against {row['control']} {_effect(row, 'control_')}"
    return f"{grade}, {_effect(row)}{control}"


def _effect(row: Mapping[str, Any], of: str = "") -> str:
    effect, low, high = (row[f"{of}{column}"] for column in ("effect", "low", "high"))
    return f"{effect:.3f}" + ("" if pd.isna(low) else f" [{low:.3f}, {high:.3f}]")


def numbers(fid: pd.DataFrame, nll: pd.DataFrame, machines: list[str]) -> str:
    """Write FID and likelihoods of each cell, what they are of, and what real images score."""
    real = fid["model"].str.startswith("real")
    shown = [f"{name}{end}" for name in NUMBERS for end in ("", "_se", "_image_se")]
    table = fid[~real].merge(nll, on=[*CELL, "seeds"], validate="one_to_one", suffixes=("", "_nll"))
    columns = [column for column in CELL if column != "dataset" or table["dataset"].nunique() > 1]
    images, test_images = (_only(part[column]) for part, column in ((fid[~real], "num_samples"), (nll, "images")))
    floors = ", ".join(
        f"{row['model'].removeprefix('real (').removesuffix(')')} {row['fid']:.3f} ({row['fid_image_se']:.3f})"
        for row in records(fid[real])
    )
    place = f"docs/results/{next(iter(SUITES))}/tables"
    return f"""```
{present(table[[*columns, "seeds", *shown]])}
```

From `{place}/fid.csv` and `nll.csv` (FID of {images} images; bits/dim of {test_images} test images), on
{"; ".join(machines)}. ± is one standard error over seeds, in brackets one over images.
Real images score an FID of: {floors}."""


def _only(column: "pd.Series[Any]") -> str:
    """Write the values of a column, each once."""
    return " or ".join(f"{value:g}" for value in sorted(set(column)))
