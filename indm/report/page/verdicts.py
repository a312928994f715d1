"""The grades of the claims, under their statements."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from indm.report.grades import REPEATABLE
from indm.report.names import names
from indm.report.page.entries import text_entry


def summarise_claims(path: Path) -> list[dict[str, Any]]:
    """Gather the grades of every claim under its statement; nothing where there is no table."""
    if not path.is_file():
        return []
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return [
        {
            "id": claim,
            "statement": part["statement"].iloc[0],
            "source": part["source"].iloc[0],
            "family": part["family"].iloc[0],
            "grades": [(text_entry("grade", row["grade"]), _where(row)) for row in part.to_dict("records")],
        }
        for claim, part in table.groupby("id", sort=False)
    ]


def _where(row: Mapping[Any, str]) -> str:
    """Name what a grade is of, and whether other seeds might well give another."""
    borderline = row["repeatability"] and float(row["repeatability"]) < REPEATABLE
    return names(row["dataset"], row["sde"], row["objective"]) + (" (borderline)" if borderline else "")
