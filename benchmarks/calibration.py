"""How often the words of a question are wrong: planted truths, with the choices of decoder and sampler inside.

``python -m benchmarks.calibration`` writes ``docs/calibration.csv`` and prints the table of ``docs/claims.md``; it takes
some minutes on one core. All numbers are in smallest effects.
"""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special
from tabulate import tabulate

from indm.report.grades import BETTER, NOT_BETTER, WORSE
from indm.report.intervals import FEWEST_SEEDS, TAIL, Estimate, Numbers, half_width
from tests.checkout import REPOSITORY

SEEDS = (3, 4, 5, 6, 8, 12, 20, 30)
IMAGES = 360
# Standard deviations of paired differences: over seeds, over images, and the interaction of the two.
OVER_SEEDS, OVER_IMAGES, INTERACTION = 0.7, 5.0, 4.0
# The correlation of numbers of the same runs: of several rows, and of both decoders.
CORRELATION = 0.5
# The share of a model's seeds that fail, and by how much the number of one is higher where the failure is not detected.
FAILING, FALLEN = 0.2, 10.0
# Of the variance over seeds: what all seeds share.
OFFSET = 0.1
# By how much one decoder is worse, in models whose decoders differ, so that validation always finds the better one.
APART = 20.0
# By how much each of four samplers is worse than the best where they differ, and the noise of their FIDs in the search.
SAMPLERS, SEARCH = (0.0, 0.25, 0.5, 1.0), 0.5
INDM, DDPMPP, LONGER, SIMPLE = range(4)
OTHERS = [DDPMPP, LONGER, SIMPLE]
# Primary rows of one dataset by objective, as claims.yaml has them, and the datasets of the question ``small-images``.
NELBO, FID, FEW_STEPS = "NELBO", "FID", "few steps"
ROWS = {"nll": [NELBO], "fid": [NELBO, FID, FEW_STEPS]}
DATASETS = 2
COMPARISONS = DATASETS * sum(map(len, ROWS.values())) * len(OTHERS)
# The true gain over each of the three models; just above the smallest effect it is wrong to say that there is none.
TRUTHS = {"-1": -1.0, "0": 0.0, "1": 1.0, "just above 1": 1 + 1e-9, "2": 2.0}
WORDS = (BETTER, WORSE, NOT_BETTER)
QUESTION, ALONE = "question", "one comparison"
BATCH = 1000
OUT = REPOSITORY / "docs/calibration.csv"

Flags = NDArray[np.bool_]
Distort = Callable[[np.random.Generator, Numbers], Numbers]


class Nuisance(NamedTuple):
    """What disturbs a question.

    Arguments:
        distort: changes the effects of seeds, shape (questions, rows, models, decoders, S).
        failing: the model whose seeds fail as defined beforehand.
        apart: the models whose decoders differ; of the others, both are equally good.
        samplers: by how much each sampler of any model is worse than the best.
    """

    distort: Distort = lambda generator, normal: normal
    failing: int | None = None
    apart: tuple[int, ...] = ()
    samplers: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)


def unequal(_: np.random.Generator, normal: Numbers) -> Numbers:
    normal[:, :, INDM] *= 3
    return normal


def heavy(generator: np.random.Generator, normal: Numbers) -> Numbers:
    """Return Student's numbers of three degrees of freedom and variance 1."""
    return normal / np.sqrt(generator.chisquare(3, normal[:, :1, :, :1].shape))


def skewed(_: np.random.Generator, normal: Numbers) -> Numbers:
    """Return exponential numbers of mean 0 and variance 1."""
    return -special.log_ndtr(-normal) - 1


def skewed_treatment(_: np.random.Generator, normal: Numbers) -> Numbers:
    normal[:, :, INDM] = skewed(_, normal[:, :, INDM])
    return normal


def offset(generator: np.random.Generator, normal: Numbers) -> Numbers:
    return np.sqrt(1 - OFFSET) * normal + np.sqrt(OFFSET) * generator.normal(size=(*normal.shape[:-1], 1))


def undetected(model: int) -> Distort:
    """Let some seeds of a model end worse, so that the mean over all seeds is as planted."""

    def distort(generator: np.random.Generator, normal: Numbers) -> Numbers:
        failed = generator.random(normal[:, :1, model, :1].shape) < FAILING
        normal[:, :, model] += FALLEN / (OVER_SEEDS / np.sqrt(2)) * (failed - FAILING)
        return normal

    return distort


NUISANCES = {
    "normal": Nuisance(),
    "only INDM's decoders are equal": Nuisance(apart=(DDPMPP, LONGER, SIMPLE)),
    "only INDM's decoders differ": Nuisance(apart=(INDM,)),
    "samplers differ": Nuisance(samplers=SAMPLERS),
    "unequal variances": Nuisance(unequal),
    "heavy tails": Nuisance(heavy),
    "skewed": Nuisance(skewed),
    "skewed in INDM only": Nuisance(skewed_treatment),
    "failures in INDM": Nuisance(failing=INDM),
    "failures in DDPM++": Nuisance(failing=DDPMPP),
    "undetected failures in INDM": Nuisance(undetected(INDM)),
    "undetected failures in DDPM++": Nuisance(undetected(DDPMPP)),
    "shared offset": Nuisance(offset),
}


class Compared(NamedTuple):
    """The comparisons of many questions, all of shape (questions, comparisons).

    Arguments:
        error: errors of the estimated gains.
        half: half of each interval, by the kind of the rates.
        shift: what the choices of samplers add to the true gains.
        sound: numbers of seeds that are sound in both models.
        more: 1 where INDM failed on more seeds, -1 where the other model did.
    """

    error: Numbers
    half: dict[str, Numbers]
    shift: Numbers
    sound: NDArray[np.int64]
    more: NDArray[np.int64]


def correlated(generator: np.random.Generator, shape: tuple[int, ...]) -> Numbers:
    """Draw normal numbers of variance 1, shape (questions, rows, models, decoders, ...), correlated over rows and decoders."""
    common = generator.normal(size=(shape[0], 1, shape[2], 1, *shape[4:]))
    return np.sqrt(CORRELATION) * common + np.sqrt(1 - CORRELATION) * generator.normal(size=shape)


def draw(generator: np.random.Generator, questions: int, rows: list[str], n: int, nuisance: Nuisance) -> Compared:
    """Draw the runs of one dataset and objective, choose decoders and samplers, and compare INDM with the three others."""
    shape, of_images = (questions, len(rows), 4, 2), np.array([row == NELBO for row in rows])
    luck = [correlated(generator, shape) * OVER_IMAGES / np.sqrt(2 * IMAGES) for _ in ("test", "validation")]
    seeds = nuisance.distort(generator, correlated(generator, (*shape, n))) * OVER_SEEDS / np.sqrt(2)
    # The same runs on other images.
    validation = seeds.mean(4) + luck[1]
    validation[:, :, nuisance.apart, 1] += APART
    decoder = (validation.argmin(3) * of_images[:, None])[..., None]
    seeds = np.take_along_axis(seeds, decoder[..., None], 3)[:, :, :, 0]
    lucky = np.take_along_axis(luck[0], decoder, 3)[..., 0] * of_images[:, None]
    samplers = np.array(nuisance.samplers)
    worse = samplers[(samplers + SEARCH * generator.normal(size=(*shape[:3], len(samplers)))).argmin(3)]
    worse *= np.array([row == FEW_STEPS for row in rows])[:, None]
    fails = np.zeros((questions, 4, n), bool)
    if nuisance.failing is not None:
        fails[:, nuisance.failing] = generator.random((questions, n)) < FAILING
    sound, failed = ~(fails[:, :1] | fails[:, 1:]), fails.sum(2)
    found = estimated(generator, seeds[:, :, 1:] - seeds[:, :, :1], sound[:, None], of_images)
    half = {of: half_width(found, tail) for of, tail in ((QUESTION, TAIL / COMPARISONS), (ALONE, TAIL))}
    parts = (found.mean + lucky[:, :, 1:] - lucky[:, :, :1], worse[:, :, 1:] - worse[:, :, :1])
    error, shift = (part.reshape(questions, -1) for part in parts)
    counts = (sound.sum(2), np.sign(failed[:, :1] - failed[:, 1:]))
    many, more = (np.broadcast_to(count[:, None], found.mean.shape).reshape(questions, -1) for count in counts)
    return Compared(error, {of: width.reshape(questions, -1) for of, width in half.items()}, shift, many, more)


def estimated(generator: np.random.Generator, differences: Numbers, sound: Flags, of_images: Flags) -> Estimate:
    """Estimate means over the sound seeds, the last dimension, and their variances.

    The mean squares of images and of the interaction are drawn as they are distributed, each apart. Without images, these parts are
    0, and the interval is Student's over the seeds.
    """
    n = differences.shape[-1]
    # Where no seed failed, their number is one, and so is the point of Student's distribution.
    count: Any = n if sound.all() else np.broadcast_to(sound.sum(-1), differences.shape[:-1])
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (differences * sound).sum(-1) / count
        of_seeds = (((differences - mean[..., None]) * sound) ** 2).sum(-1) / (count - 1) / count
        between, within = (
            square * generator.chisquare(freedom, mean.shape) / freedom
            for square, freedom in (
                (count * OVER_IMAGES**2 + INTERACTION**2, IMAGES - 1),
                (INTERACTION**2, (n - 1) * (IMAGES - 1)),
            )
        )
        of_them = np.maximum(between - within, 0) / (count * IMAGES) * of_images[:, None]
        return Estimate(mean, of_seeds, of_them, count, IMAGES)


def words(low: Numbers, high: Numbers, sound: NDArray[np.int64], more: NDArray[np.int64]) -> dict[str, Flags]:
    """Say where each word is given: :func:`indm.report.grades.grade` for arrays, with the smallest effect 1."""
    known = sound >= FEWEST_SEEDS
    return {
        BETTER: known & (low > 1) & (more <= 0),
        WORSE: known & (high < -1) & (more >= 0),
        NOT_BETTER: known & (high >= -1) & (high <= 1) & (more >= 0),
    }


def wrong(found: Compared, of: str, truth: float) -> dict[str, Flags]:
    """Say where each word is wrong, if this is the true gain between the best of each model.

    It is wrong to call a gain of at most 1 *better*, a gain of at least -1 *worse*, and a gain above 1 *not better*. The gain
    is the one between what was chosen on both sides.
    """
    gain = truth + found.shift
    ends = (gain + found.error - found.half[of], gain + found.error + found.half[of])
    said = words(*ends, found.sound, found.more)
    false = {BETTER: gain <= 1, WORSE: gain >= -1, NOT_BETTER: gain > 1}
    return {word: said[word] & false[word] for word in WORDS}


def shares(generator: np.random.Generator, questions: int, n: int, nuisance: Nuisance) -> dict[tuple[str, ...], float]:
    """Return the shares of wrong words, by what they are shares of, the truth and the word."""
    parts = [draw(generator, questions, rows, n, nuisance) for _ in range(DATASETS) for rows in ROWS.values()]
    found: dict[tuple[str, ...], float] = {}
    for of in (QUESTION, ALONE):
        for name, truth in TRUTHS.items():
            flags = [wrong(part, of, truth) for part in parts]
            for word in WORDS:
                every = np.concatenate([flag[word] for flag in flags], axis=1)
                found[of, name, word] = float((every.any(1) if of == QUESTION else every).mean())
    return found


def rates(questions: int, n: int, name: str) -> list[dict[str, Any]]:
    """Return how often, in percent, some comparison of a question is wrong, and how often one is that is decided alone."""
    generator = np.random.default_rng([n, [*NUISANCES].index(name)])
    batches = [shares(generator, BATCH, n, NUISANCES[name]) for _ in range(max(questions // BATCH, 1))]
    return [
        {"of": of, "numbers": name, "truth": truth, "wrongly": word, "seeds": n}
        | {"rate": 100 * float(np.mean([batch[of, truth, word] for batch in batches]))}
        for of, truth, word in batches[0]
    ]


def tabulated(rates: list[dict[str, Any]]) -> pd.DataFrame:
    """Lay rates out: one column per number of seeds; without rows of zeros."""
    wide = pd.DataFrame(rates).pivot_table("rate", ["of", "numbers", "truth", "wrongly"], "seeds", sort=False)
    return wide[(wide > 0).any(axis=1)].reset_index()


def largest(found: pd.DataFrame) -> str:
    """Write the largest rates of questions over truths and words: a table of Markdown."""
    seeds = [*found.columns[4:]]
    of_questions = found[found["of"] == QUESTION].groupby("numbers", sort=False)[seeds].max().reset_index()
    return tabulate(of_questions, ["seeds", *seeds], "github", floatfmt=".1f", showindex=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=50_000)
    options = parser.parse_args()
    found = tabulated([row for name in NUISANCES for n in SEEDS for row in rates(options.questions, n, name)])
    found.to_csv(OUT, index=False, float_format="%.2f")
    print(largest(found))


if __name__ == "__main__":
    main()
