"""The suite of stand-in images from nothing, by both engines: the loaders of the paper's datasets, and Inception."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.checkout import copy_checkout, run_suite

pytestmark = [pytest.mark.e2e, pytest.mark.long]

ENGINES = ("snakemake", "dvc")
KINDS = ("fid", "nll")
# Nothing listens there: a download fails at once instead of hiding that the suite needs one.
NO_PROXY, PROXIES = "http://127.0.0.1:9", ("http_proxy", "https_proxy", "all_proxy")


@pytest.fixture(scope="module")
def checkouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two copies of the checkout in which the suite has been run, side by side, by an engine each, without internet."""
    copies = {engine: copy_checkout(tmp_path_factory.mktemp(engine)) for engine in ENGINES}
    with pytest.MonkeyPatch.context() as monkeypatch:
        for variable in PROXIES:
            monkeypatch.setenv(variable, NO_PROXY)
        for variable in ("INDM_DATA", "INDM_INCEPTION", "INDM_INCEPTION_CLEAN"):
            monkeypatch.delenv(variable, raising=False)
        run_suite(copies, "smoke-images")
    return copies


def table(checkout: Path, kind: str) -> Path:
    return checkout / f"results/smoke-images/tables/{kind}.csv"


def test_the_tables_are_complete_and_compare_with_nothing(checkouts: dict[str, Path]) -> None:
    fid, nll = (pd.read_csv(table(checkouts["snakemake"], kind)) for kind in KINDS)
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
def test_the_data_say_that_they_are_synthetic(checkouts: dict[str, Path], name: str, counts: list[int]) -> None:
    folder = checkouts["snakemake"] / f"results/smoke-images/data/{name}"
    description = json.loads((folder / "dataset.json").read_text())
    assert description["dataset"] == name
    assert description["source"].startswith("synthetic stand-in")
    assert list(description["counts"].values()) == counts


def test_both_engines_make_the_same_tables(checkouts: dict[str, Path]) -> None:
    for kind in KINDS:
        first, second = (table(checkouts[engine], kind).read_bytes() for engine in ENGINES)
        assert first == second
