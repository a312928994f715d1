"""Grade the claims from the paired numbers of their runs and controls, corrected for the number of claims in a family."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from indm.report.differences import PLACE, Comparison, family_sizes
from indm.report.grades import (
    INCONCLUSIVE,
    NO_DATA,
    NOT_RUN,
    OPEN,
    REPEATABLE,
    SINGLE,
    Effect,
    Scale,
    Verdict,
    effect_of,
    holds,
    is_the_flow,
    of_control,
    repeatability,
)
from indm.report.intervals import Interval, method
from indm.report.names import name
from indm.suite.claims import Bound, Claim, Side

ENDS = ["effect", "low", "high"]
OF_GAPS = ["treatment_low", "against_low", "against_high"]
FAILED = ["planned", "failed_treatment", "failed_against"]
CLAIM_COLUMNS = ["suite", "id", "family", *PLACE, "treatment", "baseline", "n", "images", *ENDS]
CLAIM_COLUMNS += ["smallest_effect", "unit", "holds", "reason", "flow", "control", "control_n"]
CLAIM_COLUMNS += [f"control_{end}" for end in ENDS] + ["flow_reason", "planned", "failed_treatment", "failed_baseline"]
CLAIM_COLUMNS += ["repeatability", "test", "question", "statement", "source", "metric", "why"]
EFFECT_COLUMNS = ["suite", "id", *PLACE, "against", "role", "n", "images", *ENDS, *FAILED, *OF_GAPS]
EFFECT_COLUMNS += ["smallest_effect", "unit", "verdict"]
DIFFERENCE_COLUMNS = ["suite", "id", *PLACE, "against", "seed", "difference"]
# The control that is always named: DDPM++ trained for as many FLOPs as the treatment.
SAME_COMPUTE = "same-compute"


def claims_table(compared: list[Comparison], suite: str) -> pd.DataFrame:
    """Grade every claim once for each dataset, SDE and objective that has data; a claim without data gets a row too.

    Arguments:
        compared: the paired numbers of all claims, from :func:`indm.report.differences.compare`.
        suite: name of the suite.
    """
    rows = [
        {"suite": suite} | _described(one.claim) | one.place | _graded(one, size)
        for one, size in zip(compared, family_sizes(compared), strict=True)
    ]
    return _table(rows, CLAIM_COLUMNS, "n", "images", "control_n", "planned", "failed_treatment", "failed_baseline")


def effects_table(compared: list[Comparison], suite: str) -> pd.DataFrame:
    """List the effects behind the grades, against the baseline and each control; for a control that was not run they are empty."""
    rows = []
    for one, size in zip(compared, family_sizes(compared), strict=True):
        scale, (baseline, controls) = _scale(one.claim), _effects(one, size)
        verdicts = {_baseline(one.claim): ("baseline", baseline, _holds(one, baseline).grade)}
        verdicts |= {key: ("control", effect, _of_control(one, effect, scale)) for key, effect in controls.items()}
        rows += [
            {"suite": suite, "id": one.claim.id, **one.place, "against": against, "role": role}
            | {"smallest_effect": scale.smallest, "unit": one.claim.smallest.unit, "verdict": verdict}
            | effect.found._asdict()
            | {key: getattr(effect, key) for key in (*FAILED, *OF_GAPS)}
            for against, (role, effect, verdict) in verdicts.items()
            if "sde" in one.place
        ]
    return _table(rows, EFFECT_COLUMNS, "n", "images", *FAILED)


def differences_table(compared: list[Comparison], suite: str) -> pd.DataFrame:
    """List the paired difference of each seed from the baseline and each control, averaged over images."""
    rows = [
        {"suite": suite, "id": one.claim.id, **one.place, "against": against, "seed": seed, "difference": difference}
        for one in compared
        for against, paired in {_baseline(one.claim): one.baseline, **one.controls}.items()
        for seed, difference in zip(paired.seeds, paired.of_seeds, strict=True)
    ]
    return _table(rows, DIFFERENCE_COLUMNS, "seed")


def _table(rows: list[dict[str, Any]], columns: list[str], *counts: str) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(counts, "Int64"))


def _scale(claim: Claim) -> Scale:
    return Scale(claim.smallest.effect, claim.floor)


def _effects(compared: Comparison, size: int) -> tuple[Effect, dict[str, Effect]]:
    """Return the effect against the baseline, and the effects against the controls."""
    scale = _scale(compared.claim)
    return effect_of(compared.baseline, scale, size), {
        key: effect_of(paired, scale, size, compared.run_controls) for key, paired in compared.controls.items()
    }


def _graded(compared: Comparison, size: int) -> dict[str, Any]:
    """Grade one row, in a family of ``size`` rows."""
    baseline, controls = _effects(compared, size)
    verdict, flow = _holds(compared, baseline), Verdict("", "")
    if verdict.grade == NO_DATA:
        return {"holds": NO_DATA, "reason": verdict.reason}
    probability = float("nan")
    if baseline.is_known and not compared.lacking:
        probability = repeatability(compared.baseline, _scale(compared.claim), size)[verdict.grade]
    if controls:
        flow = _flow(compared, controls)
    control = {f"control_{key}": value for key, value in _interval(controls, flow.control)}
    return (
        baseline.found._asdict()
        | {"holds": verdict.grade, "reason": verdict.reason + _borderline(probability, baseline.found)}
        | {"flow": flow.grade, "control": flow.control, "flow_reason": flow.reason, **control}
        | {"planned": baseline.planned, "failed_treatment": baseline.failed_treatment}
        | {"failed_baseline": baseline.failed_against, "repeatability": probability, "test": method(baseline.found)}
    )


def _interval(controls: Mapping[str, Effect], control: str) -> Iterable[tuple[str, Any]]:
    return controls[control].found._asdict().items() if control else ()


def _holds(compared: Comparison, baseline: Effect) -> Verdict:
    """Decide whether the claim holds, and mention missing samplers and failed seeds."""
    of_baseline = f"the {compared.claim.metric.name} of {name(_baseline(compared.claim))}"
    verdict = holds(baseline, _scale(compared.claim), of_baseline)
    lacking = f"no sound number by {', '.join(compared.lacking)}" if compared.lacking else ""
    if verdict.grade == NO_DATA:
        return Verdict(NO_DATA, lacking or verdict.reason)
    if lacking and verdict.grade != SINGLE:
        verdict = Verdict(INCONCLUSIVE, lacking)
    return Verdict(verdict.grade, verdict.reason + _failures(baseline, "baseline"))


def _of_control(compared: Comparison, effect: Effect, scale: Scale) -> str:
    grade = of_control(effect, scale)
    return OPEN if compared.lacking and grade != NOT_RUN else grade


def _flow(compared: Comparison, controls: Mapping[str, Effect]) -> Verdict:
    """Decide whether it is the flow, and always mention the effect against a baseline of equal compute."""
    verdict = is_the_flow(controls, _scale(compared.claim))
    if compared.lacking:
        verdict = Verdict(OPEN, f"no sound number by {', '.join(compared.lacking)}", verdict.control)
    parts = [verdict.reason, *(_failures(effect, key).removeprefix("; ") for key, effect in controls.items())]
    if SAME_COMPUTE in controls:
        found = controls[SAME_COMPUTE].found
        known = f"{SAME_COMPUTE}: {found.effect:.3g}" + (f" [{found.low:.3g}, {found.high:.3g}]" if found.n > 1 else "")
        unknown = "has no sound seed" if controls[SAME_COMPUTE].planned else "was not run here"
        parts.append(known if found.n else f"{SAME_COMPUTE} {unknown}")
    return verdict._replace(reason="; ".join(filter(None, parts)))


def _failures(effect: Effect, against: str) -> str:
    """Write how many seeds failed; empty if all are sound."""
    if not effect.failed_treatment + effect.failed_against:
        return ""
    of_seeds = f"of {effect.planned} seeds {effect.failed_treatment} of the treatment"
    return f"; {of_seeds} and {effect.failed_against} of {against} failed"


def _borderline(probability: float, found: Interval) -> str:
    """Write that a rerun may well give another verdict; empty if that is unlikely."""
    if np.isnan(probability) or probability >= REPEATABLE:
        return ""
    others = "seeds" if found.images is None else "seeds and images"
    return f"; borderline: probability {probability:.2f} that a rerun with new {others} gives the same verdict"


def _described(claim: Claim) -> dict[str, Any]:
    metric = claim.metric
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
        "baseline": _baseline(claim),
        "smallest_effect": claim.smallest.effect,
        "unit": claim.smallest.unit,
        "question": claim.question,
        "statement": claim.statement,
        "source": claim.source,
        "metric": ", ".join([metric.stage, metric.name, *samplers, *place, metric.transform]),
        "why": claim.smallest.why,
    }


def _baseline(claim: Claim) -> str:
    return f"{claim.baseline.value:g}" if isinstance(claim.baseline, Bound) else _name(claim.baseline)


def _name(arm: Side) -> str:
    return " ".join(filter(None, (arm.model, arm.variant, arm.objective)))
