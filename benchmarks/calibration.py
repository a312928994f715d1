"""How often intervals cover, and how often suites are graded wrongly: planted truths, graded by the suite's own functions.

``python -m benchmarks.calibration`` prints the tables of ``docs/claims.md``; it takes some minutes of one core.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from indm.report.grades import (
    CONTRADICTED,
    EXPLAINED,
    INCONCLUSIVE,
    NOT_SEPARATED,
    RULED_OUT,
    SHOWN,
    Grade,
    grade,
    holm,
)
from indm.report.intervals import TAIL, Estimate, Interval, Numbers, estimate, half_width, p_value
from indm.suite.claims import Claim, load_claims
from tests.checkout import REPOSITORY

SEEDS = (3, 5, 10)
IMAGES = 360
# Standard deviations of paired differences, in bits/dim: over images, and the interaction of seeds and images.
OVER_IMAGES, INTERACTION = 0.05, 0.04
# Over seeds, with the interaction's part.
SPREADS = (0.003, 0.007)
# Seeds, spread and shape of others: trainings of 200 steps, and effects of seeds that are skewed.
OTHERS = ((3, 0.03, "normal"), (3, 0.007, "exponential"))
SMALLEST = 0.01
# Of the numbers of two primary claims about likelihoods: they are of the same runs.
CORRELATION = 0.5
DECIDED = (SHOWN, EXPLAINED, NOT_SEPARATED, CONTRADICTED, RULED_OUT, INCONCLUSIVE)

Draw = Callable[[np.random.Generator, tuple[int, ...]], Numbers]
# Each of mean 0 and variance 1.
SHAPES: dict[str, Draw] = {
    "normal": lambda generator, shape: generator.normal(size=shape),
    "exponential": lambda generator, shape: generator.exponential(size=shape) - 1,
    "lognormal": lambda generator, shape: (
        (np.exp(generator.normal(size=shape)) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)
    ),
}


def missed(found: Estimate) -> tuple[float, float]:
    """Return how often intervals of means that are truly 0 lie above it, and below it."""
    half = half_width(found)
    return float((found.mean - half > 0).mean()), float((found.mean + half < 0).mean())


def coverage_of_seeds(draws: int) -> Iterator[list[object]]:
    """Measure Student's intervals over seeds."""
    for shape, draw in SHAPES.items():
        for n in SEEDS:
            drawn = draw(np.random.default_rng(0), (draws, n))
            above, below = missed(Estimate(drawn.mean(1), drawn.var(1, ddof=1) / n, 0.0, n))
            yield [shape, n, 1 - above - below, above, below]


# Shares of the variance of a crossed mean: seeds, images, interaction.
SHARES = {"seeds": (1, 0, 0), "images": (0, 1, 0), "seeds and images": (1, 1, 0), "all three": (1, 1, 1)}


def coverage_of_tables(draws: int) -> Iterator[list[object]]:
    """Measure crossed intervals, with the effects of the seeds drawn from each distribution."""
    for shape, draw in SHAPES.items():
        for name, (of_seeds, of_images, rest) in SHARES.items():
            for n in SEEDS:
                generator = np.random.default_rng(0)
                tables = (
                    (of_seeds * n) ** 0.5 * draw(generator, (n, 1))
                    + (of_images * IMAGES) ** 0.5 * generator.normal(size=(1, IMAGES))
                    + (rest * n * IMAGES) ** 0.5 * generator.normal(size=(n, IMAGES))
                    for _ in range(draws)
                )
                above, below = missed(stack([estimate(table) for table in tables]))
                yield [f"{name}, {shape}", n, 1 - above - below, above, below]


def stack(found: list[Estimate]) -> Estimate:
    """Put estimates over as many seeds and images into one."""
    means, of_seeds, of_images = (
        np.array([getattr(one, key) for one in found]) for key in ("mean", "of_seeds", "of_images")
    )
    return Estimate(means, of_seeds, of_images, found[0].seeds, found[0].images)


class Arms(NamedTuple):
    """What the numbers of K arms of many suites give, all of mean 0: normal numbers of seeds and images, crossed.

    Their grand means, and the factors of their sums of squares, so that those of a difference are a row's less another's.
    """

    means: Numbers
    seeds: Numbers
    images: Numbers
    rest: Numbers


def draw_arms(
    generator: np.random.Generator, shape: tuple[int, int, int, int], spread: float, draw: Draw = SHAPES["normal"]
) -> Arms:
    """Draw them, of shape (suites, rows, arms, ...): rows are correlated, arms are independent.

    Arguments:
        generator: of the numbers.
        shape: suites, rows, arms and seeds.
        spread: standard deviation over seeds of the difference of two arms.
        draw: draws the effects of the seeds.
    """
    suites, rows, arms, n = shape
    of_seeds = (spread**2 - INTERACTION**2 / IMAGES) / 2
    of_images, rest = OVER_IMAGES**2 / 2, INTERACTION**2 / 2
    mix = np.linalg.cholesky(np.full((rows, rows), CORRELATION) + (1 - CORRELATION) * np.eye(rows))
    factor = np.kron(mix, np.eye(arms))
    normal = generator.normal(size=(2, suites, rows * arms, n))
    seeds = np.sqrt(of_seeds) * draw(generator, normal.shape[1:]) + np.sqrt(rest / IMAGES) * normal[0]
    images = np.sqrt(of_images / IMAGES) * normal[1, ..., :1]
    mean = seeds.mean(2, keepdims=True)
    parts = (
        mean + images,
        seeds - mean,
        np.sqrt(of_images + rest / n) * bartlett(generator, suites, rows * arms, IMAGES - 1),
        np.sqrt(rest) * bartlett(generator, suites, rows * arms, (n - 1) * (IMAGES - 1)),
    )
    return Arms(*((factor @ part).reshape(suites, rows, arms, -1) for part in parts))


def bartlett(generator: np.random.Generator, draws: int, size: int, freedom: int) -> Numbers:
    """Draw factors of Wishart's distribution: of the sums of squares of ``size`` variables, of at least as much freedom.

    References:
        | On the theory of statistical regression (Bartlett, 1934), https://doi.org/10.1017/S0370164600016941
    """
    factors = np.tril(generator.normal(size=(draws, size, size)), -1)
    diagonal = np.arange(size)
    factors[:, diagonal, diagonal] = np.sqrt(generator.chisquare(freedom - diagonal, (draws, size)))
    return factors


def differences(drawn: Arms, row: int, treatment: int, other: int, effect: float, n: int) -> Estimate:
    """Estimate the mean difference of two arms whose true one is the effect."""

    def square(factors: Numbers, freedom: int) -> Numbers:
        return ((factors[:, row, other] - factors[:, row, treatment]) ** 2).sum(-1) / freedom

    mean = effect + (drawn.means[:, row, other] - drawn.means[:, row, treatment])[:, 0]
    of_seeds = square(drawn.seeds, n - 1) / n
    between, within = square(drawn.images, IMAGES - 1) * n, square(drawn.rest, (n - 1) * (IMAGES - 1))
    return Estimate(mean, of_seeds, np.maximum(between - within, 0) / (n * IMAGES), n, IMAGES)


def primary() -> list[Claim]:
    """Return the primary claims that a suite of digits has data for, those about likelihoods first."""
    found = load_claims(REPOSITORY / "params/claims.yaml").claims
    here = [claim for claim in found if claim.family == "primary" and "digits" in claim.where.datasets]
    return sorted(here, key=lambda claim: claim.where.objectives != ["nll"])


class Truth(NamedTuple):
    """True effects of a row, in smallest effects, and what it is wrong to say of it."""

    baseline: float
    controls: Callable[[int], float]
    wrong: frozenset[str]


def truth(baseline: float, first: float, others: float) -> Truth:
    """Return the truth of effects against the baseline, the first control and the other ones, and what contradicts it."""
    least = min(first, others)
    wrong = {SHOWN} if baseline <= 1 or least <= 0 else set()
    wrong |= {EXPLAINED} if baseline <= 1 or least > 1 else set()
    wrong |= {NOT_SEPARATED} if baseline <= 1 else set()
    wrong |= {RULED_OUT} if baseline > 1 else set()
    wrong |= {CONTRADICTED} if baseline >= 0 else set()
    return Truth(baseline, lambda i: first if i == 0 else others, frozenset(wrong))


# Above the smallest effect by so little, it is wrong to rule an effect out, or to say that a control explains it.
HAIR = 1 + 1e-9
NOTHING, LARGE = truth(0, 0, 0), truth(4, 4, 4)
# Of each of four rows.
TRUTHS: dict[str, list[Truth]] = {
    "no effect": [NOTHING] * 4,
    "a hair above the threshold": [truth(HAIR, HAIR, HAIR)] * 4,
    "at the threshold": [truth(1, 1, 1)] * 4,
    "twice the threshold": [truth(2, 2, 2)] * 4,
    "explained by a control": [truth(2, 0, 2)] * 4,
    "explained by every control": [truth(2, 0, 0)] * 4,
    "one explained, three large": [truth(4, 0, 4), LARGE, LARGE, LARGE],
    "one at the threshold, three large": [truth(1, 4, 4), LARGE, LARGE, LARGE],
    "a control leaves the threshold": [truth(4, HAIR, 4)] * 4,
    "every control leaves the threshold": [truth(4, HAIR, HAIR)] * 4,
}


class Drawn(NamedTuple):
    """The numbers of suites: of the arms of claims about likelihoods, and of the one about FID, shape (suites, arms, S)."""

    claims: list[Claim]
    likelihoods: Arms
    fid: Numbers


def draw_suites(suites: int, n: int, spread: float, shape: str = "normal") -> Drawn:
    """Draw suites of four primary rows, in which all arms are alike; the effects of the seeds are of a shape."""
    generator = np.random.default_rng([n, round(1e4 * spread)])
    claims = primary()
    arms = 2 + max(len(claim.controls) for claim in claims)
    likelihoods = draw_arms(generator, (suites, len(claims) - 1, arms, n), spread, SHAPES[shape])
    return Drawn(claims, likelihoods, spread / SMALLEST / np.sqrt(2) * SHAPES[shape](generator, (suites, arms, n)))


def grade_suites(drawn: Drawn, truths: list[Truth]) -> NDArray[np.str_]:
    """Plant the truths in suites, and grade them: shape (suites, 4)."""
    n, crossed = drawn.fid.shape[2], len(drawn.claims) - 1
    rows = []
    for row, (claim, planted) in enumerate(zip(drawn.claims, truths, strict=True)):
        effects = [planted.baseline, *map(planted.controls, range(len(claim.controls)))]
        if row < crossed:
            found = [
                differences(drawn.likelihoods, row, 0, k + 1, SMALLEST * effect, n) for k, effect in enumerate(effects)
            ]
            rows.append(found)
        else:
            paired = [effect + drawn.fid[:, k + 1] - drawn.fid[:, 0] for k, effect in enumerate(effects)]
            rows.append([Estimate(one.mean(1), one.var(1, ddof=1) / n, 0.0, n) for one in paired])
    smallest = [SMALLEST] * crossed + [1.0]
    return np.array([[verdict.grade for verdict in suite] for suite in graded(rows, smallest)])


def graded(rows: list[list[Estimate]], smallest: list[float]) -> Iterator[list[Grade]]:
    """Grade every suite: its rows, each an estimate against the baseline and then one against each control."""
    p_values, intervals = [], []
    for row, effect in zip(rows, smallest, strict=True):
        p_values.append(np.max([p_value(one, 0.0 if k else effect) for k, one in enumerate(row)], axis=0))
        intervals.append([limits(one, len(rows) * (len(row) - 1 if k else 1)) for k, one in enumerate(row)])
    for suite, p_of_suite in enumerate(np.transpose(p_values)):
        verdicts = []
        for row, found, effect, p in zip(rows, intervals, smallest, holm(p_of_suite), strict=True):
            of_row = [
                Interval(mean[suite], low[suite], high[suite], source.seeds, source.images, end[suite])
                for (mean, low, high, end), source in zip(found, row, strict=True)
            ]
            verdicts.append(grade(of_row[0], {str(k): one for k, one in enumerate(of_row[1:])}, effect, (), p))
        yield verdicts


def limits(found: Estimate, comparisons: int) -> list[list[float]]:
    """List the means of estimates, their 95 % intervals, and their ends as those of several comparisons."""
    half, longer = (half_width(found, tail) for tail in (TAIL, TAIL / comparisons))
    return [part.tolist() for part in (found.mean, found.mean - half, found.mean + half, found.mean + longer)]


def rates(found: NDArray[np.str_], truths: list[Truth]) -> dict[str, float]:
    """Return how often rows have each grade, and how often a suite has any row that is wrongly graded so."""
    counts = Counter(found.ravel().tolist())
    every = {name: counts[name] / found.size for name in DECIDED}
    for name in (SHOWN, EXPLAINED, RULED_OUT, CONTRADICTED):
        wrong = np.array([name in planted.wrong for planted in truths])
        every[f"wrong: {name}"] = float(((found == name) & wrong).any(1).mean())
    return every


def show(title: str, rows: list[list[object]], headings: list[str], form: Mapping[int, str]) -> None:
    texts = [[format(cell, form[i]) if i in form else cell for i, cell in enumerate(row)] for row in rows]
    print(f"\n{title}\n\n{tabulate(texts, headings, tablefmt='github', disable_numparse=True)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suites", type=int, default=10_000)
    parser.add_argument(
        "--draws", type=int, default=100_000, help="of intervals over seeds; a twentieth of crossed ones"
    )
    options = parser.parse_args()
    headings = ["differences", "seeds", "covers, %", "lies above, %", "lies below, %"]
    percent = dict.fromkeys((2, 3, 4), ".1%")
    show("Intervals over seeds", [*coverage_of_seeds(options.draws)], headings, percent)
    show("Crossed intervals", [*coverage_of_tables(options.draws // 20)], headings, percent)
    tables: dict[str, list[list[object]]] = {name: [] for name in TRUTHS}
    for n, spread, shape in [*product(SEEDS, SPREADS, ["normal"]), *OTHERS]:
        drawn = draw_suites(options.suites, n, spread, shape)
        for name, truths in TRUTHS.items():
            found = rates(grade_suites(drawn, truths), truths)
            tables[name].append([shape, n, spread, *found.values()])
    for name, rows in tables.items():
        show(
            name, rows, ["effects of seeds", "seeds", "spread", *found], dict.fromkeys(range(3, 3 + len(found)), ".1%")
        )


if __name__ == "__main__":
    main()
