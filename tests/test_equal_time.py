"""DDPM++ at INDM's time on the page: ratios of medians, and a straight line between two trainings that were done."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from indm.report.page.equal_time import equal_time, interpolate

PLACE = {"dataset": "digits", "sde": "vp", "objective": "nll"}
# The steps of a training, the FLOPs and the time of a step, and the NELBO.
MODELS = {
    ("ddpmpp", ""): (1000, 10.0, 20.0, 3.0),
    ("ddpmpp", "same-compute"): (3000, 10.0, 21.0, 2.0),
    ("indm", ""): (1000, 30.0, 50.0, 2.6),
}


def write(folder: Path, **changes: Any) -> dict[str, dict[str, Any]]:
    """Write the tables that the sentences are from, with some columns changed; return the runs."""
    cells = [{"suite": "a"} | PLACE | {"model": model, "variant": variant} for model, variant in MODELS]
    steps, flops, times, bounds = zip(*MODELS.values(), strict=True)
    compute = pd.DataFrame(cells).assign(train_flops_per_step=flops, ms_per_step=times)
    nll = pd.DataFrame(cells).assign(decoder="learned", nelbo=bounds)
    for name, table in {"compute": compute, "nll": nll}.items():
        own = {key: value for key, value in changes.items() if key in table}
        table.assign(**own).to_csv(folder / f"{name}.csv", index=False)
    found = zip(cells, changes.get("steps", steps), strict=True)
    return {f"run-{number}": cell | {"seed": 0, "steps": length} for number, (cell, length) in enumerate(found)}


def test_the_number_at_equal_time_is_between_equal_steps_and_equal_compute(tmp_path: Path) -> None:
    """An INDM step takes 2.5 steps of DDPM++: 2500 steps are three quarters of the way from 1000 to 3000."""
    (line,) = equal_time(write(tmp_path), tmp_path)
    assert "the FLOPs of 3.00 steps of DDPM++, and the time of 2.50." in line
    assert "at equal steps 3, at equal time 2.25 (interpolated), at equal compute 2; of INDM 2.6." in line


def test_an_indm_trained_for_other_steps_counts_with_its_own_time(tmp_path: Path) -> None:
    (line,) = equal_time(write(tmp_path, steps=[1000, 3000, 600]), tmp_path)
    assert "at equal time 2.75 (interpolated)" in line


@pytest.mark.parametrize("times", [[20.0, 20.0, 80.0], [20.0, 20.0, 10.0]])
def test_nothing_is_extrapolated(times: list[float], tmp_path: Path) -> None:
    (line,) = equal_time(write(tmp_path, ms_per_step=times), tmp_path)
    assert "interpolated" not in line
    assert f"the time of {times[2] / times[0]:.2f}" in line


def test_without_a_training_at_equal_compute_there_are_ratios_alone(tmp_path: Path) -> None:
    runs = write(tmp_path, nelbo=[3.0, None, 2.6])
    (line,) = equal_time(runs, tmp_path)
    assert line.endswith("and the time of 2.50.")


@pytest.mark.parametrize("times", [[None] * 3, [20.0, 20.0, None], [None, 20.0, 50.0]])
def test_without_the_times_of_both_models_nothing_is_said(times: list[float | None], tmp_path: Path) -> None:
    assert equal_time(write(tmp_path, ms_per_step=times), tmp_path) == []


def test_a_suite_without_tables_has_no_sentence(tmp_path: Path) -> None:
    assert equal_time({}, tmp_path) == []


def test_the_line_ends_at_its_points() -> None:
    assert interpolate(1.0, (1.0, 5.0), (3.0, 9.0)) == 5.0
    assert interpolate(3.0, (1.0, 5.0), (3.0, 9.0)) == 9.0
    assert interpolate(1.0, (1.0, 5.0), (1.0, 9.0)) is None
