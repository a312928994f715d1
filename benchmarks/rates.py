r"""Simulate how often an interval of a difference contains the truth if the learning rate of each model comes from a search.

With one seed, the loss of model m at the log rate r is

.. math:: \ell_m(r) = \kappa_\pm\,(r - r_m^*)^2 + \sigma\,\varepsilon ,

with a curvature :math:`\kappa_-` below the best rate and :math:`\kappa_+` above it, and a spread :math:`\sigma` over seeds, as in
the search on CIFAR-10. A search tries K rates on pilot seeds and takes one. S new seeds then train both models at their rates, and
Student's interval of the mean difference is compared with the difference at the best rates, which is 0 here. A search that took a
bad rate by chance makes all S differences wrong in the same way, and no interval over seeds sees it.

The remedies: take the minimum of a polynomial that is fitted to all trials on a grid, so that they share their noise, instead of
the best trial; or multiply the rate of each run by a factor of its own, log-uniform in :math:`[w^{-1/2}, w^{1/2}]`, so that the
spread over seeds contains some of the rate's.

``python -m benchmarks.rates`` prints the table in docs/claims.md, in some seconds on one core.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special
from tabulate import tabulate

Numbers = NDArray[np.float64]
LEVEL = 0.95
SIMULATIONS = 8000
# Points at which a fitted polynomial is compared.
PLACES = 201


@dataclass(frozen=True)
class Setting:
    """A search and an evaluation.

    Arguments:
        curvature: loss in bits/dim at a log rate one unit above the best.
        asymmetry: how many times steeper the loss rises below the best rate.
        spread: standard deviation of a run's loss over seeds, bits/dim.
        width: length of the interval of log rates that is searched; the best rates lie in its middle half.
        apart: distance between the best log rates of the two models, as a share of ``width``.
        trials: rates that are tried.
        pilots: pilot seeds of each trial.
        seeds: seeds of the evaluation.
        factor: w, 1 for no factor.
    """

    curvature: float = 0.04
    asymmetry: float = 2.5
    spread: float = 0.018
    width: float = 2.7
    apart: float = 0.0
    trials: int = 6
    pilots: int = 2
    seeds: int = 6
    factor: float = 1.0

    def loss(self, away: Numbers) -> Numbers:
        """Return the expected loss above the best, at distances from the best log rate."""
        return np.where(away < 0, self.asymmetry, 1) * self.curvature * away**2


def lowest(tried: Numbers, losses: Numbers) -> Numbers:
    """Take the rate of the trial with the lowest loss: (N, K) to (N,)."""
    return np.take_along_axis(tried, losses.argmin(1)[:, None], 1)[:, 0]


def fitted(tried: Numbers, losses: Numbers, degree: int) -> Numbers:
    """Take the lowest point, within the trials, of the polynomial that fits the losses best: (N, K) to (N,)."""
    coefficients = np.polynomial.polynomial.polyfit(tried[0], losses.T, degree)
    places = np.linspace(tried.min(), tried.max(), PLACES)
    return places[np.polynomial.polynomial.polyval(places, coefficients).argmin(1)]


def grid(setting: Setting, simulations: int) -> Numbers:
    """Return equidistant log rates, (N, K)."""
    return np.tile(setting.width * np.linspace(-0.5, 0.5, setting.trials), (simulations, 1))


Choice = Callable[[Numbers, Numbers], Numbers]
# The ways to choose a rate: whether the trials are at random places, and the choice among them.
WAYS: dict[str, tuple[bool, Choice]] = {
    "best of random trials": (True, lowest),
    "best of a grid": (False, lowest),
    "parabola through a grid": (False, lambda tried, losses: fitted(tried, losses, 2)),
    "cubic through a grid": (False, lambda tried, losses: fitted(tried, losses, 3)),
}


def coverage(setting: Setting, way: str, seed: int = 0) -> tuple[float, float, float]:
    """Return the share of intervals with the truth inside, their mean half-width, and the mean loss above the best, bits/dim."""
    generator = np.random.default_rng(seed)
    centre = setting.width / 2 * (generator.random(SIMULATIONS) - 0.5)
    at_random, choose = WAYS[way]
    losses = []
    for sign in (-1, 1):
        best = centre + sign * setting.apart * setting.width / 2
        tried = grid(setting, SIMULATIONS)
        if at_random:
            tried = setting.width * (generator.random(tried.shape) - 0.5)
        noise = setting.spread / np.sqrt(setting.pilots) * generator.standard_normal(tried.shape)
        rate = choose(tried, setting.loss(tried - best[:, None]) + noise)
        shape = (SIMULATIONS, setting.seeds)
        rates = rate[:, None] + np.log(setting.factor) * (generator.random(shape) - 0.5)
        losses.append(setting.loss(rates - best[:, None]) + setting.spread * generator.standard_normal(shape))
    differences = losses[1] - losses[0]
    point = -special.stdtrit(setting.seeds - 1, (1 - LEVEL) / 2)
    half = point * differences.std(1, ddof=1) / np.sqrt(setting.seeds)
    covered = abs(differences.mean(1)) <= half
    return float(covered.mean()), float(half.mean()), float(np.mean(losses))


def table() -> list[dict[str, float | str]]:
    """Return, for each way and factor, the lowest coverage over curvatures, asymmetries and distances, and means over them."""
    rows: list[dict[str, float | str]] = []
    settings = [
        Setting(curvature=curvature, asymmetry=asymmetry, apart=apart)
        for curvature in (0.04, 0.08)
        for asymmetry in (1.0, 2.5, 4.0)
        for apart in (0.0, 0.25)
    ]
    for way in WAYS:
        for factor in (1.0, 1.7, 4.0):
            found = np.array([coverage(replace(setting, factor=factor), way) for setting in settings])
            rows.append(
                {
                    "choice of the rate": way,
                    "factor of each run": factor,
                    "lowest coverage": found[:, 0].min(),
                    "mean coverage": found[:, 0].mean(),
                    "half-width": found[:, 1].mean(),
                    "loss above the best": found[:, 2].mean(),
                }
            )
    return rows


if __name__ == "__main__":
    print(tabulate(table(), headers="keys", floatfmt=("", ".1f", ".3f", ".3f", ".3f", ".4f"), tablefmt="github"))
