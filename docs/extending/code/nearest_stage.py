"""Stage ``nearest``: how near the images of each cell lie to its training images, compared with unseen images of the test split."""

from typing import TYPE_CHECKING

import pandas as pd

from indm.arrays import read_array
from indm.metrics.nearest import nearest
from indm.report.catalogue import CELL
from indm.report.export import write_published
from indm.store.layout import Layout
from indm.store.provenance import Finished

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite

COLUMNS = ["suite", *CELL, "seeds", "nearest", "nearest_se", "nearest_test"]


def run(suite: "Suite", layout: Layout) -> Finished:
    """Write ``nearest.csv``."""
    train = {name: read_array(layout.data(name) / "train.npy") for name in suite.datasets}
    unseen = {name: nearest(read_array(layout.data(name) / "test.npy"), train[name]).mean() for name in train}
    rows = []
    for name, run in suite.runs.items():
        found = nearest(read_array(layout.run(name) / "samples.npy"), train[run.dataset]).mean()
        rows.append({key: getattr(run, key) for key in CELL} | {"nearest": found})
    cells = pd.DataFrame(rows).groupby(CELL, sort=False)["nearest"]
    table = cells.agg(seeds="count", nearest="mean", nearest_se="sem").reset_index()
    table["nearest_test"] = table["dataset"].map(unseen)
    write_published(layout.tables / "nearest.csv", table.assign(suite=suite.suite)[COLUMNS])
    return Finished(layout.tables)
