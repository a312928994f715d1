"""Stage ``claims``: the paper's claims, graded, and its published numbers beside ours."""

from pathlib import Path
from typing import TYPE_CHECKING

from indm.artifacts import Layout, write_table
from indm.report import claims_table, comparison_table, load_claims, read_published, read_rows

if TYPE_CHECKING:
    from indm.params import Suite


def run(suite: "Suite", layout: Layout) -> Path:
    """Write ``claims.csv`` and ``comparison.csv``."""
    claims = load_claims(Path("params/claims.yaml"))
    published = read_published(Path("params/published.csv"))
    values, fid, nll = (read_rows(layout.tables / f"{name}.csv") for name in ("values", "fid", "nll"))
    write_table(layout.tables / "claims.csv", claims_table(values, claims, suite.suite))
    write_table(layout.tables / "comparison.csv", comparison_table(suite.suite, fid, nll, values, published))
    return layout.tables
