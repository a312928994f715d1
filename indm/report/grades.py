r"""How a difference is graded: intervals, a grade, and how probably a repetition would give it again.

Differences are of one of two shapes. Where every seed draws its own images or points (FID, 2-D data), that noise is inside the
spread of the seeds, and there is one number a seed: shape (S,). Likelihoods are of the same test images in every run: other
seeds meet the same luck with them, so that seeds alone say nothing of other images. There the differences are a table of seeds
and images, both drawn at random, shape (S, I):

.. math:: d_{si} = \mu + a_s + b_i + e_{si}, \qquad
    \operatorname{Var}(\bar d) = \frac{\sigma_a^2}{S} + \frac{\sigma_b^2}{I} + \frac{\sigma_e^2}{SI}

References:
    | Variance Components (Searle, Casella & McCulloch, 1992), chapter 4 (two crossed random factors)
    | https://doi.org/10.1002/9780470316856
    | The pigeonhole bootstrap (Owen, 2007), https://doi.org/10.1214/07-AOAS122 (the same model, resampled)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indm.seeding import derive_seed

LEVEL = 0.95
FEWEST_SEEDS = 3
# A verdict with a lower repeatability is called borderline.
REPEATABLE = 0.9
BOOTSTRAP_SEEDS = 10
# Of a distribution that is averaged over by the midpoint rule.
MIDPOINTS = 1000
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
    """A mean of paired differences, its 95 % interval (NaN below two seeds), the seeds, and the images crossed with them."""

    effect: float
    low: float
    high: float
    n: int
    images: int | None = None


@dataclass(frozen=True)
class Grade:
    """A verdict, its reason in words, and the control that decides: the one that leaves the smallest effect."""

    grade: str
    reason: str
    control: str = ""


def interval(differences: NDArray[np.float64]) -> Interval:
    """Estimate the mean of paired differences, shape (S,) or (S, I), and its 95 % interval.

    Student's, crossed with the images where there are any; of one number a seed, from ten seeds on, a BCa bootstrap.
    """
    n, images = len(differences), differences.shape[1] if differences.ndim == 2 else None
    if n < 2:
        return Interval(float(differences.mean()) if n else float("nan"), float("nan"), float("nan"), n, images)
    mean = float(differences.mean())
    if np.ptp(differences) == 0:
        return Interval(mean, mean, mean, n, images)
    if images is None and n >= BOOTSTRAP_SEEDS:
        return Interval(mean, *_bootstrap(differences), n)
    half = float(_half_width(*variances(differences), n, images))
    return Interval(mean, mean - half, mean + half, n, images)


def _bootstrap(differences: NDArray[np.float64]) -> tuple[float, float]:
    from scipy import stats

    generator = np.random.default_rng(derive_seed("claims", "bootstrap"))
    found = stats.bootstrap((differences,), np.mean, confidence_level=LEVEL, method="BCa", random_state=generator)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def variances(differences: NDArray[np.float64]) -> tuple[float, float]:
    r"""Estimate the variance of the mean of differences, shape (S,) or (S, I), as the parts of the seeds and of the images.

    .. math:: \widehat{\operatorname{Var}}(\bar d) = \frac{M_a + M_b - M_e}{SI}, \qquad
        \mathrm E M_a = I\sigma_a^2 + \sigma_e^2, \quad \mathrm E M_b = S\sigma_b^2 + \sigma_e^2, \quad \mathrm E M_e = \sigma_e^2

    with the mean squares of seeds, images and interaction. The seeds' part is :math:`M_a/SI`, the square of Student's standard
    error over seeds; the images' part is :math:`(M_b - M_e)/SI`, an estimate of :math:`\sigma_b^2/I`, and 0 where that is negative.

    References:
        | Variance Components (Searle, Casella & McCulloch, 1992), section 4.3, https://doi.org/10.1002/9780470316856
    """
    seeds = len(differences)
    if differences.ndim == 1:
        return float(differences.var(ddof=1) / seeds), 0.0
    images = differences.shape[1]
    of_seeds, of_images = differences.mean(1), differences.mean(0)
    rest = differences - of_seeds[:, None] - of_images + differences.mean()
    within = float((rest**2).sum() / ((seeds - 1) * (images - 1)))
    between = seeds * float(of_images.var(ddof=1))
    return float(of_seeds.var(ddof=1) / seeds), max(between - within, 0.0) / (seeds * images)


def _half_width(
    of_seeds: NDArray[np.float64] | float, of_images: float, seeds: int, images: int | None
) -> NDArray[np.float64]:
    r"""Return half the length of the 95 % interval from the two parts of the variance.

    .. math:: \frac{v_a t_{S-1} + v_b t_{I-1}}{v_a + v_b} \sqrt{v_a + v_b}

    and no less than over the seeds alone. The approximation of Cochran and Cox: Student's points, weighted by the variances.
    Of three to ten seeds and 40 to 360 images, with the variance anywhere, it covers 94.7 to 97.3 % (simulated); with
    Satterthwaite's degrees of freedom 92.0 to 97.3 %, the least of three seeds.

    References:
        | SAS/STAT user's guide (2013), procedure TTEST, two-independent-sample design, COCHRAN
        | https://support.sas.com/documentation/cdl/en/statug/66859/HTML/default/statug_ttest_details14.htm
    """
    total = np.asarray(of_seeds + of_images)
    weighted = of_seeds * _student(seeds - 1) + (of_images * _student(images - 1) if images is not None else 0.0)
    crossed = np.divide(weighted, np.sqrt(total), out=np.zeros_like(total), where=total > 0)
    return np.maximum(crossed, _student(seeds - 1) * np.sqrt(of_seeds))


@cache
def _student(freedom: int) -> float:
    """Return the point of Student's distribution that the 95 % interval ends at."""
    from scipy import stats

    return float(stats.t.ppf((1 + LEVEL) / 2, freedom))


def grade(
    baseline: Interval, controls: Mapping[str, Interval], smallest_effect: float, absent: Sequence[str] = ()
) -> Grade:
    """Grade a claim, as :data:`MEANINGS` says.

    Arguments:
        baseline: the effect against the baseline.
        controls: the effect against each control, by name.
        smallest_effect: the smallest effect worth a claim, at least 0.
        absent: controls of which there is no run.
    """
    if baseline.n < FEWEST_SEEDS:
        return Grade(INCONCLUSIVE, f"{_seeds(baseline.n)}: at least {FEWEST_SEEDS} are needed")
    if baseline.high <= smallest_effect:
        return Grade(NOT_SHOWN, f"the interval ends at {baseline.high:.3g}, not above {smallest_effect:g}")
    if baseline.low < smallest_effect or baseline.low <= 0:
        more = "more seeds" if baseline.images is None else "more seeds or images"
        return Grade(INCONCLUSIVE, f"the interval lies on both sides of {smallest_effect:g}: {more} are needed")
    decided = {name: found for name, found in controls.items() if found.n >= FEWEST_SEEDS}
    smallest = min(decided, key=lambda name: decided[name].effect, default="")
    explaining = {name: found for name, found in decided.items() if found.low <= 0}
    if explaining:
        name = min(explaining, key=lambda name: explaining[name].effect)
        return Grade(EXPLAINED, f"shown against the baseline, but against {name} the interval reaches 0 or below", name)
    missing = [f"{name} ({_seeds(controls[name].n)})" for name in controls if name not in decided]
    if missing or absent:
        to_be_run = f"; controls to be run: {', '.join(missing)}" if missing else ""
        return Grade(INCONCLUSIVE, f"shown against the baseline{to_be_run}", smallest)
    return Grade(SHOWN, "better than the baseline" + (" and every control" if controls else ""), smallest)


def _seeds(n: int) -> str:
    return f"{n} seed" if n == 1 else f"{n} seeds"


def repeatability(
    found: str, against: NDArray[np.float64], controls: Sequence[NDArray[np.float64]], smallest_effect: float
) -> float:
    r"""Estimate how probably as many other seeds (and images) would be graded alike: the estimated-power approach.

    .. math:: P\big(\hat d' - h' > \delta\big)
        = \mathrm E_u\, \Phi\Big(\frac{\hat d - \delta - h(u v_a, v_b)}{\sqrt{v_a + v_b}}\Big),
        \qquad u \sim \chi^2_{S-1} / (S-1)

    with :math:`\delta` the smallest effect and h half the length of the interval, from the variance parts of seeds and images:
    the probability that the repetition's interval lies above :math:`\delta`, were the mean and the variances found the true
    ones. The images' part is as good as known, as they are many. For one number a seed it is a noncentral Student probability.
    There, from ten seeds on, the interval is the bootstrap's: in place of Student's point stands :math:`1.96\sqrt{(n-1)/n}`, its
    length for normal differences. Comparisons are taken as independent; they share the treatment, so this is a little too low
    for several controls.

    Arguments:
        found: the grade.
        against: differences from the baseline, shape (S,) or (S, I), S at least 3.
        controls: differences from each control, of such shapes; one with fewer than three seeds counts as not run.
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

    n, distance = len(differences), differences.mean() - bound
    if np.ptp(differences) == 0:
        return float(distance > 0)
    of_seeds, of_images = variances(differences)
    repeated = of_seeds * stats.chi2.ppf((np.arange(MIDPOINTS) + 0.5) / MIDPOINTS, n - 1) / (n - 1)
    if differences.ndim == 1 and n >= BOOTSTRAP_SEEDS:
        half = stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt(repeated * (n - 1) / n)
    else:
        half = _half_width(repeated, of_images, n, differences.shape[1] if differences.ndim == 2 else None)
    return float(stats.norm.cdf((distance - half) / np.sqrt(of_seeds + of_images)).mean())
