r"""The multiple of training: the factor by which DDPM++ would have to train longer for a model's bound.

Between two lengths of DDPM++ whose ratio is r, the bound falls about linearly in the logarithm of the length. With the lead L of a
model over DDPM++ at equal steps, and the gain G of DDPM++ that trains r times as long,

.. math:: m = r^{L / G} .

A model whose multiple exceeds the cost of its step, in steps of DDPM++, is ahead at equal compute, too; a model with a smaller one
is behind. In bits, leads at different lengths are not comparable, because the same gain takes ever longer; multiples are.

Lead and gain are means over the same seeds, so that their ratio has Fieller's interval: the values :math:`\rho` that a t test of
:math:`L - \rho G = 0` does not reject,

.. math:: (\bar L - \rho \bar G)^2 \le \frac{t^2}{n} \big(s_{LL} - 2 \rho s_{LG} + \rho^2 s_{GG}\big) .

References:
    | Some Problems in Interval Estimation (Fieller, 1954), https://doi.org/10.1111/j.2517-6161.1954.tb00159.x
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from indm.report.intervals import Numbers

LEVEL = 0.95
# Seeds of which a spread can be estimated.
FEWEST = 3


class Multiple(NamedTuple):
    """A multiple of training with its 95 % interval over n seeds, without a unit.

    Arguments:
        value: m; NaN if the longer training has no gain.
        low: lower end of the interval; 0 if it is unbounded.
        high: upper end; infinite if it is unbounded, because a longer training that gains nothing is not excluded.
        ratio: r, the ratio of the two lengths that were measured.
        seeds: n.
    """

    value: float
    low: float
    high: float
    ratio: float
    seeds: int

    @property
    def bounded(self) -> bool:
        """Whether the interval has two ends."""
        return math.isfinite(self.high)

    @property
    def extrapolated(self) -> bool:
        """Whether the multiple or an end of its interval lies outside of the measured lengths, 1 to r."""
        return self.bounded and not 1 <= self.low <= self.high <= self.ratio


def multiple_of_training(leads: Numbers, gains: Numbers, ratio: float) -> Multiple:
    """Return the multiple of training from paired leads and gains.

    Arguments:
        leads: of the model over DDPM++ at equal steps, one for each seed, shape (n,), in bits/dim.
        gains: of DDPM++ with ``ratio`` times the steps over DDPM++, for the same seeds, shape (n,), in bits/dim.
        ratio: r > 1.

    Raises:
        ValueError: if there are fewer than three seeds, or not as many gains as leads.
    """
    n = len(leads)
    if n < FEWEST or len(gains) != n:
        raise ValueError(f"found {n} leads and {len(gains)} gains, expected as many of each, at least {FEWEST}")
    lead, gain = float(leads.mean()), float(gains.mean())
    covariance = np.cov(leads, gains) * float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) ** 2 / n
    value = ratio ** (lead / gain) if gain > 0 else math.nan
    # The ends are the roots of a r^2 - 2 b r + c.
    a, b, c = gain**2 - covariance[1, 1], lead * gain - covariance[0, 1], lead**2 - covariance[0, 0]
    if a <= 0 or gain <= 0:
        return Multiple(value, 0.0, math.inf, ratio, n)
    # With a > 0 the estimate itself solves the inequality, so that there are roots, but for rounding.
    half = math.sqrt(max(b * b - a * c, 0.0))
    return Multiple(value, ratio ** ((b - half) / a), ratio ** ((b + half) / a), ratio, n)
