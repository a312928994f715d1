r"""Means of paired differences: their variance, their intervals, and the description of error bars in figures.

Differences have one of two shapes. If every seed samples its own images (FID) or points, the spread of the seeds includes
that noise, and there is one number per seed: shape (S,). Likelihoods are measured on the same test images in every run. All
seeds share the luck of these images, so the spread over seeds does not cover other images. In this case the differences form a
table of random seeds and random images, shape (S, I):

.. math:: d_{si} = \mu + a_s + b_i + e_{si}, \qquad
    \operatorname{Var}(\bar d) = \frac{\sigma_a^2}{S} + \frac{\sigma_b^2}{I} + \frac{\sigma_e^2}{SI}

If the images come in clusters, such as several images of a person, clusters take the place of images (:func:`by_cluster`).
Images of a cluster resemble each other, so that they tell less about other images than as many images of different clusters.

Differences have the unit of the metric after the claim's transform: bits/dim for likelihoods, none for the logarithm of FID. A
mean and the ends of its interval have this unit too, and variances its square.

References:
    | Variance Components (Searle, Casella & McCulloch, 1992), chapter 4 (two crossed random factors)
    | https://doi.org/10.1002/9780470316856
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

LEVEL = 0.95
# Tail probability on either side of an interval: the level of a one-sided test.
TAIL = (1 - LEVEL) / 2
# Half-width of an interval over many images, in standard errors.
OVER_MANY = float(special.ndtri(1 - TAIL))
FEWEST_SEEDS = 3
# The methods of intervals, as named in the ``test`` column of claims.csv.
STUDENT = "Student t"
CROSSED = "Student t, seeds and images crossed"
OVER_IMAGES = "Student t over images, for these weights alone"
# In their place, if the images come in clusters.
CLUSTERED = {
    CROSSED: "Student t, seeds and clusters of images crossed",
    OVER_IMAGES: "Student t over clusters of images, for these weights alone",
}

Numbers = NDArray[np.float64]


class Interval(NamedTuple):
    """A mean over seeds, the ends of its interval (NaN without one), and the numbers of seeds and, if any, of images.

    Arguments:
        effect: the mean, in the unit of the differences.
        low: the lower end, in the same unit.
        high: the upper end, in the same unit.
        n: number of seeds S.
        images: number of images (or clusters) I; ``None`` for differences with shape (S,).
    """

    effect: float
    low: float
    high: float
    n: int
    images: int | None = None


class Estimate(NamedTuple):
    """A mean of paired differences, and the parts of its variance that come from the seeds and from the images.

    Arguments:
        mean: the mean, a number, or an array for many means over equal numbers of seeds and images.
        of_seeds: the seeds' part of its variance, in the shape of ``mean``.
        of_images: the images' part of its variance, in the shape of ``mean``.
        seeds: number of seeds S.
        images: number of images (or clusters) I; ``None`` for differences with shape (S,).
    """

    mean: Any
    of_seeds: Any
    of_images: Any
    seeds: int
    images: int | None = None


def interval(differences: Numbers, tail: float = TAIL) -> Interval:
    r"""Estimate the mean of paired differences, and Student's interval of it.

    .. math:: \bar d \pm h

    with h by :func:`half_width`. With at least three seeds, the interval holds for other seeds, and other images if there are
    any. With fewer seeds and several images, it holds only for other images and the same weights, and is computed from each
    image's mean over the seeds.

    Arguments:
        differences: one per seed, shape (S,), or one per seed and image, shape (S, I).
        tail: probability that the interval begins above the true mean, and that it ends below it.

    Returns:
        The mean, which is NaN without a seed, and the ends of its interval, in the unit of the differences. The ends are NaN
        for differences with shape (S,) and fewer than two seeds.
    """
    n, images = len(differences), differences.shape[1] if differences.ndim == 2 else None
    if images is not None and 0 < n < FEWEST_SEEDS:
        return Interval(*interval(differences.mean(0), tail)[:3], n, images)
    if n < 2:
        return Interval(float(differences.mean()) if n else float("nan"), float("nan"), float("nan"), n, images)
    found = estimate(differences)
    half = half_width(found, tail)
    return Interval(found.mean, float(found.mean - half), float(found.mean + half), n, images)


def method(found: Interval) -> str:
    """Name the method of an interval; empty if there is no interval."""
    if found.images is not None:
        return CROSSED if found.n >= FEWEST_SEEDS else OVER_IMAGES
    return STUDENT if found.n >= 2 else ""


def estimate(differences: Numbers) -> Estimate:
    r"""Estimate the mean of differences, and the parts of its variance, from at least two seeds.

    .. math:: \widehat{\operatorname{Var}}(\bar d) = \frac{M_a + M_b - M_e}{SI}, \qquad
        \mathrm E M_a = I\sigma_a^2 + \sigma_e^2, \quad \mathrm E M_b = S\sigma_b^2 + \sigma_e^2, \quad
        \mathrm E M_e = \sigma_e^2

    with the mean squares of seeds, images and interaction. The seeds' part is :math:`M_a/SI`, the square of Student's standard
    error over seeds; the images' part is :math:`(M_b - M_e)/SI`, an estimate of :math:`\sigma_b^2/I`, and 0 if that is
    negative.

    Arguments:
        differences: shape (S,) or (S, I), S at least 2 and I at least 2.

    Returns:
        The mean, in the unit of the differences, and the parts of its variance, in the square of this unit.

    References:
        | Variance Components (Searle, Casella & McCulloch, 1992), section 4.3, https://doi.org/10.1002/9780470316856
    """
    seeds, images = len(differences), differences.shape[1] if differences.ndim == 2 else None
    if np.ptp(differences) == 0:
        return Estimate(float(differences.flat[0]), 0.0, 0.0, seeds, images)
    mean = float(differences.mean())
    if images is None:
        return Estimate(mean, float(differences.var(ddof=1) / seeds), 0.0, seeds)
    of_seeds, of_images = differences.mean(1), differences.mean(0)
    rest = differences - of_seeds[:, None] - of_images + mean
    within = float((rest**2).sum() / ((seeds - 1) * (images - 1)))
    between = seeds * float(of_images.var(ddof=1))
    return Estimate(
        mean, float(of_seeds.var(ddof=1) / seeds), max(between - within, 0.0) / (seeds * images), seeds, images
    )


def half_width(found: Estimate, tail: Any = TAIL) -> Any:
    r"""Return half the length of the interval that leaves out ``tail`` on either side.

    .. math:: \frac{v_a t_{S-1} + v_b t_{I-1}}{v_a + v_b} \sqrt{v_a + v_b}

    with :math:`v_a` and :math:`v_b` the parts of the variance from seeds and images, and at least the half-width over only the
    seeds. This is the approximation of Cochran and Cox: Student's quantiles, weighted by the variances. Satterthwaite's degrees
    of freedom are not used, because with few seeds their interval covers less than it states if the seeds vary more than the
    images.

    Arguments:
        found: the estimate, whose variances are numbers or arrays.
        tail: probability on either side of the interval, a number, or an array that broadcasts with the variances.

    Returns:
        The half-width, in the unit of the mean, in the shape to which the variances and ``tail`` broadcast.

    References:
        | SAS/STAT user's guide (2013), procedure TTEST, two-independent-sample design, COCHRAN
        | https://support.sas.com/documentation/cdl/en/statug/66859/HTML/default/statug_ttest_details14.htm
    """
    of_seeds = _point(found.seeds, tail) * np.sqrt(found.of_seeds)
    return of_seeds if found.images is None else np.maximum(_crossed(found, tail), of_seeds)


def _crossed(found: Estimate, tail: Any) -> Any:
    total = np.asarray(found.of_seeds + found.of_images)
    weighted = sum(
        _point(count, tail) * part for count, part in ((found.seeds, found.of_seeds), (found.images, found.of_images))
    )
    return np.divide(weighted, np.sqrt(total), out=np.zeros(np.shape(weighted)), where=total > 0)


def _point(count: Any, tail: Any) -> Any:
    """Return the quantile of Student's distribution with count - 1 degrees of freedom that ``tail`` lies beyond."""
    return -special.stdtrit(count - 1, tail)


def by_cluster(numbers: Numbers, clusters: NDArray[Any]) -> Numbers:
    r"""Combine the numbers of images into one number for each cluster, with the same mean.

    .. math:: u_c = m + \frac{C}{I} \sum_{i \in c} (d_i - m), \qquad m = \frac{1}{I} \sum_i d_i = \frac{1}{C} \sum_c u_c

    With clusters of equal size, it is the cluster's mean, and with clusters of one image the number itself. For other sizes, it
    is the linear part of a ratio of totals, the variance of which follows from the spread of the clusters.

    Arguments:
        numbers: numbers of images, shape (..., I).
        clusters: the name of each image's cluster, shape (I,).

    Returns:
        Numbers of clusters, in the same unit, shape (..., C), the clusters in the order of their first images.

    References:
        | Sampling Techniques (Cochran, 1977), section 9A.2 (clusters of unequal sizes: ratio to size)
    """
    numbered, names = pd.factorize(clusters)
    sizes = np.bincount(numbered)
    if len(set(sizes)) == 1:
        order = np.argsort(numbered, kind="stable")
        return numbers[..., order].reshape(*numbers.shape[:-1], len(names), sizes[0]).mean(-1)
    mean, members = numbers.mean(-1, keepdims=True), numbered[:, None] == np.arange(len(names))
    return mean + len(names) / len(clusters) * ((numbers - mean) @ members)


def clustered_error(numbers: Numbers, clusters: NDArray[Any]) -> float:
    r"""Return the standard error of the mean of images over their clusters.

    .. math:: \sqrt{\frac{1}{C (C - 1)} \sum_c (u_c - \bar u)^2}

    with u by :func:`by_cluster`.

    Arguments:
        numbers: numbers of images, shape (I,).
        clusters: the name of each image's cluster, shape (I,), of C different ones, at least 2.

    Returns:
        The standard error, in the unit of the numbers.
    """
    combined = by_cluster(numbers, clusters)
    return float(combined.std(ddof=1) / np.sqrt(len(combined)))


def log_ends(values: pd.Series) -> tuple[float, float]:
    r"""Return the ends of Student's interval of a positive number over seeds, computed on its logarithm.

    .. math:: \exp\big(\overline{\log v} \pm t_{n-1}\, s_{\log v} / \sqrt n\big)

    Arguments:
        values: positive numbers, one per seed, shape (n,); absent values are left out.

    Returns:
        Both ends, in the unit of the values; NaN with fewer than two seeds.
    """
    found = interval(np.log(values.dropna().to_numpy(float)))
    return float(np.exp(found.low)), float(np.exp(found.high))


def half_widths(errors: pd.Series, seeds: pd.Series) -> pd.Series:
    r"""Return half the length of Student's interval of a mean over n seeds, absent with fewer than three seeds.

    .. math:: t_{n-1} \, s / \sqrt n

    Arguments:
        errors: the standard error of each of K means, :math:`s / \sqrt n`, shape (K,).
        seeds: the number of seeds n of each mean, shape (K,).

    Returns:
        The half-widths, in the unit of the errors, shape (K,).
    """
    # With two seeds, it would be 12.7 standard errors, which shows hardly more than no interval, and squeezes the others.
    freedom = seeds.astype(float).where(seeds >= FEWEST_SEEDS) - 1
    return errors.astype(float) * -special.stdtrit(freedom, TAIL)


def named_bars(kinds: Mapping[str, Iterable[int]], interval: str = f"{100 * LEVEL:g} % interval") -> str:
    """Describe the error bars of means, with the methods of their estimation.

    Arguments:
        kinds: the numbers of seeds of the means, by the method of their intervals.
        interval: the interval, in words.
    """
    counts = {method: sorted(set(seeds)) for method, seeds in kinds.items()}
    several = {method: [n for n in found if n >= FEWEST_SEEDS] for method, found in counts.items()}
    few = [n for found in counts.values() for n in found if n < FEWEST_SEEDS]
    texts = [f"{_range(found)} seeds ({method})" for method, found in several.items() if found]
    if not texts:
        return f"{'Two seeds' if 2 in few else 'One seed'}: no error bars."
    none = f"; none where there {'are fewer than three seeds' if 2 in few else 'is one seed'}" if few else ""
    return f"Error bars: {interval} of the mean over {' or '.join(texts)}{none}."


def _range(counts: list[int]) -> str:
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
