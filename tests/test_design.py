"""What a suite's design can decide: the published table, and the number of seeds that power.py asks for."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.design import table
from indm.report.grades import lies
from indm.report.intervals import estimate
from indm.report.power import POWER, seeds_needed, with_seeds
from tests.conftest import REPOSITORY


def test_the_page_has_the_calculated_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """On failure: run the command that docs/verdict-errors.md names, and copy its table."""
    monkeypatch.chdir(REPOSITORY)
    found = table(Path("docs/results/fashion-pilot"), Path("params/fashion-full.yaml"))
    assert found in Path("docs/verdict-errors.md").read_text()


@pytest.mark.parametrize("shape", [(3,), (3, 50)])
def test_the_seeds_that_are_needed_have_the_power_and_one_less_has_not(shape: tuple[int, ...]) -> None:
    differences = 0.05 * np.random.default_rng(0).standard_normal(shape)
    if len(shape) == 2:
        differences += 0.1 * np.arange(3)[:, None]
    needed = seeds_needed([(differences, 0.15)])
    assert needed is not None
    found = estimate(differences)._replace(mean=0.15)
    powers = [lies(with_seeds(found, count), above=0.0) for count in (needed - 1, needed)]
    assert powers[0] < POWER <= powers[1]
