"""Stage ``table``: the suite's tables, from its result files."""

from pathlib import Path
from typing import TYPE_CHECKING

from indm.bench.pipeline.stages import STAGES, has_clusters
from indm.bench.suite.load import suite_content
from indm.report.export import write_published
from indm.report.numbers import collect
from indm.report.published import read_published
from indm.report.tables import suite_tables
from indm.store.layout import Layout
from indm.store.provenance import Finished

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite


def run(suite: "Suite", layout: Layout) -> Finished:
    """Write the tidy tables ``values.csv`` and ``images.csv``, and a table for every kind of result, empty if not asked for."""
    published = read_published(Path("params/published.csv"))
    jobs = {name: stage.subjects(suite) for name, stage in STAGES.items()}
    clustered = list(filter(has_clusters, suite.datasets))
    results = collect(layout.suite_folder, suite_content(suite), jobs, clustered)
    for name, table in suite_tables(results, published, suite.grading.decoder).items():
        write_published(layout.tables / f"{name}.csv", table)
    return Finished(layout.tables)
