"""How an effect is graded: whether a claim holds, whether it is the flow, and how probably a repetition would say so again."""

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import special

from indm.report.differences import Paired
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
CONTRADICTED = "contradicted"
NOT_TESTABLE = "not testable"
RULED_OUT = "ruled out"
INCONCLUSIVE = "inconclusive"
MATCHED = "matched"
BEYOND = "beyond every control"
OPEN = "open"
# Of one control alone.
BEATEN = "beaten"
NOT_RUN = "not run"
# What each grade means, wherever it is said, by the column of claims.csv. A row has the first that holds.
MEANINGS = {
    "holds": {
        NO_DATA: "the suite has no such runs",
        SINGLE: f"fewer than {FEWEST_SEEDS} sound seeds: too few to predict other trainings, so that the claim is not decided",
        SHOWN: "the interval against the baseline lies above the smallest effect; for gaps, the baseline’s mean gap does, too",
        CONTRADICTED: "the interval against the baseline lies below 0; for gaps, the treatment’s mean gap lies above 0",
        NOT_TESTABLE: "the baseline’s mean gap is at most the smallest effect, so that no gain can exceed it",
        RULED_OUT: "the interval against the baseline ends at or below the smallest effect",
        INCONCLUSIVE: "any other case, also if it would be shown but the treatment fails on more seeds than the baseline",
    },
    "flow": {
        MATCHED: "the interval against some control ends at or below the smallest effect",
        BEYOND: "the intervals against all controls lie above 0, for gaps the controls’ mean gaps do, too, and the treatment "
        "fails on no more seeds than any of them",
        OPEN: "any other case: some control was not run, or is not significantly different",
    },
}
# The second verdict as an answer: whether it is the flow.
IN_WORDS = {
    MATCHED: "no: matched",
    BEYOND: "yes: beyond every control",
    BEATEN: "yes: beaten",
    OPEN: "open",
    NOT_RUN: "not run",
}


def starred(grade: str, repeatability: float) -> str:
    """Write a grade, with a star where it is borderline."""
    return f"{grade}*" if repeatability < REPEATABLE else grade


def matched_by(flow: str, control: str) -> str:
    """Write the second grade, with the control that it names."""
    return f"{flow} by {control}" if flow == MATCHED else flow


class Verdict(NamedTuple):
    """A grade, its reason in words, and the control that decides."""

    grade: str
    reason: str
    control: str = ""


class Scale(NamedTuple):
    """What an effect is measured by.

    Arguments:
        smallest: the smallest effect worth a claim, at least 0.
        floor: down to which a gain counts, on means over seeds; ``None`` where it always counts.
    """

    smallest: float
    floor: float | None = None


class Effect(NamedTuple):
    """The effect against one arm, and what is known of the seeds that failed.

    Arguments:
        found: its interval.
        planned: how many seeds both arms were trained with.
        failed_treatment: how many of them failed in the treatment.
        failed_against: how many in the other arm.
        treatment_low: where the interval of the treatment's mean number begins, of a claim with a floor.
        against_low: where the interval of the other arm's mean begins.
        against_high: where it ends.
    """

    found: Interval
    planned: int
    failed_treatment: int = 0
    failed_against: int = 0
    treatment_low: float = float("nan")
    against_low: float = float("nan")
    against_high: float = float("nan")

    @property
    def fails_more(self) -> bool:
        """Whether the treatment failed on more of the planned seeds."""
        return self.failed_treatment > self.failed_against

    @property
    def is_known(self) -> bool:
        """Whether enough seeds are sound in both arms."""
        return self.found.n >= FEWEST_SEEDS


def effect_of(paired: Paired, scale: Scale, rows: int, controls: int = 1) -> Effect:
    """Return the effect against an arm, with the one interval that decides and is shown.

    Arguments:
        paired: the numbers of the two arms.
        scale: of the claim.
        rows: of the claim's family, of which any may be decided.
        controls: of which any may match the treatment, for an effect against one of them.
    """
    tail = TAIL / rows
    found = Effect(
        interval(paired.differences, tail, tail / max(controls, 1)),
        paired.planned,
        paired.failed_treatment,
        paired.failed_against,
    )
    if scale.floor is None:
        return found
    treatment, against = (interval(numbers, tail, tail) for numbers in (paired.treatment, paired.against))
    return found._replace(treatment_low=treatment.low, against_low=against.low, against_high=against.high)


def holds(effect: Effect, scale: Scale, of_baseline: str = "the number of the baseline") -> Verdict:
    """Say whether a claim holds, as :data:`MEANINGS` says.

    Arguments:
        effect: against the baseline.
        scale: of the claim.
        of_baseline: names the baseline's mean number: the gap of DDPM++.
    """
    found, smallest = effect.found, scale.smallest
    if effect.planned == 0:
        return Verdict(NO_DATA, "no run of the baseline shares a seed with one of the treatment")
    if not effect.is_known:
        over = "; the interval is over images, for these weights alone" if found.images is not None and found.n else ""
        return Verdict(SINGLE, f"{seeds(found.n)}: at least {FEWEST_SEEDS} are needed{over}")
    has_floor, above = scale.floor is not None, found.low > smallest
    if above and not (has_floor and effect.against_low <= smallest):
        if effect.fails_more:
            return Verdict(INCONCLUSIVE, "it would be shown, but the treatment fails on more seeds than the baseline")
        lower = f", and {of_baseline} is at least {effect.against_low:.3g}" if has_floor else ""
        return Verdict(SHOWN, f"the interval begins at {found.low:.3g}, above {smallest:g}{lower}")
    if found.high < 0 and not (scale.floor is not None and effect.treatment_low <= scale.floor):
        return Verdict(CONTRADICTED, f"the interval ends at {found.high:.3g}, below 0")
    if has_floor and effect.against_high <= smallest:
        ceiling = f"{of_baseline} is at most {effect.against_high:.3g}"
        return Verdict(NOT_TESTABLE, f"{ceiling}, so no gain can exceed the smallest effect of {smallest:g}")
    if found.high <= smallest:
        return Verdict(RULED_OUT, f"the interval ends at {found.high:.3g}, not above {smallest:g}")
    more = "more seeds" if found.images is None else "more seeds or images"
    if above:
        return Verdict(INCONCLUSIVE, f"{of_baseline} may be as small as {effect.against_low:.3g}: {more} are needed")
    return Verdict(INCONCLUSIVE, f"the interval lies on both sides of {smallest:g}: {more} are needed")


def of_control(effect: Effect, scale: Scale) -> str:
    """Say what came out against one control."""
    if effect.planned < FEWEST_SEEDS:
        return NOT_RUN
    if not effect.is_known:
        return OPEN
    if effect.found.high <= scale.smallest:
        return MATCHED
    counts = scale.floor is None or effect.against_low > scale.floor
    return BEATEN if effect.found.low > 0 and counts and not effect.fails_more else OPEN


def is_the_flow(controls: Mapping[str, Effect], scale: Scale) -> Verdict:
    """Say whether what the treatment gains is the flow's, and no simpler model gains as much, as :data:`MEANINGS` says.

    Arguments:
        controls: the effect against each control that the claim lists.
        scale: of the claim.
    """
    graded = {name: of_control(effect, scale) for name, effect in controls.items()}
    matching = [name for name, grade in graded.items() if grade == MATCHED]
    if matching:
        name = min(matching, key=lambda name: controls[name].found.high)
        ends = f"the interval against {name} ends at {controls[name].found.high:.3g}"
        return Verdict(MATCHED, f"{ends}, not above {scale.smallest:g}", name)
    known = [name for name in controls if controls[name].is_known]
    closest = min(known, key=lambda name: controls[name].found.effect, default="")
    if all(grade == BEATEN for grade in graded.values()):
        return Verdict(BEYOND, f"better than every control, and least so than {closest}", closest)
    few = {name: effect.found.n for name, effect in controls.items() if not effect.is_known}
    not_run = [f"{name} ({seeds(n)})" if n else name for name, n in few.items()]
    close = [name for name, grade in graded.items() if grade == OPEN and name not in few]
    failing = [name for name in close if controls[name].fails_more and controls[name].found.low > 0]
    undecided = [name for name in close if name not in failing]
    parts = {"to be run": not_run, "not separated from": undecided, "fails on more seeds than": failing}
    return Verdict(OPEN, "; ".join(f"{said}: {', '.join(which)}" for said, which in parts.items() if which), closest)


def seeds(n: int) -> str:
    """Write how many sound seeds there are."""
    return f"{n} sound seed" if n == 1 else f"{n} sound seeds"


def repeatability(paired: Paired, scale: Scale, rows: int = 1) -> dict[str, float]:
    r"""Estimate how probably as many other seeds (and images) would be given each grade: the estimated-power approach.

    .. math:: P\big(\hat d' - h' > \delta\big)
        = \mathrm E_u\, \Phi\Big(\frac{\hat d - \delta - h(u v_a, v_b)}{\sqrt{v_a + v_b}}\Big),
        \qquad u \sim \chi^2_{S-1} / (S-1)

    with :math:`\delta` the smallest effect and h half the length of the interval, from the variance parts of seeds and images:
    the probability that the repetition's interval lies above :math:`\delta`, if the mean and the variances found are the true
    ones. The images' part is as good as known, as they are many. For one number per seed it is a noncentral Student probability.
    What a floor asks of the mean numbers is taken as independent of the effect. As many seeds fail again.

    Arguments:
        paired: the numbers of the treatment and the baseline, of at least three seeds.
        scale: of the claim.
        rows: of the family, which are decided together.

    Returns:
        A probability for each grade that three seeds can have; they sum to one.

    References:
        | Reproducibility probability in clinical trials (Shao & Chow, 2002), section 2
        | https://doi.org/10.1002/sim.1177
    """
    found, tail, smallest = estimate(paired.differences), TAIL / rows, scale.smallest
    shown = lies(found, above=smallest, start=tail)
    contradicted = lies(found, by=float(np.nextafter(0, -1)), end=tail)
    small = lies(found, by=smallest, end=tail)
    ceiling = 0.0
    if scale.floor is not None:
        treatment, against = estimate(paired.treatment), estimate(paired.against)
        shown *= lies(against, above=smallest, start=tail)
        contradicted *= lies(treatment, above=scale.floor, start=tail)
        ceiling = lies(against, by=smallest, end=tail)
    shown *= paired.failed_treatment <= paired.failed_against
    probabilities = {
        SHOWN: shown,
        CONTRADICTED: contradicted,
        NOT_TESTABLE: ceiling * (1 - contradicted),
        RULED_OUT: (small - contradicted) * (1 - ceiling),
    }
    probabilities[INCONCLUSIVE] = 1 - sum(probabilities.values())
    return {name: float(np.clip(probability, 0, 1)) for name, probability in probabilities.items()}


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
