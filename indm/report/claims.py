r"""The claims, graded from the tidy table.

The effect of a treatment is the mean over seeds of a paired difference, positive in the direction of the claim,

.. math:: d_s = \pm (f(b_s) - f(a_s)), \qquad \hat d = \frac{1}{n} \sum_s d_s,

with a the treatment, b the baseline or a control, both trained with seed s, and f the metric's transform. Its 95 % interval is
Student's below ten seeds, and a BCa bootstrap from there on (B. Efron, Better Bootstrap Confidence Intervals, 1987,
https://doi.org/10.1080/01621459.1987.10478410).

Likelihoods are of the same images i in all runs, and their interval crosses seeds and images (:mod:`indm.report.grades`). The
transform is of the mean over images, so that each image counts by its linear part there, the delta method:

.. math:: d_{si} = \pm (f_i(b_s) - f_i(a_s)), \qquad f_i(a) = f(\bar a) + f'(\bar a)(a_i - \bar a), \qquad
    \frac{1}{I} \sum_i f_i(a) = f(\bar a).

FID and 2-D data have no numbers of single images; each seed draws its own, so that their noise is in the spread of the seeds.

How probably a repetition would give the same verdict is said beside it: :func:`repeatability`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from indm.report.grades import (
    BOOTSTRAP_SEEDS,
    FEWEST_SEEDS,
    NO_DATA,
    REPEATABLE,
    Interval,
    grade,
    interval,
    repeatability,
)
from indm.report.results import IDENTITY, records
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
    "images",
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
# Each with its derivative.
TRANSFORMS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "signed": (lambda values: values, lambda values: 1.0),
    "abs": (np.abs, np.sign),
    "log": (np.log, lambda values: 1 / values),
}


@dataclass(frozen=True)
class Tables:
    """What claims are graded from.

    Arguments:
        values: the tidy table.
        images: the table of single images' likelihoods.
    """

    values: pd.DataFrame
    images: pd.DataFrame


def claims_table(values: pd.DataFrame, images: pd.DataFrame, claims: Claims, suite: str) -> pd.DataFrame:
    """Grade every claim once for each dataset, SDE and objective that has data; a claim without data is a row too.

    Arguments:
        values: the tidy table.
        images: the table of single images' likelihoods.
        claims: the claims.
        suite: name of the suite.

    Raises:
        ArtifactError: if a number stands in the tidy table twice.
    """
    refuse_repeats(values)
    tables = Tables(values, images)
    rows = [row for claim in claims.claims for row in _claim_rows(tables, claim, claims.controls)]
    return pd.DataFrame([{"suite": suite, **row} for row in rows], columns=CLAIM_COLUMNS).astype(
        {"n": "Int64", "images": "Int64", "control_n": "Int64"}
    )


def _claim_rows(tables: Tables, claim: Claim, controls: Mapping[str, Control]) -> list[dict[str, Any]]:
    found = _select(tables, claim.metric)
    treated = found[(found["model"] == claim.treatment.model) & (found["variant"] == claim.treatment.variant)]
    where: list[list[str]] = [claim.where.datasets, [*claim.where.sdes], [*claim.where.objectives]]
    for key, allowed in zip(PLACE, where, strict=True):
        treated = treated[treated[key].isin(allowed)] if allowed else treated
    rows = [_graded(tables, found, claim, controls, place) for place in records(treated[PLACE].drop_duplicates())]
    absent = [name for name in claim.where.datasets or [""] if name not in {row["dataset"] for row in rows}]
    if claim.where.datasets or not rows:
        rows += [_described(claim) | {"dataset": name, "grade": NO_DATA, "reason": "no run"} for name in absent]
    return rows


def _graded(
    tables: Tables, found: pd.DataFrame, claim: Claim, controls: Mapping[str, Control], place: dict[str, str]
) -> dict[str, Any]:
    """Grade a claim at one dataset, SDE and objective, from the numbers found of its metric."""
    row = _described(claim) | place
    differences = _differences(found, claim, place, claim.baseline)
    against = interval(differences)
    if against.n == 0:
        return row | {"grade": NO_DATA, "reason": "no run of the baseline shares a seed with one of the treatment"}
    absent = [name for name in claim.controls if not _has_run(tables.values, controls[name], place)]
    controlled: dict[str, NDArray[np.float64]] = {}
    for name in (name for name in claim.controls if name not in absent):
        arm = _choose(tables, controls[name], place)
        chosen = f"{name} ({arm.variant})" if arm and controls[name].choose_by else name
        controlled[chosen] = _differences(found, claim, place, arm) if arm else np.empty(0)
    intervals = {name: interval(control) for name, control in controlled.items()}
    verdict = grade(against, intervals, claim.smallest_effect, absent)
    reason = verdict.reason + _impossible(absent, place)
    row |= against._asdict() | {"grade": verdict.grade, "reason": reason, "control": verdict.control}
    if against.n >= FEWEST_SEEDS:
        compared = [*controlled.values(), *[np.empty(0)] * len(absent)]
        probability = repeatability(verdict.grade, differences, compared, claim.smallest_effect)
        row |= {"repeatability": probability, "reason": _borderline(reason, probability, against)}
    row["test"] = _test(against)
    if verdict.control:
        row |= {f"control_{key}": value for key, value in intervals[verdict.control]._asdict().items()}
    return row


def _test(found: Interval) -> str:
    """Name how an interval was computed."""
    if found.n < 2:
        return ""
    if found.images is not None:
        return "Student t, seeds and images crossed"
    return "BCa bootstrap" if found.n >= BOOTSTRAP_SEEDS else "Student t"


def _has_run(values: pd.DataFrame, control: Control, place: Mapping[str, str]) -> bool:
    """Whether a control has a run at a dataset, SDE and objective."""
    keys = dict(place) | {"model": control.model} | ({"objective": control.objective} if control.objective else {})
    here = np.logical_and.reduce([values[key] == text for key, text in keys.items()])
    return bool((here & values["variant"].isin(control.variants)).any())


def _impossible(absent: list[str], place: Mapping[str, str]) -> str:
    """Say that a claim cannot be shown for want of controls; nothing where they all have runs."""
    if not absent:
        return ""
    verb = "is" if len(absent) == 1 else "are"
    where = ", ".join(filter(None, place.values()))
    return f"; cannot be shown here: {', '.join(absent)} {verb} not in this suite for {where}"


def _borderline(reason: str, probability: float, found: Interval) -> str:
    """Add to a reason that a repetition might well say something else."""
    if probability >= REPEATABLE:
        return reason
    others = "seeds" if found.images is None else "seeds and images"
    return f"{reason}; borderline: as many other {others} would say the same with probability {probability:.2f}"


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


def _select(tables: Tables, metric: Metric) -> pd.DataFrame:
    """Select the numbers of a metric, transformed: those of single images where there are such, else one a run."""
    values, images = tables.values, tables.images
    found = images[images["stage"] == metric.stage] if metric.name in images else images[:0]
    if len(found) > 0:
        found = found.assign(sampler="", value=found[metric.name]).dropna(subset="value")
    else:
        found = values[(values["stage"] == metric.stage) & (values["metric"] == metric.name)].assign(image=0)
    found = found if metric.sampler is None else found[found["sampler"] == metric.sampler]
    return _transformed(found.assign(x=found["x"].fillna(0.0)), metric)


def _transformed(found: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Transform each number by its linear part at the mean over images, so that their mean becomes the transform's."""
    transform, derivative = TRANSFORMS[metric.transform]
    value = found["value"].astype(float)
    mean = value.groupby([found[key] for key in [*IDENTITY, "sampler", "x"]]).transform("mean")
    return found.assign(value=transform(mean) + derivative(mean) * (value - mean))


def _numbers(found: pd.DataFrame, metric: Metric, place: Mapping[str, str], arm: Arm) -> pd.DataFrame:
    """Lay out an arm's numbers: one row a seed, one column a sampler, x and image."""
    keys = dict(place) | {"model": arm.model, "variant": arm.variant}
    keys |= {"objective": arm.objective} if arm.objective else {}
    found = found[np.logical_and.reduce([found[key] == text for key, text in keys.items()])]
    if isinstance(metric.x, list):
        found = found[found["x"].between(metric.x[0], metric.x[1])]
    elif metric.x == "last":
        # Trained longer, an arm ends at another step; its last is its last.
        found = found[found["x"] == found["x"].max()].assign(x=0.0)
    return found.pivot(index="seed", columns=["sampler", "x", "image"], values="value")


def _differences(
    found: pd.DataFrame, claim: Claim, place: Mapping[str, str], other: Arm | Bound
) -> NDArray[np.float64]:
    """Subtract, seed by seed, the mean over the samplers and x that both arms have: shape (S,), or (S, I) of images."""
    treated = _numbers(found, claim.metric, place, claim.treatment)
    if isinstance(other, Bound):
        compared = treated * 0 + TRANSFORMS[claim.metric.transform][0](other.value)
    else:
        compared = _numbers(found, claim.metric, place, other)
    seeds, columns = treated.index.intersection(compared.index), treated.columns.intersection(compared.columns)
    if len(seeds) == 0 or len(columns) == 0:
        return np.empty(0)
    # The same for all seeds: a mean over what each of them has would compare unlike cells.
    lower = (compared.loc[seeds, columns] - treated.loc[seeds, columns]).dropna(axis="columns")
    if lower.empty:
        return np.empty(0)
    of_images = lower.T.groupby("image").mean().T.to_numpy() * (1 if claim.direction == "lower" else -1)
    return of_images[:, 0] if of_images.shape[1] == 1 else of_images


def _choose(tables: Tables, control: Control, place: Mapping[str, str]) -> Arm | None:
    """Choose the variant of a control with the smallest validation metric; none where it was not measured."""
    arms = [Arm(model=control.model, variant=variant, objective=control.objective) for variant in control.variants]
    if control.choose_by is None:
        return arms[0]
    found = _select(tables, control.choose_by)
    scores = {i: _numbers(found, control.choose_by, place, arm).to_numpy() for i, arm in enumerate(arms)}
    measured = {i: float(np.nanmean(score)) for i, score in scores.items() if score.size > 0}
    return arms[min(measured, key=lambda i: measured[i])] if measured else None
