"""Metrics against float64 closed forms and the libraries' own functions; extractors; standard errors."""

import copy
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cleanfid.fid import fid_from_feats
from torch import Generator, Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

from indm.data.levels import to_uint8
from indm.errors import DataError, DivergenceError
from indm.metrics import extractors
from indm.metrics import frechet as frechet_module
from indm.metrics import kid as kid_module
from indm.metrics import precision_recall as precision_recall_module
from indm.metrics.compare import compare, halves
from indm.metrics.extractors import EXTRACTORS, SmallClassifier, accuracy, build_extractor, train_classifier
from indm.metrics.features import features
from indm.metrics.frechet import (
    Reference,
    bootstrap_fid,
    fid_low_rank,
    fid_symmetric,
    frechet,
    frechet_clean,
    statistics,
    symmetric_root,
)
from indm.metrics.infinity import fid_infinity
from indm.metrics.kid import jackknife_variance, kid
from indm.metrics.logits import confidence, inception_score
from indm.metrics.precision_recall import precision_recall
from tests.archives import memory_below

SETTINGS = {"kid_subsets": 20, "kid_subset_size": 100, "is_splits": 4, "prc_neighbours": 3, "prc_images": 300}
SETTINGS |= {"bootstrap": 20, "seed": 0}


def gaussian_features(count: int, dims: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    generator = Generator().manual_seed(seed)
    return shift + scale * torch.randn(count, dims, generator=generator, dtype=torch.float64)


def measure(first: Tensor, second: Tensor, **changes: int) -> dict[str, Any]:
    """Compare features with others, the first eight of them as logits."""
    return compare(first, first[:, :8], Reference.of(second), **{**SETTINGS, **changes})


def fid(first: Tensor, second: Tensor | Reference) -> float:
    return frechet(first, second if isinstance(second, Reference) else Reference.of(second))[0]


def reference_kid(first: Tensor, second: Tensor) -> float:
    """Unbiased squared MMD with the cubic kernel, by explicit sums."""
    x, y = first.numpy(), second.numpy()
    kernel = [(a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in kernel[:2]]
    return float(sum(within) - 2 * kernel[2].mean())


def test_fid_of_known_gaussians() -> None:
    """N(0, I) against N(m, s^2 I): |m|^2 + D (1 - s)^2, within sampling error."""
    first, second = gaussian_features(200_000, 3, 0), gaussian_features(200_000, 3, 1, shift=2.0, scale=3.0)
    assert fid(first, second) == pytest.approx(3 * 4 + 3 * 4, rel=0.02)
    assert fid(first, first) == pytest.approx(0, abs=1e-8)


def test_jackknife_of_kid_is_that_of_leaving_out_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = gaussian_features(60, 8, 0, shift=0.3), gaussian_features(90, 8, 1)
    without = [reference_kid(torch.cat([first[:i], first[i + 1 :]]), second) for i in range(60)]
    for columns in (2000, 7):
        monkeypatch.setattr(kid_module, "COLUMNS", columns)
        assert jackknife_variance(first, second, 0) == pytest.approx(59**2 / 60 * np.var(without, ddof=1), rel=1e-9)


def test_jackknife_of_some_images_is_near_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = gaussian_features(2000, 8, 0, shift=0.3), gaussian_features(500, 8, 1)
    whole = jackknife_variance(first, second, 0)
    monkeypatch.setattr(kid_module, "JACKKNIFE", 500)
    some = [jackknife_variance(first, second, seed) for seed in range(20)]
    assert np.ptp(some) > 0
    assert np.mean(some) == pytest.approx(whole, rel=0.1)


@pytest.mark.parametrize(("shift", "size"), [pytest.param(0.0, 200, marks=pytest.mark.long), (0.4, 50)])
def test_error_of_kid_is_its_spread_over_fresh_images(shift: float, size: int) -> None:
    """The reference fixed, subsets of all images or of a few; 600 draws know a spread to about 5 %.

    Where the distributions are alike, the jackknife has up to twice the variance: 1.2 times the spread was found.
    """
    reference = gaussian_features(300, 8, 9999)
    draws = gaussian_features(600 * 200, 8, 1, shift=shift).split(200)
    found = np.array([kid(rows, reference, subsets=5, subset_size=size, seed=i) for i, rows in enumerate(draws)])
    ratio = (found[:, 1] ** 2).mean() ** 0.5 / found[:, 0].std(ddof=1)
    assert 0.87 < ratio < (1.15 if shift else 1.35)


def test_standard_errors_have_the_right_size() -> None:
    """Each claimed error against the spread over fresh samples; that of recall holds the generated images fixed."""
    reference = gaussian_features(2000, 8, 99)
    found = [measure(gaussian_features(400, 8, seed, shift=0.4), reference, is_splits=10) for seed in range(30)]
    for metric in ("fid", "kid", "is", "confidence", "precision"):
        spread = np.std([row[metric] for row in found], ddof=1)
        claimed = np.median([row[f"{metric}_se"] for row in found])
        assert 0.5 * spread < claimed < 2 * spread, metric


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.05, 1.0), (0.2, 1.1)])
def test_fid_of_infinitely_many_images_is_right_where_fid_is_biased(shift: float, scale: float) -> None:
    """Against the closed form; FID lies above it by a bias that falls as 1/N, and the error is the spread, or up to twice it."""
    dims, known = 16, 16 * (shift**2 + (1 - scale) ** 2)
    reference = Reference({"mu": np.zeros(dims), "sigma": np.eye(dims)}, None)
    biases = []
    for count in (400, 800):
        found = []
        for rows in gaussian_features(60 * count, dims, 3, shift, scale).split(count):
            value, error = fid(rows, reference), bootstrap_fid(rows, reference, 10, np.random.default_rng(0))
            found.append((value, *fid_infinity(rows, reference, value, error).values()))
        values, infinite, errors = np.array(found).T
        biases.append(values.mean() - known)
        left = infinite.mean() - known
        assert abs(left) < max(3 * infinite.std() / 60**0.5, 0.1 * biases[-1])
        assert (abs(infinite - known) < 2 * errors).mean() > 0.85
        assert 0.8 < errors.mean() / infinite.std(ddof=1) < 2.0
        assert shift == 0.2 or biases[-1] > 3 * errors.mean()
    assert biases[0] / biases[1] == pytest.approx(2, rel=0.3 if shift == 0.2 else 0.1)


def test_a_few_images_have_no_fid_of_infinitely_many() -> None:
    rows = gaussian_features(7, 2, 0)
    assert set(fid_infinity(rows, Reference.of(rows), 1.0, 0.1).values()) == {None}


def test_halves_are_disjoint_and_equal() -> None:
    first, second = halves(11, 0)
    assert len(first) == len(second) == 5
    assert not set(first) & set(second)


@pytest.mark.parametrize("name", EXTRACTORS)
def test_extractor_contract(name: str) -> None:
    """float64 features, whatever the batch size, through torch-fidelity's own loop."""
    extractor = build_extractor(name, SmallClassifier(10, name))
    assert extractor.get_name() == name
    images = np.random.default_rng(0).integers(0, 256, (37, 3, 8, 8), dtype=np.uint8)
    whole = features(extractor, images)
    assert [layer.dtype for layer in whole] == [torch.float64] * 2
    assert [layer.shape for layer in whole] == [(37, 64), (37, 10)]
    parts = zip(*(features(extractor, images[start : start + 5]) for start in range(0, 37, 5)), strict=True)
    torch.testing.assert_close(tuple(torch.cat(part) for part in parts), whole, rtol=1e-5, atol=1e-6)
    logits = SmallClassifier.forward(extractor.classifier, torch.from_numpy(images)).double()
    torch.testing.assert_close(logits, whole[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", EXTRACTORS)
def test_classifier_learns(name: str) -> None:
    """Bright against dark images: from chance to nearly all right; as an extractor, with features of size 1."""
    generator = Generator().manual_seed(0)
    labels = torch.randint(0, 2, (200,), generator=generator)
    noise = torch.randint(0, 100, (200, 3, 8, 8), generator=generator, dtype=torch.uint8)
    images = noise + (labels * 100).to(torch.uint8)[:, None, None, None]
    classifier = SmallClassifier(2, name)
    train_classifier(classifier, images, labels, steps=60, batch_size=32, lr=2e-3, seed=("test",), progress=lambda r: r)
    assert accuracy(classifier, images, labels) > 0.95
    (found, _) = features(build_extractor(name, classifier), images.numpy())
    assert found.square().mean().item() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("name", ["digits-cnn", "patches-cnn", "fashion-cnn"])
def test_extractors_of_published_results_stay_the_same(name: str) -> None:
    """Their layers, and the order of random numbers for weights and batches."""
    torch.manual_seed(0)
    classifier = SmallClassifier(10, name)
    images = torch.arange(64 * 3 * 8 * 8).reshape(64, 3, 8, 8).mul(37).remainder(251).to(torch.uint8)
    before = classifier(images[:1])[0, :3].tolist()
    train_classifier(
        classifier, images, torch.arange(64) % 10, steps=3, batch_size=4, lr=1e-3, seed=("test",), progress=iter
    )
    after = classifier(images[:1])[0, :3].tolist()
    assert before == pytest.approx([0.116768, 0.0799663, 0.0719212], rel=1e-4)
    assert after == pytest.approx([0.160240, 0.0797782, 0.0865998], rel=1e-2)


def test_a_classifier_looks_at_many_images_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    whole = SmallClassifier(3)
    batched = copy.deepcopy(whole)
    images, labels = torch.randint(256, (10, 3, 8, 8), dtype=torch.uint8), torch.arange(10) % 3
    whole.fit_scale(images)
    expected = accuracy(whole, images, labels)
    monkeypatch.setattr(extractors, "BATCH", 3)
    batched.fit_scale(images)
    torch.testing.assert_close(batched.scale, whole.scale)
    assert accuracy(batched, images, labels) == expected


def test_statistics_are_torch_fidelitys_in_any_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """To rounding, in one block and in several, and for rows that count more than once."""
    rows = gaussian_features(300, 16, 0, shift=5.0)
    expected = fid_features_to_statistics(rows)
    whole = statistics(rows)
    monkeypatch.setattr(frechet_module, "BLOCK", 64)
    parts = statistics(rows)
    index = np.random.default_rng(0).integers(300, size=300)
    drawn, counted = fid_features_to_statistics(rows[index]), statistics(rows, np.bincount(index, minlength=300))
    for key in ("mu", "sigma"):
        np.testing.assert_allclose(whole[key], expected[key], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(parts[key], expected[key], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(counted[key], drawn[key], rtol=1e-12, atol=1e-14)


def test_statistics_of_float32_features_are_float64() -> None:
    rows = gaussian_features(5000, 8, 0, shift=1000.0).float()
    found, expected = statistics(rows), statistics(rows.double())
    assert found["sigma"].dtype == np.float64
    assert np.array_equal(found["sigma"], expected["sigma"])


def test_both_bootstraps_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, real = gaussian_features(300, 20, 0, shift=0.3), Reference.of(gaussian_features(400, 20, 1))
    general = bootstrap_fid(rows, real, 10, np.random.default_rng(0))
    monkeypatch.setattr("indm.metrics.frechet.GENERAL", 19)
    symmetric = bootstrap_fid(rows, real, 10, np.random.default_rng(0))
    assert symmetric != general
    assert symmetric == pytest.approx(general, rel=1e-8)


def test_kid_is_torch_fidelitys_to_the_bit() -> None:
    first, second = gaussian_features(200, 8, 0), gaussian_features(150, 8, 1, shift=0.3)
    expected = kid_features_to_metric(first, second, kid_subsets=5, kid_subset_size=50, rng_seed=3, verbose=False)
    assert kid(first, second, subsets=5, subset_size=50, seed=3)[0] == expected[KEY_METRIC_KID_MEAN]


def test_images_stream_from_a_memory_map(tmp_path: Path) -> None:
    """Levels are spread on the way, and never more than a batch of images is held."""
    levels = np.random.default_rng(0).integers(0, 17, (3000, 1, 16, 16), dtype=np.uint8)
    np.save(tmp_path / "images.npy", levels)
    extractor = build_extractor("digits-cnn", SmallClassifier(10))
    (expected, _) = features(extractor, to_uint8(levels, 17))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    features(extractor, mapped[:2], 17)
    with memory_below(to_uint8(levels, 17).nbytes // 2):
        (found, _) = features(extractor, mapped, 17)
    assert torch.equal(found, expected)


def test_statistics_hold_a_block_at_a_time() -> None:
    rows = gaussian_features(50_000, 64, 0).float()
    with memory_below(50_000 * 64 * 8 // 2):
        statistics(rows)


def torch_fidelity_fid(first: Tensor, second: Tensor) -> float:
    fake, real = fid_features_to_statistics(first), fid_features_to_statistics(second)
    return fid_statistics_to_metric(fake, real, verbose=False)[KEY_METRIC_FID]


def clean_fid_fid(first: Tensor, second: Tensor) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return float(fid_from_feats(first.numpy(), second.numpy()))


@pytest.mark.parametrize(("count", "dims", "formula"), [(900, 64, "general"), (900, 300, "symmetric")])
def test_fid_is_that_of_both_libraries(count: int, dims: int, formula: str) -> None:
    mixing = torch.randn(dims, dims, generator=Generator().manual_seed(2), dtype=torch.float64)
    first, second = gaussian_features(count, dims, 0, shift=0.1) @ mixing, gaussian_features(1000, dims, 1)
    found, used = frechet(first, Reference.of(second))
    assert used == formula
    assert frechet_clean(first, Reference.of(second)) == (pytest.approx(found, rel=1e-6), "clean-fid")
    for library in (torch_fidelity_fid, clean_fid_fid):
        assert library(first, second) == pytest.approx(found, rel=1e-6)


def test_fid_of_few_images_is_that_of_torch_fidelity() -> None:
    first, second = gaussian_features(40, 300, 0, shift=0.2), gaussian_features(500, 300, 1)
    found, used = frechet(first, Reference.of(second))
    assert (used, frechet_clean(first, Reference.of(second))) == ("low rank", (found, "low rank"))
    general = fid_statistics_to_metric(statistics(first), statistics(second), verbose=False)[KEY_METRIC_FID]
    assert found == pytest.approx(general, rel=1e-4)
    counts = np.random.default_rng(0).multinomial(40, [1 / 40] * 40)
    drawn = fid_symmetric(statistics(first, counts), statistics(second), symmetric_root(statistics(second)["sigma"]))
    assert fid_low_rank(first, statistics(second), counts) == pytest.approx(drawn, rel=1e-5)


def test_inception_score_is_torch_fidelitys() -> None:
    """Up to rounding: ours takes the softmax of one split at a time."""
    logits = gaussian_features(103, 10, 0, scale=3.0)
    expected = isc_features_to_metric(logits, splits=5, shuffle=True, rng_seed=3)
    mean, error = inception_score(logits, splits=5, seed=3)
    assert mean == pytest.approx(expected[KEY_METRIC_ISC_MEAN], rel=1e-12)
    assert error == pytest.approx(expected[KEY_METRIC_ISC_STD] / 2, rel=1e-12)  # sqrt(5 / 4) / sqrt(5)


def reference_share(points: Tensor, centres: Tensor, neighbours: int) -> float:
    """Share of points within the k-th neighbour's distance of a centre, by explicit differences."""
    between = (centres[:, None] - centres[None]).norm(dim=2)
    radii = between.sort(dim=1).values[:, neighbours]
    return float(((points[:, None] - centres[None]).norm(dim=2) <= radii).any(1).double().mean())


def test_confidence_of_known_predictions() -> None:
    """Of ten classes: one sure image, one of which nothing is known."""
    found = confidence(torch.stack([100 * torch.eye(10)[3], torch.zeros(10)]))
    assert found["confidence"] == pytest.approx((1 + 0.1) / 2)
    assert found["confidence_se"] == pytest.approx((1 - 0.1) / 2)


def test_precision_and_recall_in_any_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = gaussian_features(90, 6, 0, shift=0.8), gaussian_features(120, 6, 1)
    expected = reference_share(first, second, 2), reference_share(second, first, 2)
    for size in (1000, 7):
        monkeypatch.setattr(precision_recall_module, "DISTANCES", size)
        found = precision_recall(first, second, neighbours=2, images=500, seed=0)
        assert (found["precision"], found["recall"]) == pytest.approx(expected, abs=1e-6)
    assert 0 < found["precision"] < 1
    assert found["precision_se"] == pytest.approx((found["precision"] * (1 - found["precision"]) / 90) ** 0.5)
    assert found["recall_se"] == pytest.approx((found["recall"] * (1 - found["recall"]) / 120) ** 0.5)


def test_a_collapsed_generator_has_precision_and_no_recall() -> None:
    """All images alike and typical; torch-fidelity before 0.4 gave the two under each other's names."""
    real = gaussian_features(200, 6, 1)
    collapsed = real.mean(0) + 1e-3 * gaussian_features(200, 6, 0)
    found = precision_recall(collapsed, real, neighbours=3, images=500, seed=0)
    assert found["precision"] > 0.95
    assert found["recall"] < 0.05


def test_precision_and_recall_use_so_many_images() -> None:
    first, second = gaussian_features(90, 6, 0), gaussian_features(50, 6, 1)
    found = precision_recall(first, second, neighbours=2, images=60, seed=0)
    assert (found["prc_generated"], found["prc_reference"]) == (60, 50)


def test_statistics_alone_leave_out_what_needs_features() -> None:
    first, second = gaussian_features(200, 8, 0), gaussian_features(150, 8, 1)
    reference = Reference(statistics(second), None)
    found, whole = compare(first, first, reference, **SETTINGS), measure(first, second)
    assert found.keys() == whole.keys()
    assert (found["fid"], found["fid_se"]) == (whole["fid"], whole["fid_se"])
    assert {key for key, value in found.items() if value is None} == {"kid", "kid_se", *precision_recall_module.PRC}


def test_too_few_images_are_named() -> None:
    rows = gaussian_features(50, 8, 0)
    with pytest.raises(DataError, match=r"50 compared.*100.*fid\.kid_subset_size"):
        measure(rows, gaussian_features(150, 8, 1))
    with pytest.raises(DataError, match="50 reference"):
        measure(gaussian_features(150, 8, 1), rows)


@pytest.mark.parametrize("lr", [1.0, 1e30])
def test_a_classifier_that_learns_nothing_is_one_line(lr: float) -> None:
    images, labels = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8), torch.arange(16) % 10
    with pytest.raises(DivergenceError, match=rf"classifier.*lr, {re.escape(f'{lr:g}')}"):
        train_classifier(
            SmallClassifier(10), images, labels, steps=3, batch_size=8, lr=lr, seed=("test",), progress=iter
        )
