"""FID and KID against float64 closed forms; extractors; standard errors."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Generator, Tensor

from indm.metrics import (
    EXTRACTORS,
    SmallClassifier,
    accuracy,
    build_extractor,
    compare,
    features,
    halves,
    train_classifier,
)
from indm.metrics.fidelity import fid

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
