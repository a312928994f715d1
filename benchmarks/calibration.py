"""How often a suite's verdicts are wrong: planted truths, graded by the suite's own functions.

``python -m benchmarks.calibration`` writes ``docs/calibration.csv`` and prints the table of ``docs/verdict-errors.md``; it takes
about six minutes on one core. All numbers are in smallest effects.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special
from tabulate import tabulate

from indm.report.grades import (
    BETTER,
    BEYOND,
    CONTRADICTED,
    MATCHED,
    NOT_TESTABLE,
    RULED_OUT,
    SHOWN,
    Effect,
    Scale,
    holds,
    is_the_flow,
    of_control,
)
from indm.report.intervals import TAIL, Estimate, Interval, Numbers, half_width
from indm.suite.claims import load_claims
from tests.checkout import REPOSITORY

SEEDS = (3, 4, 5, 6, 8, 12, 20, 30)
IMAGES = 360
# Standard deviations of paired differences: over seeds, over images, and the interaction of the two.
OVER_SEEDS, OVER_IMAGES, INTERACTION = 0.7, 5.0, 4.0
# Of the numbers of two rows: they are of the same runs.
CORRELATION = 0.5
# The share of an arm's seeds that fail, and by how much the number of one is higher where the failure is not detected.
FAILING, WORSE = 0.2, 10.0
# Of the variance over seeds: what all seeds share.
OFFSET = 0.1
TREATMENT, BASELINE, FIRST_CONTROL = range(3)
# Above the smallest effect by so little, it is wrong to rule an effect out, or to say that a control matches.
HAIR = 1 + 1e-9
BATCH = 2500
# What rates are of, if not of rows that are decided alone, as exploratory ones are.
SUITE = "suite"
OUT = REPOSITORY / "docs/calibration.csv"

Flags = NDArray[np.bool_]
Distort = Callable[[np.random.Generator, Numbers], Numbers]


class Nuisance(NamedTuple):
    """What disturbs the seeds' effects, of shape (suites, rows, arms, S), and the arm whose seeds fail as defined beforehand."""

    distort: Distort = lambda generator, normal: normal
    failing: int | None = None


def unequal(_: np.random.Generator, normal: Numbers) -> Numbers:
    normal[:, :, TREATMENT] *= 3
    return normal


def heavy(generator: np.random.Generator, normal: Numbers) -> Numbers:
    """Return Student's numbers of three degrees of freedom and variance 1."""
    return normal / np.sqrt(generator.chisquare(3, normal[:, :1].shape))


def exponential(_: np.random.Generator, normal: Numbers) -> Numbers:
    return -special.log_ndtr(-normal) - 1


def exponential_treatment(_: np.random.Generator, normal: Numbers) -> Numbers:
    normal[:, :, TREATMENT] = exponential(_, normal[:, :, TREATMENT])
    return normal


def offset(generator: np.random.Generator, normal: Numbers) -> Numbers:
    return np.sqrt(1 - OFFSET) * normal + np.sqrt(OFFSET) * generator.normal(size=(*normal.shape[:-1], 1))


def undetected(arm: int) -> Distort:
    """Let some seeds of an arm end worse, so that the mean over all seeds is as planted."""

    def distort(generator: np.random.Generator, normal: Numbers) -> Numbers:
        failed = generator.random(normal[:, :1, arm].shape) < FAILING
        normal[:, :, arm] += WORSE / (OVER_SEEDS / np.sqrt(2)) * (failed - FAILING)
        return normal

    return distort


NUISANCES = {
    "normal": Nuisance(),
    "unequal variances": Nuisance(unequal),
    "heavy tails": Nuisance(heavy),
    "skewed": Nuisance(exponential),
    "skewed in INDM only": Nuisance(exponential_treatment),
    "failures in INDM": Nuisance(failing=TREATMENT),
    "failures in DDPM++": Nuisance(failing=BASELINE),
    "undetected failures in INDM": Nuisance(undetected(TREATMENT)),
    "undetected failures in DDPM++": Nuisance(undetected(BASELINE)),
    "shared offset": Nuisance(offset),
}


class Truth(NamedTuple):
    """The true means of all rows: INDM, DDPM++, the first control, the other controls."""

    treatment: float
    baseline: float
    first: float
    others: float


TRUTHS = {
    "no effect": Truth(3, 3, 3, 3),
    "at the threshold": Truth(3, 4, 4, 4),
    "a hair above the threshold": Truth(3, 3 + HAIR, 3 + HAIR, 3 + HAIR),
    "twice the threshold": Truth(3, 5, 5, 5),
    "matched by one control": Truth(3, 7, 3, 7),
    "matched by every control": Truth(3, 7, 3, 3),
    "one control leaves a hair more": Truth(3, 7, 3 + HAIR, 7),
    "every control leaves a hair more": Truth(3, 7, 3 + HAIR, 3 + HAIR),
    "DDPM++ below the floor": Truth(0, -5, -5, -5),
    "INDM below the floor": Truth(-5, 1, 0, 5),
    "DDPM++ a hair above the ceiling": Truth(0, HAIR, HAIR, HAIR),
    "DDPM++ a hair below the ceiling": Truth(-5, 2 - HAIR, 2 - HAIR, 2 - HAIR),
}


class Row(NamedTuple):
    """A primary row: its metric, whether it is of single images, from where a gain counts, and how many controls it has."""

    metric: str
    objective: str
    of_images: bool
    floor: float | None
    controls: int


def primary() -> list[Row]:
    """Return the primary rows of a suite of digits with both objectives."""
    found = load_claims(REPOSITORY / "params/claims.yaml").claims
    return [
        Row(claim.metric.name, objective, claim.metric.stage in ("nll", "curve"), claim.floor, len(claim.controls))
        for claim in found
        for objective in claim.where.objectives
        if claim.family == "primary" and "digits" in claim.where.datasets
    ]


class Runs(NamedTuple):
    """The numbers of the runs of many suites, all of mean 0.

    Arguments:
        seeds: effects of the seeds, shape (suites, rows, arms, S).
        luck: means of the images' effects, which all seeds share, shape (suites, rows, arms).
        sound: which seeds have not failed, shape (suites, arms, S).
    """

    seeds: Numbers
    luck: Numbers
    sound: Flags


def draw_runs(
    generator: np.random.Generator, shape: tuple[int, int, int, int], nuisance: Nuisance = NUISANCES["normal"]
) -> Runs:
    """Draw runs: rows are correlated, arms are independent.

    Arguments:
        generator: of the numbers.
        shape: suites, rows, arms and seeds.
        nuisance: what disturbs the seeds.
    """
    suites, _, arms, n = shape
    seeds = nuisance.distort(generator, correlated(generator, shape)) * OVER_SEEDS / np.sqrt(2)
    luck = correlated(generator, shape[:3]) * OVER_IMAGES / np.sqrt(2 * IMAGES)
    sound = np.ones((suites, arms, n), bool)
    if nuisance.failing is not None:
        sound[:, nuisance.failing] = generator.random((suites, n)) >= FAILING
    return Runs(seeds, luck, sound)


def correlated(generator: np.random.Generator, shape: tuple[int, ...]) -> Numbers:
    """Draw normal numbers of variance 1 that are correlated over the second dimension."""
    common = generator.normal(size=(shape[0], 1, *shape[2:]))
    return np.sqrt(CORRELATION) * common + np.sqrt(1 - CORRELATION) * generator.normal(size=shape)


def mean_of(generator: np.random.Generator, runs: Runs, place: tuple[int, bool], sound: Flags, *arms: int) -> Estimate:
    """Estimate the mean of an arm's numbers, or of those less another's, over sound seeds, shape (suites, S).

    The mean squares of the images and of the interaction are drawn as they are distributed, each apart.

    Arguments:
        generator: of the mean squares.
        runs: the numbers.
        place: which row of the runs, and whether it is of single images.
        sound: the seeds.
        arms: the arm, and the one that is taken away.
    """
    (row, of_images), n = place, sound.shape[1]
    seeds, luck = (
        part[:, row, arms[0]] - sum(part[:, row, arm] for arm in arms[1:]) for part in (runs.seeds, runs.luck)
    )
    # Where no seed failed, their number is one, and so is the point of Student's distribution.
    count: Any = n if sound.all() else sound.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (seeds * sound).sum(1) / count
        of_seeds = (((seeds - mean[:, None]) * sound) ** 2).sum(1) / (count - 1) / count
        if not of_images:
            return Estimate(mean, of_seeds, 0.0, count)
        between, within = (
            square * len(arms) / 2 * generator.chisquare(freedom, len(seeds)) / freedom
            for square, freedom in (
                (count * OVER_IMAGES**2 + INTERACTION**2, IMAGES - 1),
                (INTERACTION**2, (n - 1) * (IMAGES - 1)),
            )
        )
        return Estimate(mean + luck, of_seeds, np.maximum(between - within, 0) / (count * IMAGES), count, IMAGES)


def effect(generator: np.random.Generator, runs: Runs, row: int, of: Row, other: int, rows: int) -> Effect:
    """Return the effects of all suites against an arm: an :class:`Effect` whose parts are arrays."""
    tail = TAIL / rows
    sound = runs.sound[:, TREATMENT] & runs.sound[:, other]

    def ends(*arms: int, above: float = tail) -> Interval:
        found = mean_of(generator, runs, (row, of.of_images), sound, *arms)
        half, longer = (half_width(found, beyond) for beyond in (tail, above))
        return Interval(found.mean, found.mean - half, found.mean + longer, sound.sum(1))

    found = ends(other, TREATMENT, above=tail if other == BASELINE else tail / of.controls)
    failed = [(~runs.sound[:, arm]).sum(1) for arm in (TREATMENT, other)]
    effects = Effect(found, runs.sound.shape[2], *failed)
    if of.floor is None:
        return effects
    treatment, against = ends(TREATMENT), ends(other)
    return effects._replace(treatment_low=treatment.low, against_low=against.low, against_high=against.high)


def plant(found: Effect, treatment: float, other: float) -> Effect:
    """Add true means to the effects against an arm."""
    interval = found.found
    gain = other - treatment
    return found._replace(
        found=interval._replace(effect=interval.effect + gain, low=interval.low + gain, high=interval.high + gain),
        treatment_low=found.treatment_low + treatment,
        against_low=found.against_low + other,
        against_high=found.against_high + other,
    )


def nth(found: Effect, suite: int) -> Effect:
    """Return the effect of one suite."""

    def pick(part: Any) -> Any:
        return part[suite] if np.ndim(part) else part

    return Effect(Interval(*map(pick, found.found)), *map(pick, found[1:]))


def kinds(found: Effect) -> NDArray[np.int64]:
    """Number the suites so that those of one number are graded alike: their ends lie on the same sides of 0 and 1."""
    ends = np.broadcast_arrays(*found.found[1:3], *found[4:])
    sides = [*np.searchsorted([0.0, 1.0], ends), found.is_known, found.fails_more]
    kind: NDArray[np.int64] = np.ravel_multi_index(np.array(sides, int), (3,) * len(ends) + (2, 2))
    return kind


def once(kind: NDArray[np.int64], grade: Callable[[int], str]) -> NDArray[np.str_]:
    """Grade the first suite of each kind, for all suites of its kind."""
    _, first, inverse = np.unique(kind, return_index=True, return_inverse=True)
    return np.array([grade(suite) for suite in first.tolist()])[inverse]


def grade_control(effects: Effect, scale: Scale, suite: int) -> str:
    return of_control(nth(effects, suite), scale)


class Graded(NamedTuple):
    """The grades of a row in many suites, shape (suites), and those of its controls, shape (controls, suites)."""

    holds: NDArray[np.str_]
    flow: NDArray[np.str_]
    controls: NDArray[np.str_]


def grade_row(effects: list[Effect], row: Row, truth: Truth) -> Graded:
    """Grade a row of many suites whose true means are these, from its effects against the baseline and the controls."""
    levels = [truth.baseline, truth.first, *[truth.others] * (row.controls - 1)]
    scale = Scale(1.0, row.floor)
    baseline, *controls = (plant(one, truth.treatment, level) for one, level in zip(effects, levels, strict=True))
    of_controls = np.array([once(kinds(one), partial(grade_control, one, scale)) for one in controls])
    # Whether it is the flow depends on which grades its controls have.
    _, numbers = np.unique(of_controls, return_inverse=True)
    present = np.bitwise_or.reduce(1 << numbers.reshape(of_controls.shape), axis=0)
    flow = once(present, lambda i: is_the_flow({str(k): nth(one, i) for k, one in enumerate(controls)}, scale).grade)
    return Graded(once(kinds(baseline), lambda i: holds(nth(baseline, i), scale).grade), flow, of_controls)


def gain(row: Row, treatment: float, other: float) -> float:
    """Return the true gain over an arm, which counts down to the floor."""
    least = -np.inf if row.floor is None else row.floor
    return max(other, least) - max(treatment, least)


# In which ways a row can be wrong: what is said of it that is not true.
WRONG = ("shown", "ruled out or contradicted", "not testable", "matched", "beyond")


def wrong(found: Graded, row: Row, truth: Truth) -> Flags:
    """Say which suites are wrong about a row in each way of :data:`WRONG`, shape (5, suites)."""
    of_baseline, first, others = (gain(row, truth.treatment, other) for other in truth[1:])
    gains = np.array([first, *[others] * (row.controls - 1)])
    return np.array(
        [
            (found.holds == SHOWN) & (of_baseline <= 1),
            (found.holds == RULED_OUT) & (of_baseline > 1) | (found.holds == CONTRADICTED) & (of_baseline >= 0),
            (found.holds == NOT_TESTABLE) & (truth.baseline > 1),
            (
                (found.controls == MATCHED) & (gains > 1)[:, None] | (found.controls == BETTER) & (gains >= 0)[:, None]
            ).any(0),
            (found.flow == BEYOND) & (gains.min() <= 0),
        ]
    )


def shares(generator: np.random.Generator, suites: int, n: int, nuisance: Nuisance) -> dict[tuple[str, str], Numbers]:
    """Return the shares that are wrong in each way, by what they are shares of, and by the truth."""
    rows = primary()
    found: dict[tuple[str, str], list[Flags]] = {}
    for objective in dict.fromkeys(row.objective for row in rows):
        here = [row for row in rows if row.objective == objective]
        runs = draw_runs(generator, (suites, len(here), 2 + max(row.controls for row in here), n), nuisance)
        for i, row in enumerate(here):
            for of, family in ((SUITE, len(rows)), (row.metric, 1)):
                effects = [effect(generator, runs, i, row, arm, family) for arm in range(1, 2 + row.controls)]
                for name, truth in TRUTHS.items():
                    flags = wrong(grade_row(effects, row, truth), row, truth)
                    found.setdefault((of, name), []).append(flags)
    return {
        (of, name): (np.any(flags, axis=0) if of == SUITE else np.concatenate(flags, axis=1)).mean(1)
        for (of, name), flags in found.items()
    }


def rates(suites: int, n: int, nuisance: str) -> list[dict[str, Any]]:
    """Return how often, in percent, suites are wrong about any primary row, and how often one row is that is decided alone."""
    generator = np.random.default_rng([n, [*NUISANCES].index(nuisance)])
    sizes = [min(BATCH, suites - done) for done in range(0, suites, BATCH)]
    batches = [shares(generator, size, n, NUISANCES[nuisance]) for size in sizes]
    return [
        {"of": of, "numbers": nuisance, "truth": truth, "wrongly": way, "seeds": n, "rate": 100 * rate}
        for of, truth in batches[0]
        for way, rate in zip(
            WRONG, np.average([batch[of, truth] for batch in batches], axis=0, weights=sizes), strict=True
        )
    ]


def tabulated(rates: list[dict[str, Any]]) -> pd.DataFrame:
    """Lay rates out: one column per number of seeds; without rows of zeros."""
    wide = pd.DataFrame(rates).pivot_table("rate", ["of", "numbers", "truth", "wrongly"], "seeds", sort=False)
    return wide[(wide > 0).any(axis=1)].reset_index()


def largest(found: pd.DataFrame) -> str:
    """Write the largest rates of suites over truths and ways to be wrong: a table of Markdown."""
    seeds = [*found.columns[4:]]
    suites = found[found["of"] == SUITE].groupby("numbers", sort=False)[seeds].max().reset_index()
    return tabulate(suites, ["seeds", *seeds], "github", floatfmt=".1f", showindex=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suites", type=int, default=20_000)
    options = parser.parse_args()
    found = tabulated([row for name in NUISANCES for n in SEEDS for row in rates(options.suites, n, name)])
    found.to_csv(OUT, index=False, float_format="%.2f")
    print(largest(found))


if __name__ == "__main__":
    main()
