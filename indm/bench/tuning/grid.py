r"""Trials on grids, one hyper-parameter after another, and the choice of each by the lowest point of a cubic.

A hyper-parameter has K trials at equidistant places of its range, both ends included; a place is a logarithm where the range
says so. The hyper-parameters before it have their chosen values, and those after it are in the middle of their ranges: ``lr``
is chosen with ``flow_lr`` in the middle, and then ``flow_lr`` at the chosen ``lr``. Therefore every hyper-parameter of every
model is chosen from K trials, and a model with two hyper-parameters has 2 K trials.

The cubic is fitted to the targets, or for the ``fid`` objective to their logarithms, because the error of an FID is relative.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from optuna.distributions import FloatDistribution

from indm.bench.suite.schema.studies import FEWEST
from indm.bench.tuning.cubic import Lowest, lowest_point
from indm.bench.tuning.study import Study, rounded
from indm.report.trials import best

# A smaller FID is rounding.
LEAST_FID = 1e-6
ROUGH = "the residual is large, so the cubic fits badly, or the value matters little"


class Chosen(NamedTuple):
    """The choice of a hyper-parameter: its value, and the height of the cubic there, as a target.

    ``residual`` is in bits/dim, or of the logarithm of FID, and ``None`` without a fit; ``note`` says what is wrong, if
    anything.
    """

    value: float
    target: float
    residual: float | None
    note: str


class GridStudy(Study):
    """The trials of a model on the grids of its hyper-parameters.

    Arguments:
        path, key, space, seed: see :class:`~indm.bench.tuning.study.Study`; hyper-parameters are chosen in the order of ``space``.
        count: number of trials of each hyper-parameter, K.
        steps: steps of a trial.
        objective: the objective of the trainings, ``nll`` or ``fid``.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        space: Mapping[str, tuple[float, float, bool]],
        seed: tuple[str | int, ...],
        *,
        count: int,
        steps: int,
        objective: str,
    ) -> None:
        super().__init__(path, key, space, seed)
        self.count, self.steps, self.objective = count, steps, objective

    def trials_of(self, name: str) -> range:
        """Return the numbers of a hyper-parameter's trials."""
        first = list(self.space).index(name) * self.count
        return range(first, first + self.count)

    def suggest(self, trial: int) -> dict[str, float]:
        """Return the hyper-parameters of a trial, once all trials of the hyper-parameters before the searched one are made."""
        searched, number = divmod(trial, self.count)
        found = {}
        for i, (name, distribution) in enumerate(self.space.items()):
            if i < searched:
                chosen = self.chosen(name)
                assert chosen is not None
                found[name] = chosen.value
            else:
                found[name] = _value_at(distribution, number / (self.count - 1) if i == searched else 0.5)
        return found

    def chosen(self, name: str) -> Chosen | None:
        """Choose a hyper-parameter from its trials, all of which have been made; ``None`` if all of them failed."""
        rows = [self.rows[trial, self.steps] | self.parameters(trial) for trial in self.trials_of(name)]
        complete = [row for row in rows if row["target"] is not None]
        if len(complete) < FEWEST:
            winner = best([row | {"phase": "short"} for row in complete], self.objective)
            note = f"{name}: the best trial, as {len(complete)} of {len(rows)} trials were completed, and a cubic needs {FEWEST}"
            return Chosen(winner[name], winner["target"], None, note) if winner else None
        distribution, is_fid = self.space[name], self.objective == "fid"
        heights = [math.log(max(row["target"], LEAST_FID)) if is_fid else row["target"] for row in complete]
        found = lowest_point([_place(distribution, row[name]) for row in complete], heights)
        target = math.exp(found.height) if is_fid else found.height
        return Chosen(_value(distribution, found.place), target, found.residual, _note(name, found, rows))


def _note(name: str, found: Lowest, rows: list[dict[str, Any]]) -> str:
    """Say in a line what is wrong with a lowest point."""
    notes = []
    if found.end:
        beyond = rows[0] if found.end == "lower" else rows[-1]
        remedy = f"widen its range beyond {beyond[name]:g}"
        if beyond["target"] is None:
            remedy = "the trials beyond it failed: narrow its range"
        notes.append(f"{name}: lowest at the {found.end} end of the trials: {remedy}")
    if found.is_rough:
        notes.append(f"{name}: {ROUGH}")
    return "; ".join(notes)


def _place(distribution: FloatDistribution, value: float) -> float:
    """Return where a value is on its grid."""
    return math.log(value) if distribution.log else value


def _value(distribution: FloatDistribution, place: float) -> float:
    """Return the value at a place, rounded like all values of trials."""
    return rounded(math.exp(place) if distribution.log else place, distribution)


def _value_at(distribution: FloatDistribution, share: float) -> float:
    """Return the value at a share of the way through a range."""
    low, high = _place(distribution, distribution.low), _place(distribution, distribution.high)
    return _value(distribution, low + share * (high - low))
