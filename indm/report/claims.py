r"""The claims, graded from the tidy table.

The effect of a treatment is the mean over seeds of a paired difference, positive in the direction of the claim,

.. math:: d_s = \pm (f(b_s) - f(a_s)), \qquad \hat d = \frac{1}{n} \sum_s d_s,

with a the treatment, b the baseline or a control, both trained with seed s, and f the metric's transform. Its 95 % interval is
Student's below ten seeds, and a BCa bootstrap from there on (B. Efron, Better Bootstrap Confidence Intervals, 1987,
https://doi.org/10.1080/01621459.1987.10478410).

How probably as many other seeds would give the same verdict is said beside it: :func:`repeatability`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from indm.report.grades import BOOTSTRAP_SEEDS, FEWEST_SEEDS, NO_DATA, REPEATABLE, grade, interval, repeatability
from indm.report.results import records
from indm.report.values import refuse_repeats
from indm.suite.claims import Arm, Bound, Claim, Claims, Control, Metric

PLACE = ["dataset", "sde", "objective"]
CLAIM_COLUMNS = [
    "suite",
    "id",
    *PLACE,
    "treatment",
    "baseline",
    "n",
    "effect",
    "low",
    "high",
    "smallest_effect",
    "unit",
    "control",
    "control_n",
    "control_effect",
    "control_low",
    "control_high",
    "grade",
    "repeatability",
    "reason",
    "test",
    "statement",
    "source",
    "metric",
    "why",
]
TRANSFORMS: dict[str, Callable[[Any], Any]] = {"signed": lambda values: values, "abs": np.abs, "log": np.log}


def claims_table(values: pd.DataFrame, claims: Claims, suite: str) -> pd.DataFrame:
    """Grade every claim once for each dataset, SDE and objective that has data; a claim without data is a row too.

    Arguments:
        values: the tidy table.
        claims: the claims.
        suite: name of the suite.

    Raises:
        ArtifactError: if a number stands in the tidy table twice.
    """
    refuse_repeats(values)
    rows = [row for claim in claims.claims for row in _claim_rows(values, claim, claims.controls)]
    return pd.DataFrame([{"suite": suite, **row} for row in rows], columns=CLAIM_COLUMNS).astype(
        {"n": "Int64", "control_n": "Int64"}
    )


def _claim_rows(values: pd.DataFrame, claim: Claim, controls: Mapping[str, Control]) -> list[dict[str, Any]]:
    found = _select(values, claim.metric)
    treated = found[(found["model"] == claim.treatment.model) & (found["variant"] == claim.treatment.variant)]
    where: list[list[str]] = [claim.where.datasets, [*claim.where.sdes], [*claim.where.objectives]]
    for key, allowed in zip(PLACE, where, strict=True):
        treated = treated[treated[key].isin(allowed)] if allowed else treated
    rows = [_graded(values, claim, controls, place) for place in records(treated[PLACE].drop_duplicates())]
    absent = [name for name in claim.where.datasets or [""] if name not in {row["dataset"] for row in rows}]
    if claim.where.datasets or not rows:
        rows += [_described(claim) | {"dataset": name, "grade": NO_DATA, "reason": "no run"} for name in absent]
    return rows


def _graded(
    values: pd.DataFrame, claim: Claim, controls: Mapping[str, Control], place: dict[str, str]
) -> dict[str, Any]:
    """Grade a claim at one dataset, SDE and objective."""
    row = _described(claim) | place
    differences = _differences(values, claim, place, claim.baseline)
    against = interval(differences)
    if against.n == 0:
        return row | {"grade": NO_DATA, "reason": "no run of the baseline shares a seed with one of the treatment"}
    controlled: dict[str, NDArray[np.float64]] = {}
    for name in claim.controls:
        arm = _choose(values, controls[name], place)
        chosen = f"{name} ({arm.variant})" if arm and controls[name].choose_by else name
        controlled[chosen] = _differences(values, claim, place, arm) if arm else np.empty(0)
    found = {name: interval(control) for name, control in controlled.items()}
    verdict = grade(against, found, claim.smallest_effect)
    row |= against._asdict() | {"grade": verdict.grade, "reason": verdict.reason, "control": verdict.control}
    if against.n >= FEWEST_SEEDS:
        probability = repeatability(verdict.grade, differences, [*controlled.values()], claim.smallest_effect)
        row |= {"repeatability": probability, "reason": _borderline(verdict.reason, probability)}
    row["test"] = "BCa bootstrap" if against.n >= BOOTSTRAP_SEEDS else "Student t" if against.n > 1 else ""
    if verdict.control:
        row |= {f"control_{key}": value for key, value in found[verdict.control]._asdict().items()}
    return row


def _borderline(reason: str, probability: float) -> str:
    """Add to a reason that other seeds might well say something else."""
    if probability >= REPEATABLE:
        return reason
    return f"{reason}; borderline: as many other seeds would say the same with probability {probability:.2f}"


def _described(claim: Claim) -> dict[str, Any]:
    metric, baseline = claim.metric, claim.baseline
    place = (
        [f"at x = {metric.x}" if isinstance(metric.x, str) else f"x {metric.x[0]:g} to {metric.x[1]:g}"]
        if metric.x
        else []
    )
    words = [metric.stage, metric.name, *([metric.sampler] if metric.sampler else []), *place, metric.transform]
    return {
        "id": claim.id,
        "treatment": _name(claim.treatment),
        "baseline": f"{baseline.value:g}" if isinstance(baseline, Bound) else _name(baseline),
        "smallest_effect": claim.smallest_effect,
        "unit": claim.unit,
        "statement": claim.statement,
        "source": claim.source,
        "metric": ", ".join(words),
        "why": claim.why,
    }


def _name(arm: Arm) -> str:
    return " ".join(filter(None, (arm.model, arm.variant, arm.objective)))


def _select(values: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    found = values[(values["stage"] == metric.stage) & (values["metric"] == metric.name)]
    return found if metric.sampler is None else found[found["sampler"] == metric.sampler]


def _numbers(values: pd.DataFrame, metric: Metric, place: Mapping[str, str], arm: Arm) -> pd.DataFrame:
    """Lay out an arm's numbers, after the transform: one row a seed, one column a sampler and x."""
    keys = dict(place) | {"model": arm.model, "variant": arm.variant}
    keys |= {"objective": arm.objective} if arm.objective else {}
    found = _select(values, metric)
    found = found[np.logical_and.reduce([found[key] == text for key, text in keys.items()])]
    if isinstance(metric.x, list):
        found = found[found["x"].between(metric.x[0], metric.x[1])]
    elif metric.x == "last":
        # Trained longer, an arm ends at another step; its last is its last.
        found = found[found["x"] == found["x"].max()].assign(x=0.0)
    wide = found.assign(x=found["x"].fillna(0.0)).pivot(index="seed", columns=["sampler", "x"], values="value")
    return TRANSFORMS[metric.transform](wide.astype(float))


def _differences(
    values: pd.DataFrame, claim: Claim, place: Mapping[str, str], other: Arm | Bound
) -> NDArray[np.float64]:
    """Subtract, seed by seed, the mean over the samplers and x that both arms have: shape (n,)."""
    treated = _numbers(values, claim.metric, place, claim.treatment)
    if isinstance(other, Bound):
        compared = treated * 0 + TRANSFORMS[claim.metric.transform](other.value)
    else:
        compared = _numbers(values, claim.metric, place, other)
    seeds, columns = treated.index.intersection(compared.index), treated.columns.intersection(compared.columns)
    if len(seeds) == 0 or len(columns) == 0:
        return np.empty(0)
    lower = (compared.loc[seeds, columns] - treated.loc[seeds, columns]).mean(axis="columns").dropna().to_numpy()
    return lower if claim.direction == "lower" else -lower


def _choose(values: pd.DataFrame, control: Control, place: Mapping[str, str]) -> Arm | None:
    """Choose the variant of a control with the smallest validation metric; none where it was not measured."""
    arms = [Arm(model=control.model, variant=variant, objective=control.objective) for variant in control.variants]
    if control.choose_by is None:
        return arms[0]
    scores = {i: _numbers(values, control.choose_by, place, arm).to_numpy() for i, arm in enumerate(arms)}
    measured = {i: float(np.nanmean(score)) for i, score in scores.items() if score.size > 0}
    return arms[min(measured, key=lambda i: measured[i])] if measured else None
