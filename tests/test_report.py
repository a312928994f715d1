"""Tables from result files: columns, aggregation over seeds, floors, published numbers, absent values."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from indm.errors import ArtifactError
from indm.report import fid_table, nll_table, present, read_published
from indm.report.tables import FID_COLUMNS, NLL_COLUMNS
from tests.conftest import REPOSITORY

PUBLISHED = read_published(REPOSITORY / "params" / "published.csv")
EXTRACTORS = {"digits": "digits-cnn", "cifar10": "inception-v3-compat"}
NUMBERS = ["nll", "nll_uncorrected", "nelbo", "nelbo_no_residual", "gap"]


def runs(dataset: str = "digits", seeds: int = 2, **keys: str) -> list[dict[str, Any]]:
    cell = {"dataset": dataset, "sde": "vp", "model": "ddpmpp", "variant": "", "objective": "fid"} | keys
    return [{"run": f"{dataset}-s{seed}", **cell} for seed in range(seeds)]


def fid_results(fids: list[float], dataset: str = "digits") -> tuple[dict[str, Any], dict[str, Any]]:
    names = [f"{dataset}-s{seed}" for seed in range(len(fids))]
    samples = {name: {"sampler": "ancestral", "nfe": 100.0, "num_samples": 1000} for name in names}
    values = {
        name: {"extractor": EXTRACTORS[dataset], "fid": fid, "fid_se": 0.5, "kid": 0.1, "kid_se": 0.01}
        for name, fid in zip(names, fids, strict=True)
    }
    return samples, values


REFERENCE = {
    "digits": {
        "extractor": "digits-cnn",
        "floors": {
            "test": {"num_samples": 360, "fid": 2.0, "fid_se": 0.1, "kid": 0.0, "kid_se": 0.01},
            "train-halves": {"num_samples": 628, "fid": 1.0, "fid_se": 0.1, "kid": 0.0, "kid_se": 0.01},
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
    assert cifar["published_fid"] == 2.55
    assert cifar["published_source"] == "arXiv:2011.13456, score_sde_pytorch README checkpoint table"
    samples["cifar10-s0"]["sampler"] = "ode"
    assert fid_table("s", runs("cifar10", 1), samples, fids, {}, PUBLISHED).iloc[0]["published_fid"] == 3.93


@pytest.mark.parametrize("extractor", ["inception-v3-random", "digits-cnn"])
def test_published_number_only_beside_its_own_extractor(extractor: str) -> None:
    samples, fids = fid_results([10.0], "cifar10")
    fids["cifar10-s0"]["extractor"] = extractor
    row = fid_table("s", runs("cifar10", 1), samples, fids, {}, PUBLISHED).iloc[0]
    assert row["extractor"] == extractor
    assert pd.isna(row["published_fid"])
    assert pd.isna(row["published_source"])


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
