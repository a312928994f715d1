"""The simulation behind the error rates of docs/claims.md: its short cut gives what whole tables give, its rates hold."""

import numpy as np
import pytest

from benchmarks import calibration
from indm.report.grades import CONTRADICTED, EXPLAINED, NOT_SEPARATED, RULED_OUT, SHOWN
from indm.report.intervals import TAIL, estimate

SUITES = 400


def test_arms_are_drawn_as_tables_of_seeds_and_images_would_be() -> None:
    n, spread, draws = 4, 0.005, 1000
    drawn = calibration.draw_suites(draws, n, spread)
    generator = np.random.default_rng(1)
    scales = [np.sqrt(spread**2 - calibration.INTERACTION**2 / calibration.IMAGES), calibration.OVER_IMAGES]
    shapes = [(n, 1), (1, calibration.IMAGES)]
    whole = calibration.stack(
        [
            estimate(
                0.02
                + sum(scale * generator.normal(size=shape) for scale, shape in zip(scales, shapes, strict=True))
                + calibration.INTERACTION * generator.normal(size=(n, calibration.IMAGES))
            )
            for _ in range(draws)
        ]
    )
    for row, other in ((0, 1), (2, 5)):
        short = calibration.differences(drawn.likelihoods, row, 0, other, 0.02, n)
        assert short.mean.mean() == pytest.approx(0.02, abs=0.0005)
        for found, expected in zip(short[:3], whole[:3], strict=True):
            assert found.std() == pytest.approx(expected.std(), rel=0.1)
            assert np.median(found) == pytest.approx(np.median(expected), rel=0.1)


def test_the_family_is_that_of_the_claims() -> None:
    ids = [claim.id for claim in calibration.primary()]
    assert ids == ["smaller-gap", "nearly-mle-training", "better-nll", "coarse-discretisation"]
    assert all(claim.controls for claim in calibration.primary())


def test_what_is_wrong_to_say_of_a_truth() -> None:
    assert calibration.truth(0, 0, 0).wrong == {SHOWN, EXPLAINED, NOT_SEPARATED, CONTRADICTED}
    assert calibration.truth(2, 2, 2).wrong == {EXPLAINED, RULED_OUT, CONTRADICTED}
    assert calibration.truth(2, 0, 2).wrong == {SHOWN, RULED_OUT, CONTRADICTED}


@pytest.mark.parametrize("name", calibration.TRUTHS)
@pytest.mark.parametrize("n", calibration.SEEDS)
def test_few_suites_say_anything_wrongly(name: str, n: int) -> None:
    """Whatever is planted: neither for the paper nor against it."""
    truths = calibration.TRUTHS[name]
    found = calibration.grade_suites(calibration.draw_suites(SUITES, n, 0.005), truths)
    rates = calibration.rates(found, truths)
    error = 3 * np.sqrt(TAIL / SUITES)
    for verdict in (SHOWN, EXPLAINED, RULED_OUT, CONTRADICTED):
        assert rates[f"wrong: {verdict}"] <= TAIL + error, verdict
