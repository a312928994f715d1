"""Grade a comparison in four words, and estimate how probable the same word is in a rerun, and how many seeds it needs."""

from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import special

from indm.report.differences import Paired
from indm.report.intervals import FEWEST_SEEDS, TAIL, Estimate, Interval, Numbers, estimate, half_width

BETTER, WORSE, NOT_BETTER, UNDECIDED = "better", "worse", "not better", "undecided"
# The meaning of each word, with the smallest effect δ. A comparison gets the first word that applies.
MEANINGS = {
    BETTER: "the interval lies above δ",
    WORSE: "the interval lies below −δ",
    NOT_BETTER: "the interval ends at or below δ",
    UNDECIDED: "the interval is too wide, the model that would lose failed on fewer seeds, fewer than "
    f"{FEWEST_SEEDS} seeds are sound, or a model was not run",
}
# Number of points at which a distribution is averaged, by the midpoint rule.
MIDPOINTS = 1000
# How many seeds are needed is computed for this power, if the true effect is this many times the smallest that counts.
POWER, ASSUMED, MOST_SEEDS = 0.8, 2, 50


class Verdict(NamedTuple):
    """A word, and its reason."""

    word: str
    reason: str


def grade(paired: Paired, found: Interval, smallest: float) -> Verdict:
    """Grade a comparison by the rules of :data:`MEANINGS`.

    A verdict against a model is withheld if this model failed on fewer seeds than the other one, because the seeds that failed
    are not in the interval.

    Arguments:
        paired: the numbers of both models.
        found: the interval of their mean difference, positive if the treatment is better.
        smallest: the smallest effect that counts, at least 0.
    """
    if not paired.planned:
        return Verdict(UNDECIDED, "not run")
    if found.n < FEWEST_SEEDS:
        return Verdict(UNDECIDED, f"{found.n} sound of {paired.planned} seeds, at least {FEWEST_SEEDS} are needed")
    more = np.sign(paired.failed_treatment - paired.failed_against)
    if found.low > smallest:
        return _unless(
            more > 0, "the treatment", Verdict(BETTER, f"the interval begins at {found.low:.3g}, above {smallest:g}")
        )
    if found.high < -smallest:
        reason = f"the interval ends at {found.high:.3g}, below {-smallest:zg}"
        return _unless(more < 0, "the other model", Verdict(WORSE, reason))
    if found.high <= smallest:
        reason = f"the interval ends at {found.high:.3g}, not above {smallest:g}"
        return _unless(more < 0, "the other model", Verdict(NOT_BETTER, reason))
    return Verdict(UNDECIDED, f"too wide: the interval lies on both sides of {smallest:g}")


def _unless(fails: bool, who: str, verdict: Verdict) -> Verdict:
    return Verdict(UNDECIDED, f"failures: {verdict.reason}, but {who} failed on more seeds") if fails else verdict


def repeatability(paired: Paired, smallest: float, tail: float = TAIL) -> dict[str, float]:
    r"""Estimate the probability of each word in a rerun with new seeds (and images): the estimated-power approach.

    .. math:: P\big(\hat d' - h' > \delta\big)
        = \mathrm E_u\, \Phi\Big(\frac{\hat d - \delta - h(u v_a, v_b)}{\sqrt{v_a + v_b}}\Big),
        \qquad u \sim \chi^2_{S-1} / (S-1)

    with :math:`\delta` the smallest effect and h half the length of the interval, from the variance parts of seeds and images.
    This is the probability that the interval of a rerun, of the same size, lies above :math:`\delta` if the estimated mean and
    variances are the true ones. The images' part counts as known, because there are many images. With one number per seed, this
    is a noncentral Student probability. The rerun is assumed to have equally many failed seeds.

    Arguments:
        paired: the numbers of both models, for at least three seeds.
        smallest: the smallest effect that counts.
        tail: tail probability on either side of the interval.

    Returns:
        A probability for each word; they sum to one.

    References:
        | Reproducibility probability in clinical trials (Shao & Chow, 2002), section 2
        | https://doi.org/10.1002/sim.1177
    """
    found = estimate(paired.differences)
    better = lies(found, above=smallest, tail=tail) * (paired.failed_treatment <= paired.failed_against)
    worse = lies(found, by=float(np.nextafter(-smallest, -np.inf)), tail=tail)
    by_smallest = lies(found, by=smallest, tail=tail)
    counts = paired.failed_against <= paired.failed_treatment
    probabilities = {BETTER: better, WORSE: worse * counts, NOT_BETTER: (by_smallest - worse) * counts}
    probabilities[UNDECIDED] = 1 - sum(probabilities.values())
    return {name: float(np.clip(probability, 0, 1)) for name, probability in probabilities.items()}


def lies(found: Estimate, above: float = -np.inf, by: float = np.inf, tail: float = TAIL) -> float:
    """Return the probability that the interval of a rerun starts above one bound and ends at or below the other.

    Arguments:
        found: the estimate, of a single mean, that is taken as the truth; the rerun has the same numbers of seeds and images.
        above: the bound above which the interval starts, in the unit of the mean.
        by: the bound at or below which the interval ends, in the same unit.
        tail: the tail probability on either side of the interval.
    """
    if found.of_seeds + found.of_images == 0:
        return float(above < found.mean <= by)
    half = half_width(found._replace(of_seeds=found.of_seeds * _variances(found.seeds - 1)), tail)
    error = np.sqrt(found.of_seeds + found.of_images)
    high, low = (special.ndtr(distance / error) for distance in (by - half - found.mean, above + half - found.mean))
    return float(np.maximum(high - low, 0).mean())


@cache
def _variances(freedom: int) -> Numbers:
    """Return estimates of a variance of 1, as points of equal probability from their distribution."""
    return 2 * special.gammaincinv(freedom / 2, (np.arange(MIDPOINTS) + 0.5) / MIDPOINTS) / freedom


def seeds_needed(differences: Numbers, smallest: float, tail: float = TAIL) -> str:
    r"""Return how many seeds show a true effect of twice the smallest with a power of 80 %, or why no number of them does.

    .. math:: P\big(\hat d - h > \delta\big), \qquad \operatorname{Var}(\hat d) = \frac{s^2}{S} + v_b,

    with s the observed standard deviation of the paired differences over seeds, and :math:`v_b` the variance from the images,
    which more seeds do not reduce. The observed effect is not used.

    Arguments:
        differences: paired differences of the seeds that have run, shape (S,) or (S, I).
        smallest: the smallest effect that counts, in the unit of the differences.
        tail: the tail probability on either side of an interval.

    Returns:
        The number of seeds; ``over`` and the largest number that is tried; ``more images``, if no number of seeds is enough; or
        ``unknown``, with fewer than two seeds or without a smallest effect.
    """
    if len(differences) < 2 or not smallest:
        return "unknown"
    found = estimate(differences)._replace(mean=ASSUMED * smallest)
    for seeds in range(FEWEST_SEEDS, MOST_SEEDS + 1):
        if lies(with_seeds(found, seeds), above=smallest, tail=tail) >= POWER:
            return str(seeds)
    images = differences.ndim == 2 and lies(found._replace(of_seeds=0.0), above=smallest, tail=tail) < POWER
    return "more images" if images else f"over {MOST_SEEDS}"


def with_seeds(found: Estimate, seeds: int) -> Estimate:
    """Return the estimate that another number of seeds with the same spread would give."""
    return found._replace(of_seeds=found.of_seeds * found.seeds / seeds, seeds=seeds)
