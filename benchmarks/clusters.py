r"""Simulate how often the crossed interval of a difference contains the truth if test images come in clusters.

Paired differences of likelihoods, of seed s and image i of cluster c, are drawn as

.. math:: d_{si} = \mu + a_s + b_c + b_i + e_{sc} + e_{si} ,

in smallest effects. The intraclass correlation :math:`\rho = \sigma_c^2 / (\sigma_c^2 + \sigma_i^2)` divides the variance of the
images, and the variance of the interaction, between clusters and images. The standard deviations are the ones of the simulated
questions. The interval over images takes all images as independent; the interval over clusters is the one of this project for
datasets with clusters, with Student's quantile for one degree of freedom less than there are clusters.

``python -m benchmarks.clusters`` prints the table in docs/claims.md, in a minute on one core.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from benchmarks.calibration import COMPARISONS, INTERACTION, OVER_IMAGES, OVER_SEEDS
from indm.report.intervals import TAIL, Interval, by_cluster, interval

SEEDS, CLUSTERS, EACH = 4, 22, 20
CORRELATIONS = (0.0, 0.1, 0.3)
SIMULATIONS = 4000


def differences(
    generator: np.random.Generator,
    correlation: float,
    clusters: int = CLUSTERS,
    over_seeds: float = OVER_SEEDS,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Draw differences with the mean 0, shape (S, I), and the cluster of each image, shape (I,)."""
    of_images = np.tile(np.arange(clusters), EACH)
    shared, own = np.sqrt(correlation), np.sqrt(1 - correlation)

    def split(rows: int) -> NDArray[np.float64]:
        """Draw numbers of images with variance 1 and this correlation within clusters."""
        of_clusters = generator.standard_normal((rows, clusters))[:, of_images]
        return shared * of_clusters + own * generator.standard_normal((rows, len(of_images)))

    seeds = over_seeds * generator.standard_normal((SEEDS, 1))
    return seeds + OVER_IMAGES * split(1) + INTERACTION * split(SEEDS), of_images


def holds(found: Interval) -> bool:
    """Return whether an interval contains the true mean, 0."""
    return found.low <= 0 <= found.high


def coverage(
    correlation: float,
    *,
    clusters: int = CLUSTERS,
    over_seeds: float = OVER_SEEDS,
    tail: float = TAIL,
    simulations: int = SIMULATIONS,
) -> tuple[float, float, float]:
    """Return the coverage of the interval over images and of the interval over clusters, and the latter's mean half-width."""
    generator = np.random.default_rng(0)
    covered, halves = np.zeros(2), 0.0
    for _ in range(simulations):
        drawn, of_images = differences(generator, correlation, clusters, over_seeds)
        by_images, by_clusters = interval(drawn, tail), interval(by_cluster(drawn, of_images), tail)
        covered += [holds(by_images), holds(by_clusters)]
        halves += (by_clusters.high - by_clusters.low) / 2
    return float(covered[0]) / simulations, float(covered[1]) / simulations, halves / simulations


# What is simulated, with changes of the arguments of :func:`coverage`.
CASES: dict[str, dict[str, Any]] = {
    "22 people": {},
    "22 people, 99.8 % interval": {"tail": TAIL / COMPARISONS},
    "22 people, seeds alike": {"over_seeds": 0.0},
    "8 people": {"clusters": 8},
}


def table() -> list[dict[str, float | str]]:
    """Return the coverage for each case and correlation."""
    rows: list[dict[str, float | str]] = []
    for case, changes in CASES.items():
        for correlation in CORRELATIONS:
            over_images, over_clusters, half = coverage(correlation, **changes)
            found = {"over images": over_images, "over clusters": over_clusters, "half-width": half}
            rows.append({"case": case, "correlation": correlation, **found})
    return rows


if __name__ == "__main__":
    print(tabulate(table(), headers="keys", floatfmt=("", ".1f", ".3f", ".3f", ".2f"), tablefmt="github"))
