r"""The lowest point of a cubic that is fitted to the trials of one hyper-parameter.

The fit averages the noise of all trials, so that its lowest point errs less by chance than the best trial, and a cubic may rise
more steeply on one side than on the other, as losses do above and below the best learning rate. Simulated:
``python -m benchmarks.rates``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import Polynomial

DEGREE = 3
# A residual above this share of the median trial's excess is large: the lowest point of the cubic is then uncertain.
LARGE = 0.5


@dataclass(frozen=True)
class Lowest:
    """The lowest point of a fitted cubic.

    Arguments:
        place: where it is, within the trials, in the unit of the places.
        height: value of the cubic there, in the unit of the heights.
        residual: standard deviation of the trials about the cubic, with n - 4 degrees of freedom, in the same unit.
        end: ``lower`` or ``upper`` if it is the first or the last trial, else empty.
        is_rough: whether the residual is large, compared with the median excess of a trial above the lowest point.
    """

    place: float
    height: float
    residual: float
    end: str
    is_rough: bool


def lowest_point(places: Sequence[float], heights: Sequence[float]) -> Lowest:
    r"""Fit a cubic by least squares, and find its lowest point between the first and the last trial.

    .. math:: \min_{x_1 \le x \le x_n} p(x), \qquad p = \arg\min_{\deg p \le 3} \sum_{i=1}^n (y_i - p(x_i))^2

    Arguments:
        places: x, different values, increasing, shape (n,), n at least 5; such as logarithms of rates.
        heights: y, the targets of the trials, finite, shape (n,): in bits/dim, or logarithms of FID, which have no unit.
    """
    cubic = Polynomial.fit(places, heights, DEGREE)
    minimum = _minimum(cubic)
    inside = [minimum] if minimum is not None and places[0] < minimum < places[-1] else []
    place = min([places[0], places[-1], *inside], key=cubic)
    height = float(cubic(place))
    squares = ((np.array(heights) - cubic(np.array(places))) ** 2).sum()
    residual = math.sqrt(squares / (len(places) - DEGREE - 1))
    return Lowest(
        place=place,
        height=height,
        residual=residual,
        end={places[0]: "lower", places[-1]: "upper"}.get(place, ""),
        is_rough=residual > LARGE * (float(np.median(heights)) - height),
    )


def _minimum(cubic: Polynomial) -> float | None:
    """Return where the slope of a cubic becomes positive, or ``None``; also exact if the cubic is nearly a parabola."""
    constant, linear, square = map(float, cubic.deriv().coef)
    discriminant = linear**2 - 4 * square * constant
    if discriminant <= 0 or (linear < 0 and square == 0):
        return None
    root = math.sqrt(discriminant)
    # Of the two equal forms of this root, the one in which nothing cancels.
    scaled = -2 * constant / (linear + root) if linear > 0 else (root - linear) / (2 * square)
    offset, scale = cubic.mapparms()
    return float((scaled - offset) / scale)
