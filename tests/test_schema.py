"""Result files: what they must hold, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from indm.bench.stages import compute
from indm.bench.suite.load import load_suite
from indm.errors import ArtifactError
from indm.report.rows import read_object, read_rows
from indm.store.layout import Layout
from tests.conftest import REPOSITORY
from tests.made_up import write_made_up_runs

NUMBERS = ("nll", "nelbo", "nelbo_no_reconstruction", "gap")
NLL: dict[str, Any] = {"run": "a", "images": 16, "log_det_bound": 0.0, **dict.fromkeys(NUMBERS, 1.5)}
CURVE = "step,flops,split,images,nelbo,nelbo_se,nll,nll_se,gap,gap_se,log_det_bound\n10,1e9,valid,8,9.4,0.5,9.0,,0.4,0.6,0\n"
SWEEP = "sampler,steps,nfe,num_samples,fid,fid_se,kid,kid_se,skip\nancestral,2,,,,,,,not finite\n"
TABLE = {"curve": CURVE, "sweep": SWEEP}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nll": None}, "key nll: found nothing, expected a finite number"),
        ({"nll": float("nan")}, "key nll: found nan, expected a finite number"),
        ({"gap": float("inf")}, "key gap: found inf, expected a finite number"),
        ({"nll": "1.5"}, "key nll: found '1.5', expected a finite number"),
        ({"nll": True}, "key nll: found True, expected a finite number"),
        ({"protocol": {"deep": float("nan")}}, "key protocol.deep: found nan, expected a finite number, or nothing"),
        ({"splits": [1.0, float("nan")]}, "key splits.1: found nan, expected a finite number, or nothing"),
        ({"run": "b"}, "found the result of run b, expected run a"),
    ],
)
def test_an_object_that_is_no_result_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "nll.json"
    path.write_text(json.dumps(NLL))
    assert read_object(path, "nll", "a") == NLL
    path.write_text(json.dumps(NLL | change))
    with pytest.raises(ArtifactError, match=rf"nll\.json: {message}"):
        read_object(path, "nll", "a")
    path.write_text('{"run": "a"}')
    with pytest.raises(ArtifactError, match="key images"):
        read_object(path, "nll", "a")


@pytest.mark.parametrize(
    ("kind", "old", "new", "message"),
    [
        ("curve", "nelbo,", "nelb,", "found no column nelbo, expected it in this table"),
        ("curve", CURVE.partition("\n")[2], "", "found no rows, expected some"),
        ("curve", "9.4", "", "row 1, column nelbo: found nan, expected a finite number"),
        ("curve", "9.4", "inf", "row 1, column nelbo: found inf, expected a finite number"),
        ("curve", "9.4", "much", "row 1, column nelbo: found 'much', expected a finite number"),
        ("sweep", "not finite", "", "row 1: found no fid and no skip, expected one of them"),
        ("sweep", "2,,,,", "2,,,inf,", "row 1, column fid: found inf, expected a finite number, or nothing"),
    ],
)
def test_a_table_that_is_no_result_is_refused(tmp_path: Path, kind: str, old: str, new: str, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(TABLE[kind])
    assert len(read_rows(path, kind)) == 1
    path.write_text(TABLE[kind].replace(old, new))
    with pytest.raises(ArtifactError, match=rf"table\.csv: {message}"):
        read_rows(path, kind)


@pytest.mark.parametrize(
    ("key", "value"),
    [*(("seconds", value) for value in (-5, float("nan"), True, None, "1.5")), ("peak_memory_mib", -1), ("machine", 5)],
)
def test_costs_are_not_tabulated_of_what_is_no_cost(tmp_path: Path, key: str, value: object) -> None:
    suite, layout = load_suite(REPOSITORY / "params/smoke.yaml"), Layout(tmp_path, "smoke")
    write_made_up_runs(layout, suite, lambda run, metric: 1.0)
    run = next(iter(suite.runs))
    path = layout.run(run) / "provenance/train.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"suite": "smoke", "stage": "train", "subject": run, key: value}))
    with pytest.raises(ArtifactError, match=rf"provenance/train\.json: key {key}: found {value!r}[^\n]*$"):
        compute.run(suite, layout)
    assert not layout.tables.exists()
