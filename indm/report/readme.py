"""The tables of README.md, from the published tables of the default suite: nothing in them is written by hand."""

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

NUMBERS = ("fid", "nll", "nelbo", "gap")


def with_results(readme: str, published: Path) -> str:
    """Return README.md with the tables of the published results.

    Arguments:
        readme: its text.
        published: folder of what is published of the default suite: ``tables/``, ``provenance.json``.

    Raises:
        ArtifactError: if a file is missing or damaged, or README.md has no place for a table.
    """
    tables = {name: read_rows(published / f"tables/{name}.csv") for name in ("claims", "fid", "nll")}
    readme = replace_block(readme, "verdicts", verdicts(tables["claims"]), "README.md")
    executions = read_json(published / "provenance.json")["executions"]
    machines = list(dict.fromkeys(execution["machine"] for execution in executions))
    return replace_block(readme, "numbers", numbers(tables["fid"], tables["nll"], machines), "README.md")


def verdicts(claims: pd.DataFrame) -> str:
    """Write the grades of each claim as a row: places of equal grade together, a star where another draw might change it."""
    lines = ["| claim of the paper | verdict |", "|---|---|"]
    for _, part in claims.groupby("id", sort=False):
        places: dict[str, list[str]] = {}
        for row in records(part):
            if row["grade"] != NO_DATA:
                places.setdefault(_grade(row), []).append(names(row["dataset"], row["sde"], row["objective"]))
        found = "; ".join(f"{grade} ({'; '.join(where)})" for grade, where in places.items())
        statement = str(part["statement"].iloc[0]).replace("|", "\\|")
        lines.append(f"| {statement} | {found or NO_DATA} |")
    return "\n".join(lines)


def _grade(row: Mapping[str, Any]) -> str:
    return f"{row['grade']}*" if row["repeatability"] < REPEATABLE else str(row["grade"])


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
    return f"""```
{present(table[[*columns, "seeds", *shown]])}
```

From `docs/results/digits/tables/fid.csv` and `nll.csv` (FID of {images} images; bits/dim of {test_images} test images), on
{"; ".join(machines)}. ± is one standard error over seeds, in brackets one over images. Real images score an FID of: {floors}."""


def _only(column: "pd.Series[Any]") -> str:
    """Write the values of a column, each once."""
    return " or ".join(f"{value:g}" for value in sorted(set(column)))
