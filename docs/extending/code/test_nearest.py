"""The stage ``nearest``: distances by hand, and the table of a suite."""

from pathlib import Path

import numpy as np
import pandas as pd

from indm.arrays import write_array
from indm.bench.stages.nearest import run
from indm.bench.suite.load import load_suite
from indm.metrics.nearest import nearest
from indm.store.layout import Layout
from tests.conftest import REPOSITORY


def images(*levels: int) -> np.ndarray:
    """Return images of four pixels, each of one level."""
    return np.repeat(np.array(levels, np.uint8), 4).reshape(-1, 1, 2, 2)


def test_distances_are_those_from_the_nearest() -> None:
    np.testing.assert_allclose(nearest(images(0, 9, 250), images(10, 1)), [1, 1, 240])


def test_cells_are_averaged_over_their_seeds(tmp_path: Path) -> None:
    suite = load_suite(REPOSITORY / "params/smoke.yaml")
    layout = Layout(tmp_path, "smoke")
    write_array(layout.data("digits") / "train.npy", images(10))
    write_array(layout.data("digits") / "test.npy", images(12, 14))
    for name in suite.runs:
        write_array(layout.run(name) / "samples.npy", images(10, 13))
    run(suite, layout)
    table = pd.read_csv(layout.tables / "nearest.csv")
    assert table[["seeds", "nearest", "nearest_test"]].to_numpy().tolist() == [[1, 1.5, 3]] * len(suite.runs)
