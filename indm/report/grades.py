"""How a difference is graded: intervals over seeds, a grade, and how probably other seeds would repeat it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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
# What each grade means, wherever it is said; :func:`grade` decides so.
MEANINGS = {
    SHOWN: "the interval against the baseline lies above the smallest effect and above 0, those against all controls above 0",
    EXPLAINED: "shown against the baseline, but the interval against some control reaches 0 or below",
    NOT_SHOWN: "the interval against the baseline ends at or below the smallest effect",
    INCONCLUSIVE: "none of these, fewer than 3 seeds, or a control that was not run on 3 seeds",
    NO_DATA: "the suite has no such runs",
}


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
    """Grade a claim, as :data:`MEANINGS` says.

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
        return Grade(EXPLAINED, f"shown against the baseline, but against {name} the interval reaches 0 or below", name)
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
