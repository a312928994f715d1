"""FID and KID against float64 closed forms; extractors; standard errors."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Generator, Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

from indm.data import to_uint8
from indm.metrics import (
    EXTRACTORS,
    SmallClassifier,
    accuracy,
    build_extractor,
    compare,
    features,
    fidelity,
    halves,
    train_classifier,
)
from indm.metrics.fidelity import bootstrap_fid, fid, fid_symmetric, kid, statistics, symmetric_root

SETTINGS = {"kid_subsets": 20, "kid_subset_size": 100, "bootstrap": 20, "seed": 0}


def gaussian_features(count: int, dims: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    generator = Generator().manual_seed(seed)
    return shift + scale * torch.randn(count, dims, generator=generator, dtype=torch.float64)


def reference_fid(first: Tensor, second: Tensor) -> float:
    """Fréchet distance by the symmetric square root, in float64."""
    (m1, c1), (m2, c2) = ((x.numpy().mean(0), np.cov(x.numpy(), rowvar=False)) for x in (first, second))
    root = scipy.linalg.sqrtm(c1)
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ c2 @ root), 0, None)).sum()
    return float(((m1 - m2) ** 2).sum() + np.trace(c1) + np.trace(c2) - 2 * cross)


def reference_kid(first: Tensor, second: Tensor) -> float:
    """Unbiased squared MMD with the cubic kernel, by explicit sums."""
    x, y = first.numpy(), second.numpy()
    kernel = [(a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in kernel[:2]]
    return float(sum(within) - 2 * kernel[2].mean())


@pytest.mark.parametrize("dims", [2, 64])
def test_fid_is_the_closed_form(dims: int) -> None:
    mixing = torch.randn(dims, dims, dtype=torch.float64)
    first, second = gaussian_features(500, dims, 0) @ mixing, gaussian_features(400, dims, 1, shift=0.5)
    assert fid(first, second) == pytest.approx(reference_fid(first, second), rel=1e-8)


def test_fid_of_known_gaussians() -> None:
    """N(0, I) against N(m, s^2 I): |m|^2 + D (1 - s)^2, within sampling error."""
    first, second = gaussian_features(200_000, 3, 0), gaussian_features(200_000, 3, 1, shift=2.0, scale=3.0)
    assert fid(first, second) == pytest.approx(3 * 4 + 3 * 4, rel=0.02)
    assert fid(first, first) == pytest.approx(0, abs=1e-8)


def test_kid_of_one_whole_subset_is_the_unbiased_estimate() -> None:
    first, second = gaussian_features(100, 8, 0), gaussian_features(100, 8, 1, shift=0.3)
    settings = {**SETTINGS, "kid_subsets": 1, "kid_subset_size": 100}
    assert compare(first, second, **settings)["kid"] == pytest.approx(reference_kid(first, second), rel=1e-9)


def test_standard_errors_have_the_right_size() -> None:
    """The bootstrap's error against the spread over fresh samples, both for FID and KID."""
    reference = gaussian_features(2000, 8, 99)
    found = [compare(gaussian_features(400, 8, seed, shift=0.4), reference, **SETTINGS) for seed in range(30)]
    for metric in ("fid", "kid"):
        spread = np.std([row[metric] for row in found], ddof=1)
        claimed = np.median([row[f"{metric}_se"] for row in found])
        assert 0.5 * spread < claimed < 2 * spread, metric


def test_compare_repeats() -> None:
    first, second = gaussian_features(200, 4, 0), gaussian_features(150, 4, 1)
    assert compare(first, second, **SETTINGS) == compare(first, second, **SETTINGS)


def test_halves_are_disjoint_and_equal() -> None:
    first, second = halves(11, 0)
    assert len(first) == len(second) == 5
    assert not set(first) & set(second)


@pytest.mark.parametrize("name", EXTRACTORS)
def test_extractor_contract(name: str) -> None:
    """float64 features, whatever the batch size, through torch-fidelity's own loop."""
    extractor = build_extractor(name, SmallClassifier(10))
    assert extractor.get_name() == name
    images = np.random.default_rng(0).integers(0, 256, (37, 3, 8, 8), dtype=np.uint8)
    whole = features(extractor, images)
    assert whole.dtype == torch.float64
    assert whole.shape == (37, 64)
    torch.testing.assert_close(features(extractor, images, batch_size=5), whole, rtol=1e-5, atol=1e-6)


def test_classifier_learns() -> None:
    """Bright against dark images: from chance to nearly all right."""
    generator = Generator().manual_seed(0)
    labels = torch.randint(0, 2, (200,), generator=generator)
    noise = torch.randint(0, 100, (200, 3, 8, 8), generator=generator, dtype=torch.uint8)
    images = noise + (labels * 100).to(torch.uint8)[:, None, None, None]
    classifier = SmallClassifier(2)
    train_classifier(classifier, images, labels, steps=60, batch_size=32, lr=2e-3, seed=("test",), progress=lambda r: r)
    assert accuracy(classifier, images, labels) > 0.95


def test_statistics_are_torch_fidelitys_in_any_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit in one block; to rounding in several, and for rows that count more than once."""
    rows = gaussian_features(300, 16, 0, shift=5.0)
    expected = fid_features_to_statistics(rows)
    whole = statistics(rows)
    monkeypatch.setattr(fidelity, "BLOCK", 64)
    parts = statistics(rows)
    index = np.random.default_rng(0).integers(300, size=300)
    drawn, counted = fid_features_to_statistics(rows[index]), statistics(rows, np.bincount(index, minlength=300))
    for key in ("mu", "sigma"):
        assert np.array_equal(whole[key], expected[key])
        np.testing.assert_allclose(parts[key], expected[key], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(counted[key], drawn[key], rtol=1e-12, atol=1e-14)


def test_statistics_of_float32_features_are_float64() -> None:
    rows = gaussian_features(5000, 8, 0, shift=1000.0).float()
    found, expected = statistics(rows), statistics(rows.double())
    assert found["sigma"].dtype == np.float64
    assert np.array_equal(found["sigma"], expected["sigma"])


@pytest.mark.parametrize("dims", [3, 64, 300])
def test_symmetric_fid_is_torch_fidelitys(dims: int) -> None:
    mixing = torch.randn(dims, dims, dtype=torch.float64)
    first, second = (statistics(gaussian_features(900, dims, seed) @ mixing) for seed in (0, 1))
    expected = fid_statistics_to_metric(first, second, verbose=False)[KEY_METRIC_FID]
    assert fid_symmetric(first, second, symmetric_root(second["sigma"])) == pytest.approx(expected, rel=1e-8)


def test_both_bootstraps_agree() -> None:
    rows, real = gaussian_features(300, 20, 0, shift=0.3), statistics(gaussian_features(400, 20, 1))
    general, symmetric = (bootstrap_fid(rows, real, 10, np.random.default_rng(0), limit) for limit in (20, 19))
    assert symmetric == pytest.approx(general, rel=1e-8)


def test_kid_is_torch_fidelitys_to_the_bit() -> None:
    first, second = gaussian_features(200, 8, 0), gaussian_features(150, 8, 1, shift=0.3)
    expected = kid_features_to_metric(first, second, kid_subsets=5, kid_subset_size=50, rng_seed=3, verbose=False)
    found = kid(first, second, subsets=5, subset_size=50, seed=3)
    assert found == (expected[KEY_METRIC_KID_MEAN], expected[KEY_METRIC_KID_STD])


def test_images_stream_from_a_memory_map(tmp_path: Path) -> None:
    """Levels are spread on the way, and never more than a batch of images is held."""
    levels = np.random.default_rng(0).integers(0, 17, (3000, 1, 16, 16), dtype=np.uint8)
    np.save(tmp_path / "images.npy", levels)
    extractor = build_extractor("digits-cnn", SmallClassifier(10))
    expected = features(extractor, to_uint8(levels, 17))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    features(extractor, mapped[:2], 17)
    tracemalloc.start()
    found = features(extractor, mapped, 17, batch_size=256)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert torch.equal(found, expected)
    assert peak < to_uint8(levels, 17).nbytes / 2


def test_statistics_hold_a_block_at_a_time() -> None:
    rows = gaussian_features(50_000, 64, 0).float()
    tracemalloc.start()
    statistics(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000 * 64 * 8 / 2
