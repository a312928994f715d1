"""The claims, graded: each by the differences of its runs, its controls, and the other rows of its family."""

from typing import Any

import numpy as np
import pandas as pd

from indm.report.differences import PLACE, Comparison
from indm.report.grades import (
    INCONCLUSIVE,
    NO_DATA,
    REPEATABLE,
    control_intervals,
    grade,
    holm,
    holm_tail,
    repeatability,
)
from indm.report.intervals import FEWEST_SEEDS, TAIL, Interval, estimate, interval, method, p_value
from indm.suite.claims import Bound, Claim, Side

CLAIM_COLUMNS = [
    "suite",
    "id",
    "family",
    *PLACE,
    "treatment",
    "baseline",
    "n",
    "images",
    "effect",
    "low",
    "high",
    "end",
    "smallest_effect",
    "unit",
    "control",
    "control_n",
    "control_effect",
    "control_low",
    "control_high",
    "control_end",
    "p",
    "p_adjusted",
    "grade",
    "repeatability",
    "reason",
    "test",
    "question",
    "statement",
    "source",
    "metric",
    "why",
]
EFFECT_COLUMNS = [
    "suite",
    "id",
    *PLACE,
    "against",
    "role",
    "n",
    "images",
    "effect",
    "low",
    "high",
    "end",
    "smallest_effect",
    "unit",
]


def claims_table(compared: list[Comparison], suite: str) -> pd.DataFrame:
    """Grade every claim once for each dataset, SDE and objective that has data; a claim without data is a row too.

    Arguments:
        compared: the differences of all claims, of :func:`indm.report.differences.compare`.
        suite: name of the suite.
    """
    p_values = [claim_p(one) for one in compared]
    family = {
        i: p
        for i, (one, p) in enumerate(zip(compared, p_values, strict=True))
        if one.claim.family == "primary" and p is not None
    }
    adjusted = dict(zip(family, holm([*family.values()]), strict=True))
    rows = []
    for i, (one, many) in enumerate(zip(compared, _together(compared), strict=True)):
        tail = holm_tail([p for j, p in family.items() if j != i]) if i in family else TAIL
        rows.append({"suite": suite, "p": p_values[i]} | _graded(one, adjusted.get(i), tail, many))
    return pd.DataFrame(rows, columns=CLAIM_COLUMNS).astype(
        {"n": "Int64", "images": "Int64", "control_n": "Int64", "p": "Float64", "p_adjusted": "Float64"}
    )


def _together(compared: list[Comparison]) -> list[int]:
    """Count, for each row, of how many rows any may be ruled out, contradicted or explained: a primary one, of all that can be."""
    deniable = sum(one.claim.family == "primary" and len(one.against) >= FEWEST_SEEDS for one in compared)
    return [max(deniable, 1) if one.claim.family == "primary" else 1 for one in compared]


def effects_table(compared: list[Comparison], suite: str) -> pd.DataFrame:
    """List the effects behind the grades, against the baseline and each control; a control without a run has no numbers."""
    rows = [
        {"suite": suite, **row}
        for one, many in zip(compared, _together(compared), strict=True)
        if one.has_run
        for row in _effects(one, many)
    ]
    return pd.DataFrame(rows, columns=EFFECT_COLUMNS).astype({"n": "Int64", "images": "Int64"})


def _effects(compared: Comparison, many: int) -> list[dict[str, Any]]:
    """List the effects of one row: against the baseline first, then the controls in the order of the claim."""
    described = _described(compared.claim)
    shared = {key: described[key] for key in ("id", "smallest_effect", "unit")} | compared.place
    controls = control_intervals(compared.controls, many) | {
        name: interval(np.empty(0), many) for name in compared.absent
    }
    baseline = {"against": described["baseline"], "role": "baseline", **interval(compared.against, many)._asdict()}
    return [shared | baseline] + [
        shared | {"against": name, "role": "control", **found._asdict()} for name, found in controls.items()
    ]


def claim_p(compared: Comparison) -> float | None:
    """Return the p-value of a claim, none where it cannot be shown for want of seeds, controls or cells.

    It is that of the intersection-union test: the largest of those against the baseline, whose effect is by hypothesis at most the
    smallest effect, and against every control, whose effect is by hypothesis at most 0.

    References:
        | Statistical Inference (Casella & Berger, 2002), section 8.3.3
    """
    controls = [*compared.controls.values()]
    if compared.absent or compared.failed or min(map(len, [compared.against, *controls])) < FEWEST_SEEDS:
        return None
    against = p_value(estimate(compared.against), compared.claim.smallest_effect)
    return float(max([against, *(p_value(estimate(control), 0.0) for control in controls)]))


def _graded(compared: Comparison, p_adjusted: float | None, tail: float, many: int) -> dict[str, Any]:
    """Grade one row.

    Arguments:
        compared: its differences.
        p_adjusted: its p-value after Holm's adjustment, if it is of the family.
        tail: what its p-value must be at most.
        many: of how many rows any may be ruled out, contradicted or explained.
    """
    claim, against = compared.claim, interval(compared.against, many)
    row = _described(claim) | compared.place
    if not compared.has_run:
        return row | {"grade": NO_DATA, "reason": "; ".join(["no run", *compared.failed])}
    intervals = control_intervals(compared.controls, many)
    verdict = grade(against, intervals, claim.smallest_effect, compared.absent, p_adjusted)
    if compared.failed:
        reason = f"some cells have no number, and are left out: {'; '.join(compared.failed)}"
        return row | against._asdict() | {"grade": INCONCLUSIVE, "reason": reason, "test": method(against)}
    if against.n == 0:
        positive = ", both with numbers above 0, whose log is taken" if claim.metric.transform == "log" else ""
        return row | {"grade": verdict.grade, "reason": verdict.reason + positive}
    reason = verdict.reason + _impossible(compared)
    row |= against._asdict() | {"grade": verdict.grade, "reason": reason, "control": verdict.control}
    row |= {"test": method(against), "p_adjusted": p_adjusted}
    if against.n >= FEWEST_SEEDS:
        controls = [*compared.controls.values(), *(compared.against[:0] for _ in compared.absent)]
        probability = repeatability(compared.against, controls, claim.smallest_effect, tail, many)[verdict.grade]
        row |= {"repeatability": probability, "reason": _borderline(reason, probability, against)}
    if verdict.control:
        row |= {f"control_{key}": value for key, value in intervals[verdict.control]._asdict().items()}
    return row


def _impossible(compared: Comparison) -> str:
    """Say that a claim cannot be shown for want of controls; nothing where they all have runs."""
    if not compared.absent:
        return ""
    verb = "is" if len(compared.absent) == 1 else "are"
    where = ", ".join(filter(None, compared.place.values()))
    return f"; cannot be shown here: {', '.join(compared.absent)} {verb} not in this suite for {where}"


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
    samplers = [" and ".join(metric.sampler)] if metric.sampler else []
    return {
        "id": claim.id,
        "family": claim.family,
        "treatment": _name(claim.treatment),
        "baseline": f"{baseline.value:g}" if isinstance(baseline, Bound) else _name(baseline),
        "smallest_effect": claim.smallest_effect,
        "unit": claim.unit,
        "question": claim.question,
        "statement": claim.statement,
        "source": claim.source,
        "metric": ", ".join([metric.stage, metric.name, *samplers, *place, metric.transform]),
        "why": claim.why,
    }


def _name(arm: Side) -> str:
    return " ".join(filter(None, (arm.model, arm.variant, arm.objective)))
