"""How a difference is graded: a verdict, Holm's adjustment, and how probably a repetition would give the verdict again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import special

from indm.report.intervals import FEWEST_SEEDS, TAIL, Estimate, Interval, Numbers, estimate, half_width, interval

# A verdict with a lower repeatability is called borderline.
REPEATABLE = 0.9
BORDERLINE = (
    f"rerunning with new seeds would change this verdict with a probability above {100 * (1 - REPEATABLE):.0f} %"
)
# Of a distribution that is averaged over by the midpoint rule.
MIDPOINTS = 1000
NO_DATA = "no data"
SINGLE = "single training"
SHOWN = "shown"
EXPLAINED = "explained by a control"
NOT_SEPARATED = "not separated from a control"
CONTRADICTED = "contradicted"
RULED_OUT = "ruled out"
INCONCLUSIVE = "inconclusive"
# What each grade means, wherever it is said. A row has the first that holds; :func:`grade` decides so.
MEANINGS = {
    NO_DATA: "the suite has no such runs",
    SINGLE: f"fewer than {FEWEST_SEEDS} seeds: nothing is known of other trainings, and nothing is decided",
    SHOWN: "the interval against the baseline lies above the smallest effect, those against all controls above 0; for a primary "
    "claim also after adjustment for their number (Holm)",
    EXPLAINED: "the interval against the baseline lies above the smallest effect, but that against some control ends at or below "
    "it",
    NOT_SEPARATED: "the interval against the baseline lies above the smallest effect, but that against some control reaches 0 or "
    "below, or the control was not run on 3 seeds",
    CONTRADICTED: "the interval against the baseline lies below 0",
    RULED_OUT: "the interval against the baseline ends at or below the smallest effect",
    INCONCLUSIVE: "none of these",
}


def starred(grade: str, repeatability: float) -> str:
    """Write a grade, with a star where it is borderline."""
    return f"{grade}*" if repeatability < REPEATABLE else grade


@dataclass(frozen=True)
class Grade:
    """A verdict, its reason in words, and the control that decides: the one that leaves the smallest effect."""

    grade: str
    reason: str
    control: str = ""


def grade(
    baseline: Interval,
    controls: Mapping[str, Interval],
    smallest_effect: float,
    absent: Sequence[str] = (),
    p_adjusted: float | None = None,
) -> Grade:
    """Grade a claim, as :data:`MEANINGS` says.

    Arguments:
        baseline: the effect against the baseline.
        controls: the effect against each control, by name, of :func:`control_intervals`.
        smallest_effect: the smallest effect worth a claim, at least 0.
        absent: controls of which there is no run.
        p_adjusted: p-value of a primary claim after Holm's adjustment; none of an exploratory one.
    """
    if baseline.n == 0:
        return Grade(NO_DATA, "no run of the baseline shares a seed with one of the treatment")
    if baseline.n < FEWEST_SEEDS:
        over = "" if baseline.images is None else "; the interval is over images, for these weights alone"
        return Grade(SINGLE, f"{_seeds(baseline.n)}: at least {FEWEST_SEEDS} are needed{over}")
    if baseline.ends < 0:
        return Grade(CONTRADICTED, f"the interval ends at {baseline.ends:.3g}, below 0")
    if baseline.ends <= smallest_effect:
        return Grade(RULED_OUT, f"the interval ends at {baseline.ends:.3g}, not above {smallest_effect:g}")
    if baseline.low <= smallest_effect:
        more = "more seeds" if baseline.images is None else "more seeds or images"
        return Grade(INCONCLUSIVE, f"the interval lies on both sides of {smallest_effect:g}: {more} are needed")
    return _controlled(controls, smallest_effect, absent, p_adjusted)


def control_intervals(controls: Mapping[str, Numbers], rows: int = 1) -> dict[str, Interval]:
    """Return the interval of the effect against each control.

    One control is enough to explain an effect, so they end as intervals of as many comparisons do as there are controls that
    were run, in as many rows of one family.
    """
    run = sum(len(control) >= FEWEST_SEEDS for control in controls.values())
    return {name: interval(control, rows * max(run, 1)) for name, control in controls.items()}


def _controlled(
    controls: Mapping[str, Interval], smallest_effect: float, absent: Sequence[str], p_adjusted: float | None
) -> Grade:
    """Grade a claim that is shown against the baseline by its controls."""
    run = {name: found for name, found in controls.items() if found.n >= FEWEST_SEEDS}
    strongest = min(run, key=lambda name: run[name].effect, default="")
    complete = len(run) == len(controls) and not absent
    beaten = complete and all(found.low > 0 for found in run.values())
    holds = p_adjusted is None or p_adjusted <= TAIL
    if beaten and holds:
        return Grade(SHOWN, _by_how_much(run, strongest, smallest_effect), strongest)
    explaining = {name: found for name, found in run.items() if found.ends <= smallest_effect}
    if explaining:
        name = min(explaining, key=lambda name: explaining[name].effect)
        return Grade(
            EXPLAINED, f"shown against the baseline, but of {name} at most {explaining[name].ends:.3g} is left", name
        )
    if beaten:
        reason = f"not shown after Holm's adjustment: p {p_adjusted:.3g}, above {TAIL:.3g}"
        return Grade(INCONCLUSIVE, reason, strongest)
    return _not_separated(controls, run, strongest)


def _by_how_much(run: Mapping[str, Interval], strongest: str, smallest_effect: float) -> str:
    if not run:
        return "better than the baseline"
    little = f"; than {strongest} by no more than {smallest_effect:g}" if run[strongest].ends <= smallest_effect else ""
    return f"better than the baseline and every control{little}"


def _not_separated(controls: Mapping[str, Interval], run: Mapping[str, Interval], strongest: str) -> Grade:
    few = [f"{name} ({_seeds(controls[name].n)})" for name in controls if name not in run]
    to_be_run = f"; controls to be run: {', '.join(few)}" if few else ""
    close = [name for name, found in run.items() if found.low <= 0]
    undecided = f", but not separated from {', '.join(close)}" if close else ""
    return Grade(NOT_SEPARATED, f"shown against the baseline{undecided}{to_be_run}", strongest)


def _seeds(n: int) -> str:
    return f"{n} seed" if n == 1 else f"{n} seeds"


def holm(p_values: Sequence[float]) -> list[float]:
    r"""Adjust p-values of one family for their number, so that the rows found wrongly are few in all.

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min\big(1, (m - j + 1)\, p_{(j)}\big)

    References:
        | A Simple Sequentially Rejective Multiple Test Procedure (Holm, 1979), https://www.jstor.org/stable/4615733
    """
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values, kind="stable")
    adjusted = np.empty(len(values))
    adjusted[order] = np.maximum.accumulate(np.minimum(1, (len(values) - np.arange(len(values))) * values[order]))
    return [float(value) for value in adjusted]


def holm_tail(others: Sequence[float]) -> float:
    """Return the largest p-value that Holm's adjustment leaves at most 0.025 beside the others of its family."""
    passed = 0
    for p in sorted(others):
        if p > TAIL / (len(others) + 1 - passed):
            break
        passed += 1
    return TAIL / (len(others) + 1 - passed)


def repeatability(
    against: Numbers, controls: Sequence[Numbers], smallest_effect: float, tail: float = TAIL, rows: int = 1
) -> dict[str, float]:
    r"""Estimate how probably as many other seeds (and images) would be given each grade: the estimated-power approach.

    .. math:: P\big(\hat d' - h' > \delta\big)
        = \mathrm E_u\, \Phi\Big(\frac{\hat d - \delta - h(u v_a, v_b)}{\sqrt{v_a + v_b}}\Big),
        \qquad u \sim \chi^2_{S-1} / (S-1)

    with :math:`\delta` the smallest effect and h half the length of the interval, from the variance parts of seeds and images:
    the probability that the repetition's interval lies above :math:`\delta`, if the mean and the variances found are the true
    ones. The images' part is as good as known, as they are many. For one number per seed it is a noncentral Student probability.
    Comparisons are taken as independent; they share the treatment, so this is somewhat too low for several controls.

    Arguments:
        against: differences from the baseline, shape (S,) or (S, I), S at least 3.
        controls: differences from each control, of such shapes; one with fewer than three seeds counts as not run.
        smallest_effect: the smallest effect worth a claim.
        tail: what a p-value must be at most for ``shown``, the other rows of its family being as they are.
        rows: of the family, for which intervals end together.

    Returns:
        A probability for each grade that three seeds can have; they sum to one.

    References:
        | Reproducibility probability in clinical trials (Shao & Chow, 2002), section 2
        | https://doi.org/10.1002/sim.1177
    """
    found, others = estimate(against), [estimate(control) for control in controls if len(control) >= FEWEST_SEEDS]
    complete = len(others) == len(controls)
    above, end = lies(found, smallest_effect), TAIL / rows
    below = lies(found, by=float(np.nextafter(0, -1)), end=end)
    of_controls = end / max(len(others), 1)
    # All intervals lie where they must at 0.025, and where p must be at most `tail`; in `wide`, no control explains.
    shown = complete * _all_above(found, others, smallest_effect, tail)
    wide, wide_shown = (complete * _all_above(found, others, smallest_effect, one, of_controls) for one in (TAIL, tail))
    explains = 1 - float(np.prod([1 - lies(one, by=smallest_effect, end=of_controls) for one in others]))
    explained = above * explains - (shown - wide_shown)
    probabilities = {
        SHOWN: shown,
        EXPLAINED: explained,
        NOT_SEPARATED: above - explained - shown - (wide - wide_shown),
        CONTRADICTED: below,
        RULED_OUT: lies(found, by=smallest_effect, end=end) - below,
    }
    probabilities[INCONCLUSIVE] = 1 - sum(probabilities.values())
    return {name: float(np.clip(probability, 0, 1)) for name, probability in probabilities.items()}


def _all_above(
    found: Estimate, controls: Sequence[Estimate], smallest_effect: float, tail: float, end: float | None = None
) -> float:
    """Probability that the intervals of a repetition all start above; with ``end``, that no control explains besides."""
    least = [lies(control, 0.0, start=tail) for control in controls]
    if end is not None:
        within = [lies(control, 0.0, smallest_effect, tail, end) for control in controls]
        least = [one - other for one, other in zip(least, within, strict=True)]
    return lies(found, smallest_effect, start=tail) * float(np.prod(least))


def lies(found: Estimate, above: float = -np.inf, by: float = np.inf, start: float = TAIL, end: float = TAIL) -> float:
    """Probability that the interval of a repetition starts above one bound and ends by the other.

    Arguments:
        found: what is taken for the truth; its seeds and images are the repetition's.
        above: where it starts above.
        by: where it ends by.
        start: what it leaves out below.
        end: what it leaves out above.
    """
    if found.of_seeds + found.of_images == 0:
        return float(above < found.mean <= by)
    repeated = found._replace(of_seeds=found.of_seeds * _variances(found.seeds - 1))
    distances = by - half_width(repeated, end) - found.mean, above + half_width(repeated, start) - found.mean
    high, low = (special.ndtr(distance / np.sqrt(found.of_seeds + found.of_images)) for distance in distances)
    return float(np.maximum(high - low, 0).mean())


@cache
def _variances(freedom: int) -> Numbers:
    """Return how large variances of 1 are estimated: points of equal probability of the distribution."""
    return 2 * special.gammaincinv(freedom / 2, (np.arange(MIDPOINTS) + 0.5) / MIDPOINTS) / freedom
