"""The multiples of training of a suite, from its tables: how much longer DDPM++ would have to train for each model's bound.

A multiple stands beside the cost of a step, so that one row answers for equal steps and for equal compute: a model pays if its
multiple exceeds its cost. Multiples are exploratory; see :mod:`indm.report.multiple`.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from indm.report.catalogue import PLACE
from indm.report.multiple import FEWEST, Multiple, multiple_of_training
from indm.report.names import REFERENCE
from indm.report.page.means import read_cells
from indm.report.rows import records
from indm.variants import SAME_COMPUTE

Arm = tuple[str, str]
NO_MAP: Arm = (REFERENCE, "")
# The trainings of DDPM++ whose gain is the yardstick, the first of which is taken.
LONGER: tuple[Arm, ...] = ((REFERENCE, "twice-the-steps"), (REFERENCE, SAME_COMPUTE))
# Only this objective trains for the bound.
OBJECTIVE = "nll"


class Trained(NamedTuple):
    """A model of a suite at one place, with its multiple of training and the cost of a step.

    Arguments:
        place: dataset, SDE and objective.
        arm: the model and its variant.
        steps: of its training, and of DDPM++'s.
        multiple: of training.
        flops: of a step, in steps of DDPM++; NaN if unknown.
        time: of a step, in steps of DDPM++, from medians of whole trainings; NaN if unknown.
    """

    place: tuple[str, ...]
    arm: Arm
    steps: int
    multiple: Multiple
    flops: float
    time: float


def read_multiples(tables: Path) -> list[Trained]:
    """Compute the multiple of every model that trained for as many steps as DDPM++, in the order of the tables.

    A place without a longer training of DDPM++, or with fewer than three seeds, has none, nor has one whose tables are missing.

    Arguments:
        tables: the folder of a suite's tables.
    """
    values, chosen, costs = (read_cells(tables / f"{name}.csv") for name in ("values", "nll", "compute"))
    chosen = chosen[chosen["objective"] == OBJECTIVE]
    places = chosen[PLACE].drop_duplicates().itertuples(index=False, name=None)
    return [one for place in places for one in _at(place, *(_of(place, it) for it in (values, chosen, costs)))]


def _of(place: tuple[str, ...], table: pd.DataFrame) -> pd.DataFrame:
    return table[(table[PLACE] == list(place)).all(axis=1)]


def _at(place: tuple[str, ...], values: pd.DataFrame, chosen: pd.DataFrame, costs: pd.DataFrame) -> Iterator[Trained]:
    """Yield the models of one place."""
    decoders = {(str(it["model"]), str(it["variant"])): str(it["decoder"]) for it in records(chosen)}
    bounds = {arm: _bounds(values, arm, decoder) for arm, decoder in decoders.items()}
    steps = {arm: _steps(values, arm) for arm in bounds}
    longer = next((arm for arm in LONGER if arm in bounds), None)
    if longer is None or NO_MAP not in bounds or not steps[longer] > steps[NO_MAP]:
        return
    plain, ratio = bounds[NO_MAP], steps[longer] / steps[NO_MAP]
    costs = costs.set_index(["model", "variant"])
    for arm, bound in bounds.items():
        if arm == NO_MAP or steps[arm] != steps[NO_MAP]:
            continue
        paired = pd.DataFrame({"lead": plain - bound, "gain": plain - bounds[longer]}).dropna()
        if len(paired) >= FEWEST:
            lead, gain = paired.to_numpy(dtype=np.float64).T
            relative = (_relative(costs, arm, key) for key in ("train_flops_per_step", "ms_per_step"))
            yield Trained(place, arm, steps[arm], multiple_of_training(lead, gain, ratio), *relative)


def _bounds(values: pd.DataFrame, arm: Arm, decoder: str) -> "pd.Series[float]":
    """Return the NELBO of each seed in bits/dim, with the decoder of the claims."""
    metric = "nelbo_fixed" if decoder == "fixed" else "nelbo"
    return _metric(values, arm, "nll", metric)


def _steps(values: pd.DataFrame, arm: Arm) -> int:
    """Return the steps of a model's training, which are those of all its seeds."""
    found = _metric(values, arm, "train", "steps")
    return int(found.iloc[0]) if len(found) else 0


def _metric(values: pd.DataFrame, arm: Arm, stage: str, metric: str) -> "pd.Series[float]":
    wanted = {"model": arm[0], "variant": arm[1], "stage": stage, "metric": metric}
    found = values[(values[list(wanted)] == list(wanted.values())).all(axis=1)]
    return found.set_index("seed")["value"].astype(float)


def _relative(costs: pd.DataFrame, arm: Arm, column: str) -> float:
    """Divide a cost of a model by DDPM++'s; NaN if either is unknown."""
    if column not in costs or not {arm, NO_MAP} <= {*costs.index}:
        return math.nan
    own, plain = (costs[column].get(it, math.nan) for it in (arm, NO_MAP))
    return math.nan if pd.isna(own) or pd.isna(plain) or not plain else float(own / plain)


def written(multiple: Multiple) -> str:
    """Write a multiple with its interval, if it has one."""
    if multiple.bounded:
        return f"{multiple.value:.2f} [{multiple.low:.2f}, {multiple.high:.2f}]"
    return "unbounded" if math.isnan(multiple.value) else f"{multiple.value:.2f}, unbounded"
