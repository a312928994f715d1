"""The simulation behind docs/verdict-errors.md: its short cuts agree with the functions of a suite, and its rates hold."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import calibration
from benchmarks.calibration import BASELINE, FIRST_CONTROL, SUITE, TREATMENT, WRONG, Row, Truth
from indm.report.differences import Paired
from indm.report.grades import BEYOND, SHOWN, Scale, effect_of, holds, is_the_flow
from indm.report.intervals import TAIL, estimate
from tests.conftest import REPOSITORY

SUITES = 400
# Situations in which a suite's rates are kept, however many seeds it has.
KEPT = ("normal", "unequal variances", "heavy tails", "failures in INDM", "failures in DDPM++")
ROWS = 7


@pytest.mark.parametrize("floor", [None, 0.0])
@pytest.mark.parametrize("nuisance", ["normal", "failures in INDM", "failures in DDPM++"])
def test_suites_at_once_are_graded_as_each_is_by_itself(nuisance: str, floor: float | None) -> None:
    truth, row = Truth(0.5, 2, 0.5, 3), Row("gap", "fid", False, floor, 2)
    generator = np.random.default_rng(0)
    runs = calibration.draw_runs(generator, (SUITES, 1, 4, 6), calibration.NUISANCES[nuisance])
    effects = [calibration.effect(generator, runs, 0, row, arm, ROWS) for arm in (1, 2, 3)]
    found = calibration.grade_row(effects, row, truth)
    numbers = runs.seeds[:, 0] + np.array(truth)[:, None]
    scale = Scale(1.0, floor)
    for suite in range(SUITES):
        paired = []
        for other in (BASELINE, FIRST_CONTROL, FIRST_CONTROL + 1):
            failed = [~runs.sound[suite, arm] for arm in (TREATMENT, other)]
            (seeds,) = np.nonzero(~failed[0] & ~failed[1])
            arms = [numbers[suite, arm, seeds] for arm in (TREATMENT, other)]
            paired.append(
                Paired((*seeds.tolist(),), arms[0], arms[1], 1, 6, int(failed[0].sum()), int(failed[1].sum()))
            )
        assert found.holds[suite] == holds(effect_of(paired[0], scale, ROWS), scale).grade
        controls = {str(k): effect_of(one, scale, ROWS, 2) for k, one in enumerate(paired[1:])}
        assert found.flow[suite] == is_the_flow(controls, scale).grade
    assert len({*found.holds.tolist()}) > 1
    assert len({*found.flow.tolist()}) > 1


def test_the_mean_squares_of_images_are_drawn_as_tables_of_seeds_and_images_have_them() -> None:
    n, draws = 4, 500
    generator = np.random.default_rng(1)
    runs = calibration.draw_runs(generator, (draws, 3, 2, n))
    scale = np.sqrt(calibration.OVER_SEEDS**2 - calibration.INTERACTION**2 / calibration.IMAGES)
    tables = (
        scale * generator.normal(size=(n, 1))
        + calibration.OVER_IMAGES * generator.normal(size=(1, calibration.IMAGES))
        + calibration.INTERACTION * generator.normal(size=(n, calibration.IMAGES))
        for _ in range(draws)
    )
    whole = np.array([estimate(table)[:3] for table in tables]).T
    short = calibration.mean_of(generator, runs, (2, True), runs.sound[:, 0], 1, 0)
    for found, expected in zip(short[:3], whole, strict=True):
        assert found.std() == pytest.approx(expected.std(), rel=0.15)
        assert np.median(found) == pytest.approx(np.median(expected), abs=0.05)


def test_the_rows_are_those_of_the_claims() -> None:
    rows = [(row.metric, row.objective, row.of_images, row.floor) for row in calibration.primary()]
    assert rows == [
        *(("nll", "nll", True, None), ("nll", "fid", True, None)),
        *(("gap", "nll", True, 0.0), ("gap", "fid", True, 0.0), ("gap", "nll", True, 0.0)),
        *[("fid", "fid", False, None)] * 2,
    ]
    assert all(row.controls for row in calibration.primary())


def test_what_is_wrong_to_say_of_a_truth() -> None:
    """Of each grade that a row can have, whether it is wrong, in the order of WRONG."""
    row = Row("gap", "nll", True, 0.0, 2)
    said = {"holds": ["shown", "contradicted", "ruled out", "not testable"], "flow": ["beyond every control"] * 4}
    found = calibration.Graded(
        np.array(said["holds"]), np.array(said["flow"]), np.array([["matched"] * 4, ["open"] * 4])
    )

    def way(truth: Truth) -> dict[str, list[int]]:
        return {
            name: np.flatnonzero(flags).tolist()
            for name, flags in zip(WRONG, calibration.wrong(found, row, truth), strict=True)
        }

    every = [0, 1, 2, 3]
    assert way(Truth(3, 3, 3, 3)) == dict(zip(WRONG, [[0], [1], [3], [], every], strict=True))
    assert way(Truth(3, 5, 5, 5)) == dict(zip(WRONG, [[], [1, 2], [3], every, []], strict=True))
    # A gap below 0 is a gap of 0.
    assert way(Truth(-5, 1, 0, 5)) == dict(zip(WRONG, [[0], [1], [], [], every], strict=True))
    assert way(Truth(0, -5, -5, -5)) == dict(zip(WRONG, [[0], [1], [], [], every], strict=True))


@pytest.mark.parametrize("n", [3, 6])
@pytest.mark.parametrize("nuisance", KEPT)
def test_few_suites_say_anything_wrongly(nuisance: str, n: int) -> None:
    """Whatever is planted, in either direction of either question."""
    error = 3 * np.sqrt(TAIL / SUITES)
    for row in calibration.rates(SUITES, n, nuisance):
        assert row["of"] != SUITE or row["rate"] <= 100 * (TAIL + error), row


def test_a_treatment_that_fails_on_more_seeds_is_neither_shown_nor_beyond() -> None:
    generator, row, n = np.random.default_rng(0), calibration.primary()[0], 12
    runs = calibration.draw_runs(generator, (SUITES, 1, 2 + row.controls, n), calibration.NUISANCES["failures in INDM"])
    effects = [calibration.effect(generator, runs, 0, row, arm, ROWS) for arm in range(1, 2 + row.controls)]
    found = calibration.grade_row(effects, row, Truth(0, 9, 9, 9))
    fails = ~runs.sound[:, TREATMENT].all(1)
    assert not (fails & ((found.holds == SHOWN) | (found.flow == BEYOND))).any()
    assert (found.holds[~fails] == SHOWN).all()
    assert (found.flow[~fails] == BEYOND).all()


def test_the_table_of_the_page_has_the_published_rates_which_are_kept() -> None:
    published, page = pd.read_csv(calibration.OUT), (REPOSITORY / "docs/verdict-errors.md").read_text()
    assert calibration.largest(published) in page
    kept = published[(published["of"] == SUITE) & published["numbers"].isin(KEPT)]
    error = 3 * np.sqrt(TAIL * (1 - TAIL) / 20_000)
    assert (kept[[str(n) for n in calibration.SEEDS]] <= 100 * (TAIL + error)).all(axis=None)
