"""Stage ``table``: the suite's tables, from its result files."""

from pathlib import Path
from typing import TYPE_CHECKING

from indm.pipeline import STAGES
from indm.report.published import read_published
from indm.report.results import read_results
from indm.report.tables import (
    ablation_table,
    discretization_table,
    fid_table,
    learning_curve_table,
    nll_table,
    protocol_table,
    toy2d_table,
)
from indm.report.tuning import tuned_table, tuning_table
from indm.report.values import images_table, values_table
from indm.report.written import write_published
from indm.store.finished import Finished
from indm.store.layout import Layout

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite


def run(suite: "Suite", layout: Layout) -> Finished:
    """Write the tidy tables ``values.csv`` and ``images.csv``, and a table of every kind of result, empty if not asked for."""
    published = read_published(Path("params/published.csv"))
    runs = {name: run.model_dump(exclude={"train", "sample"}) for name, run in suite.runs.items()}
    results = read_results(
        layout,
        runs,
        suite.datasets,
        curve=STAGES["curve"].subjects(suite),
        sweep=STAGES["sweep"].subjects(suite),
        tune=suite.tune,
        toy2d=suite.toy2d.datasets,
        protocol={dataset: section.run for dataset, section in suite.protocol.items()},
    )
    values = values_table(results)
    tables = {
        "values": values,
        "images": images_table(results),
        "fid": fid_table(results, published),
        "nll": nll_table(results, published),
        "discretization": discretization_table(results),
        "learning_curve": learning_curve_table(results),
        "ablation": ablation_table(results, values),
        "protocol": protocol_table(results),
        "toy2d": toy2d_table(results),
        "tuning": tuning_table(results),
        "tuned": tuned_table(results),
    }
    for name, table in tables.items():
        write_published(layout.tables / f"{name}.csv", table)
    return Finished(layout.tables)
