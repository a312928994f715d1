"""The distance of mean features."""

import pytest
import torch

from indm.metrics.frechet import Reference
from indm.metrics.mean_distance import mean_distance


def test_of_a_shift_by_two_in_each_of_eight_features() -> None:
    reference = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    generated = [2 + torch.randn(400, 8, dtype=torch.float64) for _ in range(100)]
    found = [mean_distance(features, Reference.of(reference)) for features in generated]
    values = torch.tensor([row["mean_distance"] for row in found])
    assert values.mean().item() == pytest.approx(4 * 8, rel=0.02)
    assert values.std().item() == pytest.approx(found[0]["mean_distance_se"], rel=0.3)
