r"""The claims, graded from the tidy table.

The effect of a treatment is the mean over seeds of a paired difference, positive in the direction of the claim,

.. math:: d_s = \pm (f(b_s) - f(a_s)), \qquad \hat d = \frac{1}{n} \sum_s d_s,

with a the treatment, b the baseline or a control, both trained with seed s, and f the metric's transform. Its 95 % interval is
Student's below ten seeds, and a BCa bootstrap from there on (B. Efron, Better Bootstrap Confidence Intervals, 1987,
https://doi.org/10.1080/01621459.1987.10478410).

How probably as many other seeds would give the same verdict is said beside it: :func:`repeatability`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from indm.report.claims_file import Arm, Bound, Claim, Claims, Control, Metric
from indm.report.results import records
from indm.seeding import derive_seed

LEVEL = 0.95
FEWEST_SEEDS = 3
# A verdict with a lower repeatability is called borderline.
REPEATABLE = 0.9
# In standard errors: farther from its bound, an interval is repeated on the same side but for less than 1e-9.
FARTHEST = 30.0
BOOTSTRAP_SEEDS = 10

SHOWN = "shown"
EXPLAINED = "explained by a control"
NOT_SHOWN = "not shown"
INCONCLUSIVE = "inconclusive"
NO_DATA = "no data"

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


class Interval(NamedTuple):
    """A mean of paired differences, its 95 % interval (NaN below two seeds) and the number of seeds."""

    effect: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Grade:
    """A verdict, its reason in words, and the control that decides: the one that leaves the smallest effect."""

    grade: str
    reason: str
    control: str = ""


def interval(differences: NDArray[np.float64]) -> Interval:
    """Estimate the mean of paired differences, shape (n,), and its 95 % interval."""
    from scipy import stats

    n = len(differences)
    if n < 2:
        return Interval(float(differences.mean()) if n else float("nan"), float("nan"), float("nan"), n)
    mean = float(differences.mean())
    if np.ptp(differences) == 0:
        return Interval(mean, mean, mean, n)
    if n < BOOTSTRAP_SEEDS:
        found = stats.ttest_1samp(differences, 0.0).confidence_interval(LEVEL)
    else:
        generator = np.random.default_rng(derive_seed("claims", "bootstrap"))
        found = stats.bootstrap(
            (differences,), np.mean, confidence_level=LEVEL, method="BCa", random_state=generator
        ).confidence_interval
    return Interval(mean, float(found.low), float(found.high), n)


def grade(baseline: Interval, controls: Mapping[str, Interval], smallest_effect: float) -> Grade:
    """Grade a claim.

    - shown: the interval against the baseline lies above the smallest effect and above 0, those against all controls above 0;
    - explained by a control: so against the baseline, but the interval against a control reaches 0 or below;
    - not shown: the interval against the baseline ends at or below the smallest effect;
    - inconclusive: fewer than three seeds, or an interval on both sides of the smallest effect, or a control without enough seeds.

    Arguments:
        baseline: the effect against the baseline.
        controls: the effect against each control, by name.
        smallest_effect: the smallest effect worth a claim, at least 0.
    """
    if baseline.n < FEWEST_SEEDS:
        return Grade(INCONCLUSIVE, f"{_seeds(baseline.n)}: at least {FEWEST_SEEDS} are needed")
    if baseline.high <= smallest_effect:
        return Grade(NOT_SHOWN, f"the interval ends at {baseline.high:.3g}, not above {smallest_effect:g}")
    if baseline.low < smallest_effect or baseline.low <= 0:
        return Grade(INCONCLUSIVE, f"the interval lies on both sides of {smallest_effect:g}: more seeds are needed")
    decided = {name: found for name, found in controls.items() if found.n >= FEWEST_SEEDS}
    smallest = min(decided, key=lambda name: decided[name].effect, default="")
    explaining = {name: found for name, found in decided.items() if found.low <= 0}
    if explaining:
        name = min(explaining, key=lambda name: explaining[name].effect)
        return Grade(EXPLAINED, f"shown against the baseline, but against {name} the interval starts below 0", name)
    if missing := [f"{name} ({_seeds(controls[name].n)})" for name in controls if name not in decided]:
        return Grade(INCONCLUSIVE, f"shown against the baseline; controls to be run: {', '.join(missing)}", smallest)
    return Grade(SHOWN, "better than the baseline" + (" and every control" if controls else ""), smallest)


def _seeds(n: int) -> str:
    return f"{n} seed" if n == 1 else f"{n} seeds"


def repeatability(
    found: str, against: NDArray[np.float64], controls: Sequence[NDArray[np.float64]], smallest_effect: float
) -> float:
    r"""Estimate how probably as many other seeds would be graded alike: the estimated-power approach.

    .. math:: P\Big(\frac{\hat d' - \delta}{s' / \sqrt n} > t_{n-1}\Big) = P\big(T_{n-1, \lambda} > t_{n-1}\big),
        \qquad \lambda = \frac{\hat d - \delta}{s / \sqrt n}

    with T a noncentral Student variable, :math:`\delta` the smallest effect and :math:`t_{n-1}` the 97.5 % point: the
    probability that the repetition's interval lies above :math:`\delta`, were the mean and the standard deviation found the
    true ones. From ten seeds on the interval is the bootstrap's: in place of the point stands :math:`1.96\sqrt{(n-1)/n}`, its
    length for normal differences. Comparisons are taken as independent; they share the treatment, so this is a little too low
    for several controls.

    Arguments:
        found: the grade.
        against: differences from the baseline, shape (n,), n at least 3.
        controls: differences from each control, each of shape (n,); one with fewer than three seeds counts as not run.
        smallest_effect: the smallest effect worth a claim.

    References:
        | Reproducibility probability in clinical trials (Shao & Chow, 2002), section 2
        | https://doi.org/10.1002/sim.1177
    """
    above = _probability_above(against, max(smallest_effect, 0.0))
    decided = [control for control in controls if len(control) >= FEWEST_SEEDS]
    beats = float(np.prod([_probability_above(control, 0.0) for control in decided]))
    probabilities = {
        SHOWN: above * beats * (len(decided) == len(controls)),
        EXPLAINED: above * (1 - beats),
        # An interval without length that touches the smallest effect ends at it.
        NOT_SHOWN: _probability_above(-against, -smallest_effect) if np.ptp(against) else 1 - above,
    }
    return float(np.clip(probabilities.get(found, 1 - sum(probabilities.values())), 0, 1))


def _probability_above(differences: NDArray[np.float64], bound: float) -> float:
    """Probability that the interval of a repetition starts above a bound."""
    from scipy import stats

    n = len(differences)
    distance, error = differences.mean() - bound, differences.std(ddof=1) / np.sqrt(n)
    if np.ptp(differences) == 0:
        return float(distance > 0)
    # Farther out SciPy's series fails.
    noncentrality = np.clip(distance / error, -FARTHEST, FARTHEST)
    quantile = (1 + LEVEL) / 2
    point = stats.t.ppf(quantile, n - 1) if n < BOOTSTRAP_SEEDS else stats.norm.ppf(quantile) * np.sqrt((n - 1) / n)
    return float(stats.nct.sf(point, n - 1, noncentrality))


def claims_table(values: pd.DataFrame, claims: Claims, suite: str) -> pd.DataFrame:
    """Grade every claim once for each dataset, SDE and objective that has data; a claim without data is a row too.

    Arguments:
        values: the tidy table.
        claims: the claims.
        suite: name of the suite.
    """
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
    wide = found.assign(x=found["x"].fillna(0.0)).pivot_table(index="seed", columns=["sampler", "x"], values="value")
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
