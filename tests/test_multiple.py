"""The multiple of training: Fieller's interval, and its coverage where the truth is planted."""

import math

import numpy as np
import pytest
from scipy import stats

from indm.report.intervals import Numbers
from indm.report.multiple import multiple_of_training

RATIO = 1.4


def drawn(
    seed: int, lead: float, gain: float, spread: float, n: int, correlation: float = 0.5
) -> tuple[Numbers, Numbers]:
    covariance = spread**2 * np.array([[1, correlation], [correlation, 1]])
    found = np.random.default_rng(seed).multivariate_normal([lead, gain], covariance, n)
    return found[:, 0], found[:, 1]


def test_its_ends_are_what_a_t_test_just_does_not_reject() -> None:
    leads, gains = drawn(0, 0.05, 0.08, 0.01, 6)
    found = multiple_of_training(leads, gains, RATIO)
    assert found.bounded
    assert found.low < found.value < found.high
    for end in (found.low, found.high):
        tested = stats.ttest_1samp(leads - math.log(end) / math.log(RATIO) * gains, 0.0)
        assert tested.pvalue == pytest.approx(0.05, rel=1e-6)


def test_exact_leads_have_the_multiple_of_the_logarithm() -> None:
    gains = np.full(4, 0.08)
    assert multiple_of_training(gains, gains, RATIO).value == pytest.approx(RATIO)
    half = multiple_of_training(gains / 2, gains, RATIO)
    assert (half.low, half.value, half.high) == pytest.approx((RATIO**0.5,) * 3)
    assert multiple_of_training(gains * 0, gains, RATIO).value == 1
    assert multiple_of_training(-gains, gains, RATIO).value == pytest.approx(1 / RATIO)


def test_a_gain_that_may_be_zero_leaves_it_unbounded() -> None:
    leads, gains = drawn(1, 0.05, 0.005, 0.02, 4)
    found = multiple_of_training(leads, gains, RATIO)
    assert (found.low, found.high, found.bounded, found.extrapolated) == (0, math.inf, False, False)
    assert math.isnan(multiple_of_training(leads, -np.abs(gains), RATIO).value)


@pytest.mark.parametrize(("lead", "outside"), [(0.04, False), (0.12, True), (-0.04, True)])
def test_what_lies_outside_the_measured_lengths_is_extrapolated(lead: float, outside: bool) -> None:
    assert multiple_of_training(*drawn(2, lead, 0.08, 0.003, 6), RATIO).extrapolated is outside


@pytest.mark.parametrize("count", [(2, 2), (4, 3)])
def test_too_few_seeds_or_unequal_ones_are_refused(count: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"found {count[0]} leads and {count[1]} gains"):
        multiple_of_training(np.ones(count[0]), np.ones(count[1]), RATIO)


def coverage(multiple: float, n: int, draws: int = 1000) -> float:
    """Return how often the interval contains a planted multiple, if bounds fall as steps^-0.3 and not as the logarithm.

    The spread of seeds is 0.012 bits/dim, that of the published suites, and leads and gains share a baseline.
    """
    excess, power = 0.8, 0.3
    gain, lead = (excess * (1 - factor**-power) for factor in (RATIO, multiple))
    found = [multiple_of_training(*drawn(seed, lead, gain, 0.012, n), RATIO) for seed in range(draws)]
    return float(np.mean([one.low <= multiple <= one.high for one in found]))


@pytest.mark.parametrize("n", [4, 6, 13])
@pytest.mark.parametrize("multiple", [1.15, RATIO])
def test_it_contains_a_planted_multiple_up_to_the_longer_length(n: int, multiple: float) -> None:
    """Chance moves the coverage of 1,000 draws by 0.007."""
    assert 0.92 < coverage(multiple, n) < 0.975


def test_beyond_the_longer_length_it_is_too_low_and_says_that_it_is_extrapolated() -> None:
    """There the bound falls more slowly than the logarithm says, so that the multiple is larger than its interval says."""
    excess, power = 0.8, 0.3
    gain, lead = (excess * (1 - factor**-power) for factor in (RATIO, 2.0))
    found = multiple_of_training(np.full(4, lead), np.full(4, gain), RATIO)
    assert 1.8 < found.value < 2.0
    assert found.extrapolated
    assert coverage(2.0, 13) < 0.9
