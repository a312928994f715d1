"""Stage ``table``: the suite's tables, from its result files."""

from pathlib import Path
from typing import TYPE_CHECKING

from indm.artifacts import Layout, read_json, write_table
from indm.report import fid_table, nll_table, read_published

if TYPE_CHECKING:
    from indm.params import Suite


def run(suite: "Suite", layout: Layout) -> Path:
    """Write ``fid.csv`` and ``nll.csv``."""
    published = read_published(Path("params/published.csv"))
    runs = [{"run": name, **_identity(suite, name)} for name in suite.runs]
    results = {
        kind: {name: read_json(layout.run(name) / f"{kind}.json") for name in suite.runs}
        for kind in ("samples", "fid", "nll")
    }
    floors = {name: read_json(layout.data(name) / "reference.json") for name in suite.datasets}
    write_table(
        layout.tables / "fid.csv", fid_table(suite.suite, runs, results["samples"], results["fid"], floors, published)
    )
    write_table(layout.tables / "nll.csv", nll_table(suite.suite, runs, results["nll"], published))
    return layout.tables


def _identity(suite: "Suite", name: str) -> dict[str, str]:
    run = suite.runs[name]
    return {
        "dataset": run.dataset,
        "sde": run.sde,
        "model": run.model,
        "variant": run.variant,
        "objective": run.objective,
    }
