"""The simulation of searched rates in docs/verdict-errors.md: its choices, and the coverage that it states."""

import numpy as np
import pytest

from benchmarks.rates import LEVEL, Setting, coverage, fitted, lowest


def test_a_polynomial_of_the_right_degree_finds_the_lowest_point_between_trials() -> None:
    tried = np.tile(np.linspace(-1, 1, 6), (3, 1))
    best = np.array([[-0.35], [0.0], [0.35]])
    losses = (tried - best) ** 2
    for degree in (2, 3):
        np.testing.assert_allclose(fitted(tried, losses, degree), best[:, 0], atol=0.01)
    assert lowest(tried, losses)[2] == pytest.approx(0.2)


def test_without_a_search_by_chance_the_interval_holds_its_level() -> None:
    """If a pilot's noise vanishes against the curvature, the fitted rate is the best one."""
    setting = Setting(curvature=0.04, asymmetry=1.0, pilots=10_000)
    covered, _, loss = coverage(setting, "parabola through a grid")
    assert covered == pytest.approx(LEVEL, abs=0.01)
    assert loss == pytest.approx(0, abs=2e-4)


def test_the_best_of_random_trials_misses_more_often_than_a_cubic_through_a_grid() -> None:
    setting = Setting()
    random, cubic = (coverage(setting, way)[0] for way in ("best of random trials", "cubic through a grid"))
    assert random < 0.88
    assert cubic > 0.93
