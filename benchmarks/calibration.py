"""How often intervals cover their means.

``python -m benchmarks.calibration`` prints the tables of ``docs/claims.md``; it takes some minutes of one core.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from tabulate import tabulate

from indm.report.intervals import Estimate, Numbers, estimate, half_width

SEEDS = (3, 5, 10)
IMAGES = 360

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


def show(title: str, rows: list[list[object]], headings: list[str], form: Mapping[int, str]) -> None:
    texts = [[format(cell, form[i]) if i in form else cell for i, cell in enumerate(row)] for row in rows]
    print(f"\n{title}\n\n{tabulate(texts, headings, tablefmt='github', disable_numparse=True)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--draws", type=int, default=100_000, help="of intervals over seeds; a twentieth of crossed ones"
    )
    options = parser.parse_args()
    headings = ["differences", "seeds", "covers, %", "lies above, %", "lies below, %"]
    percent = dict.fromkeys((2, 3, 4), ".1%")
    show("Intervals over seeds", [*coverage_of_seeds(options.draws)], headings, percent)
    show("Crossed intervals", [*coverage_of_tables(options.draws // 20)], headings, percent)


if __name__ == "__main__":
    main()
