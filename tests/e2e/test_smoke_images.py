"""The suite of stand-in images from nothing: the loaders of the paper's datasets, and Inception."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.checkout import copy_checkout, do_jobs

pytestmark = [pytest.mark.e2e, pytest.mark.long]

# Nothing listens there: a download fails at once instead of hiding that the suite needs one.
NO_PROXY, PROXIES = "http://127.0.0.1:9", ("http_proxy", "https_proxy", "all_proxy")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the suite, which was run without internet."""
    checkout = copy_checkout(tmp_path_factory.mktemp("checkout"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        for variable in PROXIES:
            monkeypatch.setenv(variable, NO_PROXY)
        for variable in ("INDM_DATA", "INDM_INCEPTION", "INDM_INCEPTION_CLEAN"):
            monkeypatch.delenv(variable, raising=False)
        do_jobs(checkout, "smoke-images")
    return checkout / "results/smoke-images"


def test_the_tables_are_complete_and_compare_with_nothing(results: Path) -> None:
    fid, nll = (pd.read_csv(results / f"tables/{kind}.csv") for kind in ("fid", "nll"))
    floors = fid["model"].str.startswith("real")
    assert (len(fid), floors.sum(), len(nll)) == (8, 4, 4)
    assert set(fid["extractor"]) == {"inception-v3-random"}
    # Of generated images alone.
    assert fid["fid_infinity"].isna().equals(floors)
    metrics = ["fid", "kid", "is", "confidence", "precision", "recall", "clean_fid", "legacy_fid"]
    assert fid[[*metrics, *(f"{metric}_image_se" for metric in metrics), "num_samples"]].notna().all(axis=None)
    assert (
        nll[["nll", "nll_image_se", "nll_uncorrected", "nll_fixed", "nelbo", "nelbo_fixed", "gap"]]
        .notna()
        .all(axis=None)
    )
    for rows in (fid, nll):
        assert set(rows["suite"]) == {"smoke-images"}
        assert set(rows["dataset"]) == {"standin32", "standin64"}
        assert rows.filter(like="published").isna().all(axis=None)


@pytest.mark.parametrize(("name", "counts"), [("standin32", [20, 0, 4]), ("standin64", [12, 3, 6])])
def test_the_data_say_that_they_are_synthetic(results: Path, name: str, counts: list[int]) -> None:
    description = json.loads((results / f"data/{name}/dataset.json").read_text())
    assert description["dataset"] == name
    assert description["source"].startswith("synthetic stand-in")
    assert list(description["counts"].values()) == counts
