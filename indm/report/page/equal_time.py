r"""DDPM++ at equal time: exploratory sentences beside equal compute, from medians of times and from means that are there.

No training of DDPM++ is as long as INDM's in time, so the number at equal time is on the straight line between two trainings: at
equal steps and at equal compute, over their steps,

.. math:: f(s_T) \approx f(s_1) + \frac{s_T - s_1}{s_C - s_1} (f(s_C) - f(s_1)), \qquad s_T = s_I \, t_I / t_1,

with t the time of a step, and the indices 1 and C for DDPM++ at equal steps and at equal compute, and I for INDM. The rate of each
training decays to its own end, so that this is a guess at a third training, and no verdict rests on it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from indm.report.catalogue import CELL, PLACE
from indm.report.names import REFERENCE, names
from indm.report.page.means import OF_IMAGES, read_cells, read_number
from indm.variants import SAME_COMPUTE

STEPS, COMPUTE, OURS = (REFERENCE, ""), (REFERENCE, SAME_COMPUTE), ("indm", "")
# The metric of each objective.
METRICS = {"nll": "NELBO", "fid": "FID"}


def equal_time(runs: Mapping[str, Mapping[str, Any]], tables: Path) -> list[str]:
    """Say for each dataset, SDE and objective how many DDPM++ steps an INDM step takes, and DDPM++'s number at INDM's time.

    Empty where no model has both FLOPs and a time of a step beside DDPM++'s.
    """
    found = {stem: read_cells(tables / f"{stem}.csv") for stem in ("compute", "nll", "fid")}
    steps = {tuple(str(run.get(key, "")) for key in CELL): int(run["steps"]) for run in runs.values()}
    return [line for place in _places(found["compute"]) if (line := _line(place, found, steps))]


def interpolate(at: float, first: tuple[float, float], second: tuple[float, float]) -> float | None:
    """Return the value at ``at`` on the line through two points; ``None`` outside of them, and if they are one."""
    (start, low), (end, high) = first, second
    return low + (at - start) / (end - start) * (high - low) if start <= at <= end and start < end else None


def _places(compute: pd.DataFrame) -> Iterator[dict[str, str]]:
    for place in compute[PLACE].drop_duplicates().itertuples(index=False, name=None):
        yield dict(zip(PLACE, place, strict=True))


def _line(place: dict[str, str], found: Mapping[str, pd.DataFrame], steps: Mapping[tuple[str, ...], int]) -> str:
    here = {stem: table[(table[PLACE] == list(place.values())).all(axis=1)] for stem, table in found.items()}
    cells = {stem: table.set_index(["model", "variant"], drop=False) for stem, table in here.items()}
    flops, time = (_ratio(cells["compute"], column) for column in ("train_flops_per_step", "ms_per_step"))
    if flops is None or time is None:
        return ""
    words = f"{names(*place.values())}: a step of INDM takes the FLOPs of {flops:.2f} steps of DDPM++, and the time of {time:.2f}"
    label = METRICS[place["objective"]]
    table, metric = OF_IMAGES[label]
    values = {arm: read_number(cells[table], arm, metric)["value"] for arm in (STEPS, COMPUTE, OURS)}
    points = {
        arm: (steps[cell], float(value))
        for arm, value in values.items()
        if not pd.isna(value) and (cell := _cell(place, arm)) in steps
    }
    if len(points) < len(values):
        return f"{words}."
    between = interpolate(time * points[OURS][0], points[STEPS], points[COMPUTE])
    if between is None:
        return f"{words}, so that equal time lies outside of the two trainings of DDPM++, and there is no number."
    equal_steps, equal_compute, ours = (f"{points[arm][1]:.4g}" for arm in (STEPS, COMPUTE, OURS))
    return (
        f"{words}. {label} of DDPM++ at equal steps {equal_steps}, at equal time {between:.4g} (interpolated), "
        f"at equal compute {equal_compute}; of INDM {ours}."
    )


def _cell(place: Mapping[str, str], arm: tuple[str, str]) -> tuple[str, ...]:
    known = {**place, "model": arm[0], "variant": arm[1]}
    return tuple(known[key] for key in CELL)


def _ratio(cells: pd.DataFrame, column: str) -> float | None:
    """Divide a number of INDM by DDPM++'s."""
    ours, theirs = (read_number(cells, arm, column)["value"] for arm in (OURS, STEPS))
    return None if pd.isna(ours) or pd.isna(theirs) or not theirs else ours / theirs
