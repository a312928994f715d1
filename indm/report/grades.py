"""Grade effects: does a claim hold, is it the flow, and how probable is the same verdict in a rerun?"""

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
# Number of points at which a distribution is averaged, by the midpoint rule.
MIDPOINTS = 1000
NO_DATA = "no data"
SINGLE = "single training"
SHOWN = "shown"
CONTRADICTED = "contradicted"
NOT_TESTABLE = "not testable"
RULED_OUT = "ruled out"
INCONCLUSIVE = "inconclusive"
MATCHED = "matched"
BETTER = "control better"
BEYOND = "beyond every control"
OPEN = "open"
# The grades that name a control, which answer "no".
NAMES_CONTROL = (MATCHED, BETTER)
# Grades against a single control.
BEATEN = "beaten"
NOT_RUN = "not run"
# The meaning of each grade, by column of claims.csv. A row gets the first grade that applies.
MEANINGS = {
    "holds": {
        NO_DATA: "the suite has no such runs",
        SINGLE: f"fewer than {FEWEST_SEEDS} sound seeds: no verdict, because the variation between trainings is unknown",
        SHOWN: "the interval against the baseline lies above the smallest effect; for gaps, the baseline’s mean gap does, too",
        CONTRADICTED: "the interval against the baseline lies below 0; for gaps, the treatment’s mean gap lies above 0",
        NOT_TESTABLE: "the baseline’s mean gap is at most the smallest effect, so that no gain can exceed it",
        RULED_OUT: "the interval against the baseline ends at or below the smallest effect",
        INCONCLUSIVE: "any other case, also if it would be shown but the treatment fails on more seeds than the baseline",
    },
    "flow": {
        BETTER: "the interval against some control lies below 0; for gaps, the treatment’s mean gap lies above 0",
        MATCHED: "the interval against some control ends at or below the smallest effect",
        BEYOND: "the intervals against all controls lie above 0, for gaps the controls’ mean gaps do, too, and the treatment "
        "fails on no more seeds than any of them",
        OPEN: "any other case: some control was not run, or is not significantly different",
    },
}
# The second verdict, worded as an answer to "Is it the flow?"; the first two get their control.
IN_WORDS = {
    MATCHED: "no: matched",
    BETTER: "no: better",
    BEYOND: "yes: beyond every control",
    BEATEN: "yes: beaten",
    OPEN: "open",
    NOT_RUN: "not run",
}


def starred(grade: str, repeatability: float) -> str:
    """Write a grade, with a star if it is borderline."""
    return f"{grade}*" if repeatability < REPEATABLE else grade


def with_control(flow: str, control: str) -> str:
    """Write the second grade, with the control that matches the treatment or does better."""
    words = {MATCHED: f"{MATCHED} by {control}", BETTER: f"{control} does better"}
    return words.get(flow, flow)


class Verdict(NamedTuple):
    """A grade, its reason in words, and the control that decides."""

    grade: str
    reason: str
    control: str = ""


class Scale(NamedTuple):
    """The bounds with which an effect is graded.

    Arguments:
        smallest: the smallest effect worth a claim, at least 0.
        floor: the number below which a gain does not count, for means over seeds; ``None`` if gains always count.
    """

    smallest: float
    floor: float | None = None


class Effect(NamedTuple):
    """The effect against one model, and the numbers of failed seeds.

    Arguments:
        found: its interval.
        planned: number of seeds with which both models were trained.
        failed_treatment: number of these seeds that failed in the treatment.
        failed_against: number of these seeds that failed in the other model.
        treatment_low: lower end of the interval of the treatment's mean number, for a claim with a floor.
        against_low: lower end of the interval of the other model's mean number.
        against_high: upper end of that interval.
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
        """Whether enough seeds are sound in both models."""
        return self.found.n >= FEWEST_SEEDS


def effect_of(paired: Paired, scale: Scale, rows: int, controls: int = 1) -> Effect:
    """Return the effect against a model, with the interval that decides the verdict and is shown.

    Arguments:
        paired: the numbers of the two models.
        scale: the scale of the claim.
        rows: number of rows in the claim's family, for which the interval is corrected.
        controls: number of controls, for which the upper end is corrected too; 1 for the baseline.
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
    """Decide whether a claim holds, by the rules of :data:`MEANINGS`.

    Arguments:
        effect: the effect against the baseline.
        scale: the scale of the claim.
        of_baseline: a name for the baseline's mean number, such as "the gap of DDPM++".
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
    if is_worse(effect, scale):
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


def is_worse(effect: Effect, scale: Scale) -> bool:
    """Return whether the treatment is worse than the other model; a number counts down to the floor alone."""
    return effect.found.high < 0 and not (scale.floor is not None and effect.treatment_low <= scale.floor)


def of_control(effect: Effect, scale: Scale) -> str:
    """Grade the effect against one control."""
    if effect.planned < FEWEST_SEEDS:
        return NOT_RUN
    if not effect.is_known:
        return OPEN
    if effect.found.high <= scale.smallest:
        return BETTER if is_worse(effect, scale) else MATCHED
    counts = scale.floor is None or effect.against_low > scale.floor
    return BEATEN if effect.found.low > 0 and counts and not effect.fails_more else OPEN


def is_the_flow(controls: Mapping[str, Effect], scale: Scale) -> Verdict:
    """Decide whether the gain is the flow's, because no simpler model reaches it, by the rules of :data:`MEANINGS`.

    Arguments:
        controls: the effect against each control that the claim lists.
        scale: the scale of the claim.
    """
    graded = {name: of_control(effect, scale) for name, effect in controls.items()}
    for grade, where in ((BETTER, "below 0"), (MATCHED, f"not above {scale.smallest:g}")):
        if ends := {name: controls[name].found.high for name in graded if graded[name] == grade}:
            name = min(ends, key=ends.__getitem__)
            return Verdict(grade, f"the interval against {name} ends at {ends[name]:.3g}, {where}", name)
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
    r"""Estimate the probability of each grade in a rerun with new seeds (and images): the estimated-power approach.

    .. math:: P\big(\hat d' - h' > \delta\big)
        = \mathrm E_u\, \Phi\Big(\frac{\hat d - \delta - h(u v_a, v_b)}{\sqrt{v_a + v_b}}\Big),
        \qquad u \sim \chi^2_{S-1} / (S-1)

    with :math:`\delta` the smallest effect and h half the length of the interval, from the variance parts of seeds and images.
    This is the probability that the interval of a rerun, of the same size, lies above :math:`\delta` if the estimated mean and
    variances are the true ones. The images' part counts as known, because there are many images. With one number per seed, this is
    a noncentral Student probability. The conditions of a floor on the mean numbers are treated as independent of the effect. The
    rerun is assumed to have equally many failed seeds.

    Arguments:
        paired: the numbers of the treatment and the baseline, for at least three seeds.
        scale: the scale of the claim.
        rows: number of rows in the claim's family, for which the interval is corrected.

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
    """Return the probability that the interval of a rerun starts above one bound and ends at or below the other.

    Arguments:
        found: the estimate that is taken as the truth; the rerun has the same numbers of seeds and images.
        above: the bound above which the interval starts.
        by: the bound at or below which the interval ends.
        start: the tail probability below the interval.
        end: the tail probability above the interval.
    """
    if found.of_seeds + found.of_images == 0:
        return float(above < found.mean <= by)
    repeated = found._replace(of_seeds=found.of_seeds * _variances(found.seeds - 1))
    distances = by - half_width(repeated, end) - found.mean, above + half_width(repeated, start) - found.mean
    high, low = (special.ndtr(distance / np.sqrt(found.of_seeds + found.of_images)) for distance in distances)
    return float(np.maximum(high - low, 0).mean())


@cache
def _variances(freedom: int) -> Numbers:
    """Return estimates of a variance of 1, as points of equal probability from their distribution."""
    return 2 * special.gammaincinv(freedom / 2, (np.arange(MIDPOINTS) + 0.5) / MIDPOINTS) / freedom
