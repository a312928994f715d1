"""The suite's key ``compile``: a compiled training differs in rounding alone, and its checkpoint has the same form."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from indm.bench.doctor import compiler_item
from indm.bench.stages import prepare, train
from indm.store.layout import Layout
from tests.finished import run
from tests.test_resume import RUN, suite_of

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(bool(compiler_item().gap), reason="there is no C++ compiler for torch"),
]


def trained(root: Path, *, compiled: bool) -> Layout:
    """Train a small run of objective fid: with the score frozen and not, so that two graphs of it are compiled."""
    suite, layout = suite_of({"compile": compiled}), Layout(root, "smoke")
    prepare.run(suite, layout, "digits", data_root=None)
    run(train, suite, layout, RUN)
    return layout


def test_a_compiled_training_is_the_same_but_for_rounding(tmp_path: Path) -> None:
    plain, first, second = (trained(tmp_path / str(n), compiled=n > 0).run(RUN) for n in range(3))
    # With the score frozen, and not.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2
    losses = [pd.read_csv(folder / "train.csv") for folder in (plain, first)]
    assert list(losses[0]) == list(losses[1])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    weights = [load_file(folder / "checkpoint.safetensors") for folder in (plain, first)]
    assert set(weights[0]) == set(weights[1])
    for name, tensor in weights[0].items():
        # 7e-7 on one processor: roundings of 12 steps.
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=1e-4)
    for name in ("checkpoint.safetensors", "snapshots.safetensors", "train.csv", "train.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
