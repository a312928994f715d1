"""Images that come in clusters: their errors and intervals in tables and claims."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.calibration import OVER_SEEDS
from benchmarks.clusters import coverage
from indm.bench.pipeline.stages import DESCRIPTION, STAGES
from indm.bench.stages import table
from indm.bench.suite.load import load_suite
from indm.errors import ArtifactError, StoppedError
from indm.report.intervals import CLUSTERED, CROSSED, OVER_IMAGES, by_cluster, clustered_error, interval
from indm.report.numbers import Results, collect
from indm.report.tables import nll_table
from indm.store.files import write_json, write_table
from indm.store.layout import Layout
from tests.conftest import REPOSITORY
from tests.test_claims import NO_IMAGES, at_steps, graded, of_images

RUN = {"dataset": "digits", "sde": "vp", "model": "ddpmpp", "variant": "", "objective": "nll", "seed": 0}


def numbers(*shape: int) -> Any:
    return np.random.default_rng(0).normal(2.0, 0.3, shape)


# How images are combined.


def test_clusters_of_one_image_change_no_bit() -> None:
    found = numbers(4, 30)
    alone = np.random.default_rng(1).permutation(30)
    assert np.array_equal(by_cluster(found, alone), found)
    assert interval(by_cluster(found, alone)) == interval(found)
    assert clustered_error(found[0], alone) == found[0].std(ddof=1) / math.sqrt(30)


def test_a_cluster_has_the_mean_of_its_images_if_all_are_equally_large() -> None:
    found, clusters = numbers(4, 12), np.array([7, 5, 9] * 4)
    expected = [found[:, clusters == cluster].mean(1) for cluster in (7, 5, 9)]
    np.testing.assert_allclose(by_cluster(found, clusters), np.stack(expected, 1))


def test_unequal_clusters_keep_the_mean_over_images_and_give_its_error() -> None:
    r"""The error of a ratio: the spread of :math:`\sum_{i \in c} (d_i - m)`; in expectation it is the mean's true error."""
    clusters = np.repeat(np.arange(20), [1, 3, 5, 7] * 5)
    found = numbers(4, len(clusters))
    np.testing.assert_allclose(by_cluster(found, clusters).mean(1), found.mean(1))
    totals = [(found[0] - found[0].mean())[clusters == cluster].sum() for cluster in range(20)]
    expected = math.sqrt(20 / 19 * np.square(totals).sum()) / len(clusters)
    assert clustered_error(found[0], clusters) == pytest.approx(expected)
    generator = np.random.default_rng(2)
    drawn = generator.normal(5, 1, (2000, 20))[:, clusters] + generator.normal(0, 1, (2000, len(clusters)))
    errors = np.array([clustered_error(one, clusters) for one in drawn])
    assert np.sqrt((errors**2).mean()) == pytest.approx(drawn.mean(1).std(), rel=0.06)


def test_intervals_over_clusters_cover_and_intervals_over_their_images_do_not() -> None:
    """As the published simulation with more draws; its error is a hundredth here."""
    alone = coverage(0.0, simulations=400)
    assert alone[0] == pytest.approx(alone[1], abs=0.015)
    for over_seeds in (OVER_SEEDS, 0.0):
        over_images, over_clusters, _ = coverage(0.3, simulations=400, over_seeds=over_seeds)
        assert over_images < 0.91
        assert 0.93 <= over_clusters <= 0.99


# What claims say.


def clustered(images: pd.DataFrame, clusters: Any) -> pd.DataFrame:
    return images.assign(cluster=np.asarray(clusters)[images["image"]])


def test_a_claim_counts_clusters_and_not_their_images() -> None:
    """A gain for three of five people only, on all of their images, and by all seeds."""
    people = np.tile(np.arange(5), 20)
    base = numbers(4, 100)
    values, images = of_images({"indm": base - 0.05 * (people < 3), "ddpmpp": base})
    by_images, row = at_steps(values, images), at_steps(values, clustered(images, people))
    assert (by_images["verdict"], by_images["test"], by_images["images"]) == ("better", CROSSED, 100)
    assert "clusters" not in by_images
    assert (row["verdict"], row["test"], row["images"], row["clusters"]) == ("undecided", CLUSTERED[CROSSED], 100, 5)
    assert row["effect"] == pytest.approx(by_images["effect"])
    gain = np.array([0.05] * 3 + [0] * 2)
    expected = interval(np.tile(gain, (4, 1)) + numbers(4, 5) * 1e-9)
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high), abs=1e-5)


def test_a_single_training_has_an_interval_over_clusters() -> None:
    people = np.tile(np.arange(5), 20)
    base = numbers(1, 100)
    values, images = of_images({"indm": base - 0.05 * (people < 3), "ddpmpp": base})
    row = at_steps(values, clustered(images, people))
    assert (row["n"], row["images"], row["clusters"], row["test"]) == (1, 100, 5, CLUSTERED[OVER_IMAGES])


def test_claims_with_clusters_of_one_image_are_the_same_to_the_bit() -> None:
    base = numbers(4, 30)
    values, images = of_images({"indm": base - 0.02 * numbers(4, 30), "ddpmpp": base})
    plain, alone = graded(values, images), graded(values, clustered(images, np.arange(30)))
    for row, other in zip(plain, alone, strict=True):
        assert all((pd.isna(row[key]) and pd.isna(other[key])) or row[key] == other[key] for key in set(row) - {"test"})


def test_claims_without_images_have_no_clusters() -> None:
    values, _ = of_images({"indm": numbers(4, 30), "ddpmpp": numbers(4, 30)})
    assert "clusters" not in at_steps(values, NO_IMAGES.assign(cluster=[]))


# What tables say.


def results(root: Path, clusters: dict[str, list[int]] | None) -> Results:
    """Read the likelihoods of 12 images of 3 people."""
    layout, found = Layout(root, "s"), numbers(12)
    rows = pd.DataFrame(
        {"image": range(12), "nll": found, "nelbo": found + 0.1, "gap": 0.1, "nelbo_no_reconstruction": found}
    )
    said: dict[str, Any] = {"run": "a", "images": 12, "alpha_eps": 1.0}
    for name in map(str, rows.columns[1:]):
        column = rows[name].to_numpy(float)
        said |= {name: float(column.mean()), f"{name}_se": float(column.std(ddof=1) / math.sqrt(12))}
    layout.run("a").mkdir(parents=True)
    write_table(layout.run("a") / "nll.csv", rows)
    write_json(layout.run("a") / "nll.json", said)
    write_json(layout.run("a") / "train.json", {"run": "a", "steps": 4})
    write_json(
        layout.run("a") / "samples.json", {"run": "a", "sampler": "ancestral", "steps": 4, "nfe": 4, "num_samples": 4}
    )
    for dataset, of_dataset in (clusters or {}).items():
        write_json(layout.data(dataset) / "dataset.json", {"test_clusters": of_dataset})
    return read_again(root, list(clusters or {}))


def read_again(root: Path, clustered: list[str]) -> Results:
    suite = {"suite": "s", "train": {"sde": {"vp": {"beta_min": 0.1, "beta_max": 20.0}, "eps": 1e-5}}}
    jobs = {stage: ["a"] for stage in ("train", "sample", "nll")}
    return collect(root / "s", suite | {"runs": {"a": RUN | {"train": {}}}}, jobs, clustered)


def test_errors_over_images_are_over_clusters(tmp_path: Path) -> None:
    people = [3, 8, 5] * 4
    plain, found = results(tmp_path / "plain", None), results(tmp_path / "people", {"digits": people})
    published = pd.DataFrame(
        columns=["dataset", "sde", "model", "variant", "objective", "metric", "sampler", "extractor"]
    )
    rows = [nll_table(one, published, {}).iloc[0] for one in (plain, found)]
    of_images_ = numbers(12)
    for name in ("nll", "nelbo", "nll_fixed", "nelbo_fixed"):
        assert rows[0][f"{name}_image_se"] == pytest.approx(of_images_.std(ddof=1) / math.sqrt(12), rel=1e-4)
        expected = by_cluster(of_images_, np.array(people)).std(ddof=1) / math.sqrt(3)
        assert rows[1][f"{name}_image_se"] == pytest.approx(expected, rel=1e-4)
        assert rows[0][name] == rows[1][name]
    assert "cluster" not in plain.images
    assert found.images["cluster"].tolist() == people


def test_an_image_of_its_own_cluster_changes_no_error(tmp_path: Path) -> None:
    plain, found = results(tmp_path / "plain", None), results(tmp_path / "alone", {"digits": list(range(12))})
    pd.testing.assert_frame_equal(found.rows["nll"], plain.rows["nll"], rtol=1e-5)


def test_tables_read_the_clusters_of_datasets_that_have_them_and_of_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = load_suite(REPOSITORY / "params/smoke.yaml")
    assert DESCRIPTION not in STAGES["table"].reads(plain)
    celeba = plain.model_copy(update={"datasets": {"celeba64-6000": next(iter(plain.datasets.values()))}})
    assert DESCRIPTION in STAGES["table"].reads(celeba)

    handed: list[Any] = []

    def collect_no_more(*arguments: Any) -> None:
        handed.append(arguments[-1])
        raise StoppedError

    monkeypatch.setattr(table, "collect", collect_no_more)
    for suite in (plain, celeba):
        with pytest.raises(StoppedError):
            table.run(suite, Layout(tmp_path, "smoke"))
    assert handed == [[], ["celeba64-6000"]]


def test_a_description_without_clusters_is_refused(tmp_path: Path) -> None:
    results(tmp_path, {"digits": [3, 8, 5] * 4})
    write_json(tmp_path / "s/data/digits/dataset.json", {"dataset": "digits"})
    with pytest.raises(
        ArtifactError, match=r"dataset.json: found no test_clusters, expected the cluster of each test image"
    ):
        read_again(tmp_path, ["digits"])
