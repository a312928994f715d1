"""The simulation behind the error rates of docs/claims.md: its short cuts give what the suite's functions give, its rates hold."""

from dataclasses import replace

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
            paired.append(Paired((*seeds.tolist(),), *arms, 1, 6, *(int(one.sum()) for one in failed)))
        assert found.holds[suite] == holds(effect_of(paired[0], scale, ROWS), scale).grade
        controls = {str(k): effect_of(one, scale, ROWS, 2) for k, one in enumerate(paired[1:])}
        assert found.flow[suite] == is_the_flow(controls, scale).grade
    assert len({*found.holds.tolist()}) > 1
    assert len({*found.flow.tolist()}) > 1
