"""A suite whose trainings share their batches between two processes, by an engine."""

from pathlib import Path

import pandas as pd
import pytest

from indm.store.files import read_json
from indm.store.layout import Layout
from indm.strict_yaml import parse_yaml, yaml_text
from tests import kill
from tests.checkout import run

pytestmark = [pytest.mark.e2e, pytest.mark.long]


def test_snakemake_runs_a_suite_of_two_processes(tmp_path: Path) -> None:
    checkouts = {processes: kill.copy_small(tmp_path, f"of-{processes}") for processes in (1, 2)}
    for processes, checkout in checkouts.items():
        path = checkout / "params/smoke.yaml"
        path.write_text(yaml_text(parse_yaml(path.read_text()) | {"processes": processes}))
        targets = {1: f"results/smoke/runs/{kill.RUN}/train.json", 2: "results/table_fid.csv"}
        done = run(checkout, "snakemake", "--cores", "2", "--config", "suite=smoke", "--", targets[processes])
        assert done.returncode == 0, done.stderr
    one, two = (Layout(checkout / "results", "smoke") for checkout in checkouts.values())
    curves = [pd.read_csv(layout.run(kill.RUN) / "train.csv") for layout in (one, two)]
    # The bound of tests/test_distributed.py, in the decimals that are written. Later rows differ by more: sums in another order
    # round differently, and Adam makes that grow.
    assert ((curves[0] - curves[1]).head(1).abs().round(6) <= 1e-5).all(axis=None)
    pd.testing.assert_frame_equal(curves[0], curves[1], rtol=0, atol=1e-2)
    assert pd.read_csv(two.root / "table_fid.csv")["fid"].notna().all()
    # One writes, for both.
    assert read_json(two.run(kill.RUN) / "train.json")["steps"] == 80
    assert not two.scratch(kill.RUN, "train").exists()
