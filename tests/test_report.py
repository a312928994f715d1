"""Tables from result files: columns, aggregation over seeds, floors, published numbers, absent values."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from indm.errors import ArtifactError
from indm.report import fid_table, nll_table, present, read_published
from indm.report.tables import FID_COLUMNS, FID_METRICS, NLL_COLUMNS
from tests.conftest import REPOSITORY

PUBLISHED = read_published(REPOSITORY / "params" / "published.csv")
EXTRACTORS = {"digits": "digits-cnn", "cifar10": "inception-v3-compat"}
NUMBERS = ["nll", "nll_uncorrected", "nelbo", "nelbo_no_residual", "gap"]


def runs(dataset: str = "digits", seeds: int = 2, **keys: str) -> list[dict[str, Any]]:
    cell = {"dataset": dataset, "sde": "vp", "model": "ddpmpp", "variant": "", "objective": "fid"} | keys
    return [{"run": f"{dataset}-s{seed}", **cell} for seed in range(seeds)]


def metrics(dataset: str, fid: float) -> dict[str, float | None]:
    """Give every metric; those of clean-fid only where the extractor is Inception."""
    clean = dataset == "cifar10"
    values = dict.fromkeys(FID_METRICS, 0.5) | {"fid": fid, "clean_fid": 3.0 if clean else None}
    values |= {"legacy_fid": 4.0 if clean else None}
    return values | {f"{key}_se": None if value is None else 0.5 for key, value in values.items()}


def fid_results(fids: list[float], dataset: str = "digits") -> tuple[dict[str, Any], dict[str, Any]]:
    names = [f"{dataset}-s{seed}" for seed in range(len(fids))]
    samples = {name: {"sampler": "ancestral", "nfe": 100.0, "num_samples": 1000} for name in names}
    values = {
        name: {"extractor": EXTRACTORS[dataset]} | metrics(dataset, fid) for name, fid in zip(names, fids, strict=True)
    }
    return samples, values


REFERENCE = {
    "digits": {
        "extractor": "digits-cnn",
        "floors": {
            "test": {"num_samples": 360} | metrics("digits", 2.0),
            "train-halves": {"num_samples": 628} | metrics("digits", 1.0),
        },
    }
}


def test_columns_are_as_documented() -> None:
    samples, fids = fid_results([10.0])
    table = fid_table("s", runs(seeds=1), samples, fids, REFERENCE, PUBLISHED)
    assert list(table) == FID_COLUMNS
    nlls = {"digits-s0": dict.fromkeys(NUMBERS, 1.0) | {f"{key}_se": 0.1 for key in NUMBERS}}
    assert list(nll_table("s", runs(seeds=1), nlls, PUBLISHED)) == NLL_COLUMNS


def test_one_seed_has_the_error_over_images_and_several_over_seeds() -> None:
    samples, fids = fid_results([10.0])
    one = fid_table("s", runs(seeds=1), samples, fids, {}, PUBLISHED).iloc[0]
    assert (one["seeds"], one["fid"], one["fid_se"]) == (1, 10.0, 0.5)
    samples, fids = fid_results([10.0, 14.0])
    two = fid_table("s", runs(), samples, fids, {}, PUBLISHED).iloc[0]
    assert (two["seeds"], two["fid"]) == (2, 12.0)
    assert two["fid_se"] == pytest.approx(np.std([10, 14], ddof=1) / np.sqrt(2))


def test_floors_are_rows_of_their_own() -> None:
    samples, fids = fid_results([10.0])
    table = fid_table("s", runs(seeds=1), samples, fids, REFERENCE, PUBLISHED)
    floors = table[table["model"].str.startswith("real")]
    assert floors["model"].tolist() == ["real (test split)", "real (two halves of train)"]
    assert floors["fid"].tolist() == [2.0, 1.0]
    assert floors["sampler"].isna().all()


def test_published_number_only_beside_its_own_dataset() -> None:
    samples, fids = fid_results([10.0])
    digits = fid_table("s", runs(seeds=1), samples, fids, {}, PUBLISHED).iloc[0]
    assert pd.isna(digits["published_fid"])
    assert pd.isna(digits["published_source"])
    samples, fids = fid_results([10.0], "cifar10")
    cifar = fid_table("s", runs("cifar10", 1), samples, fids, {}, PUBLISHED).iloc[0]
    assert (cifar["published_fid"], cifar["published_is"]) == (2.55, 9.58)
    assert cifar["published_source"] == "arXiv:2011.13456, score_sde_pytorch README checkpoint table"
    samples["cifar10-s0"]["sampler"] = "ode"
    ode = fid_table("s", runs("cifar10", 1), samples, fids, {}, PUBLISHED).iloc[0]
    assert ode["published_fid"] == 3.93
    assert pd.isna(ode["published_is"])


@pytest.mark.parametrize("extractor", ["inception-v3-random", "digits-cnn"])
def test_published_number_only_beside_its_own_extractor(extractor: str) -> None:
    samples, fids = fid_results([10.0], "cifar10")
    fids["cifar10-s0"]["extractor"] = extractor
    row = fid_table("s", runs("cifar10", 1), samples, fids, {}, PUBLISHED).iloc[0]
    assert row["extractor"] == extractor
    assert row[["published_fid", "published_is", "published_source"]].isna().all()


def test_each_source_is_named_once() -> None:
    samples, fids = fid_results([10.0], "cifar10")
    other = PUBLISHED.copy()
    other.loc[other["metric"] == "is", "source"] = "another paper"
    row = fid_table("s", runs("cifar10", 1), samples, fids, {}, other).iloc[0]
    place = "score_sde_pytorch README checkpoint table"
    assert row["published_source"] == f"arXiv:2011.13456, {place}; another paper, {place}"


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_metric_that_no_seed_has_is_an_empty_cell_and_not_presented(seeds: int) -> None:
    samples, fids = fid_results([10.0] * seeds)
    table = fid_table("s", runs(seeds=seeds), samples, fids, REFERENCE, PUBLISHED)
    assert table[["clean_fid", "clean_fid_se", "legacy_fid", "legacy_fid_se"]].isna().all(axis=None)
    header = present(table).splitlines()[0].split()
    assert header[-5:] == ["fid", "kid", "is", "precision", "recall"]
    samples, fids = fid_results([10.0] * seeds, "cifar10")
    table = fid_table("s", runs("cifar10", seeds), samples, fids, {}, PUBLISHED)
    assert (table["clean_fid"].iloc[0], table["legacy_fid"].iloc[0]) == (3.0, 4.0)


def test_record_that_names_no_sde_is_not_claimed_for_one() -> None:
    samples, fids = fid_results([10.0], "cifar10")
    row = fid_table("s", runs("cifar10", 1, model="indm"), samples, fids, {}, PUBLISHED).iloc[0]
    assert pd.isna(row["published_fid"])


def test_seeds_of_one_cell_must_share_a_protocol() -> None:
    samples, fids = fid_results([10.0, 11.0])
    samples["digits-s1"]["num_samples"] = 500
    with pytest.raises(ArtifactError, match="different protocols"):
        fid_table("s", runs(), samples, fids, {}, PUBLISHED)


def test_foreign_published_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    with pytest.raises(ArtifactError, match=r"published\.csv: cannot be read"):
        read_published(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ArtifactError, match="found the columns"):
        read_published(path)


def test_presentation_has_errors_beside_values_and_dashes() -> None:
    table = pd.DataFrame(
        {"model": ["a", "b"], "fid": [1.23456, 2.0], "fid_se": [0.1, None], "kid": [None, 3.0], "x": [None] * 2}
    )
    lines = present(table).splitlines()
    assert lines[0].split() == ["model", "fid", "kid"]
    assert lines[1].split() == ["a", "1.235", "±", "0.100", "-"]
    assert lines[2].split() == ["b", "2", "3"]
