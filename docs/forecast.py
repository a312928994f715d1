r"""Forecast from two lengths of training whether a lead at equal compute ends, if every lead is a power of the steps.

The lead of INDM over a DDPM++ that trains for its compute is its lead at equal steps less what DDPM++ gains from that compute,

.. math:: L(s) - G(s), \qquad L(s) = L_1 (s / s_1)^a, \qquad G(s) = G_1 (s / s_1)^b,

so its sign changes after :math:`s_1 (G_1 / L_1)^{1/(a - b)}` steps if b < a. Intervals are over seeds: the mean of each length is
drawn from Student's distribution around the mean that was found.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from indm.bench.kept.page import replace_block
from indm.report.differences import COMPUTE, SIMPLE, STEPS
from indm.report.intervals import Numbers
from indm.report.names import REFERENCE, TREATMENT, arm
from indm.report.rows import read_rows
from indm.variants import SAME_COMPUTE

# The suites of each dataset at its two lengths.
PAIRS = {"CIFAR-10": ("cifar10-1000", "cifar10-3000"), "Fashion-MNIST": ("fashion-full", "fashion-long")}
CLAIM, OBJECTIVE = "better-nelbo", "nll"
DRAWS, ENDS = 200_000, (0.025, 0.975)
PLAIN, OURS, CHEAP = arm(REFERENCE), arm(TREATMENT), arm(REFERENCE, "learned-curve-filter")
LEADS = {
    "lead": f"{OURS} over {PLAIN}, equal steps",
    "gain": f"{arm(REFERENCE, SAME_COMPUTE)} over {PLAIN}",
    "cheap": f"{CHEAP} over {PLAIN}",
    "over_flow": f"{CHEAP} over {OURS}",
}


class Power(NamedTuple):
    """A lead at both lengths, in bits/dim, its exponent, and draws of the lead at both lengths, shape (2, N)."""

    found: tuple[float, float]
    exponent: float
    draws: Numbers
    ratio: float

    def ends(self) -> tuple[float, float]:
        """Return the 95 % interval of the exponent, over the draws in which the lead is positive at both lengths."""
        low, high = np.quantile(self.exponents()[(self.draws > 0).all(0)], ENDS)
        return float(low), float(high)

    def exponents(self) -> Numbers:
        """Return the exponent of each draw, NaN or infinite where a lead is not positive."""
        return _exponent(self.draws[0], self.draws[1], self.ratio)


class Forecast(NamedTuple):
    """The two lengths, in steps, the power of each lead, the step of the change of sign, and its draws, infinite without one."""

    steps: tuple[int, int]
    powers: Mapping[str, Power]
    crossing: float
    crossings: Numbers


def forecast(published: Path, suites: tuple[str, str]) -> Forecast:
    """Forecast from the published tables of a short and a long suite.

    Arguments:
        published: the folder with one folder per published suite.
        suites: the names of both.
    """
    tables = [published / suite / "tables" for suite in suites]
    steps = tuple(_steps(folder / "learning_curve.csv") for folder in tables)
    leads = [_leads(folder / "differences.csv") for folder in tables]
    generator, ratio = np.random.default_rng(1), steps[1] / steps[0]
    powers = {name: _power([each[name] for each in leads], ratio, generator) for name in LEADS}
    lead, gain = powers["lead"], powers["gain"]
    crossing = _crossing(steps[0], lead.found[0], gain.found[0], lead.exponent, gain.exponent)
    drawn = _crossing(steps[0], lead.draws[0], gain.draws[0], lead.exponents(), gain.exponents())
    return Forecast((steps[0], steps[1]), powers, float(crossing), drawn)


def _steps(path: Path) -> int:
    table = read_rows(path)
    plain = table[(table["model"] == "indm") & (table["variant"] == "") & (table["objective"] == OBJECTIVE)]
    return int(plain["step"].max())


def _leads(path: Path) -> dict[str, "pd.Series[float]"]:
    """Return each lead in bits/dim, one per seed; differences of two leads are of the seeds that have both."""
    table = read_rows(path)
    table = table[(table["id"] == CLAIM) & (table["objective"] == OBJECTIVE)]
    over = {
        kind: table[table["comparison"] == kind].set_index("seed")["difference"] for kind in (STEPS, COMPUTE, SIMPLE)
    }
    lead = over[STEPS]
    return {
        "lead": lead,
        "gain": (lead - over[COMPUTE]).dropna(),
        "cheap": (lead - over[SIMPLE]).dropna(),
        "over_flow": -over[SIMPLE],
    }


def _power(leads: list["pd.Series[float]"], ratio: float, generator: np.random.Generator) -> Power:
    short, long = (np.asarray(lead, np.float64) for lead in leads)
    draws = np.stack([_draw(short, generator), _draw(long, generator)])
    found = (float(short.mean()), float(long.mean()))
    return Power(found, float(_exponent(*found, ratio)), draws, ratio)


def _draw(leads: Numbers, generator: np.random.Generator) -> Numbers:
    error = leads.std(ddof=1) / np.sqrt(len(leads))
    return leads.mean() + error * generator.standard_t(len(leads) - 1, DRAWS)


def _exponent(short: Any, long: Any, ratio: float) -> Any:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log(np.divide(long, short)) / np.log(ratio)


def _crossing(start: float, lead: Any, gain: Any, a: Any, b: Any) -> Any:
    """Return the steps after which gain and lead are equal: infinite if the gain does not fall faster, or one is not positive."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        steps = start * (gain / lead) ** (1 / (a - b))
    return np.where((a > b) & np.isfinite(steps), steps, np.inf)


def with_forecast(page: str, published: Path) -> str:
    """Return the report with the table of both lengths; unchanged if one of their suites is not published."""
    tables = [published / suite / "tables" for suites in PAIRS.values() for suite in suites]
    if not all(folder.is_dir() for folder in tables):
        return page
    return replace_block(page, "forecast", "\n".join(lines(published)), "docs/report.md")


def lines(published: Path) -> list[str]:
    """Write the leads at both lengths, their exponents, and when DDPM++'s lead at equal compute would end."""
    found = {name: forecast(published, suites) for name, suites in PAIRS.items()}
    text = ["| lead in NELBO, bits/dim | " + " | ".join(map(_title, found, found.values())) + " |"]
    text.append("|---" * (len(found) + 1) + "|")
    for key, label in LEADS.items():
        text.append(f"| {label} | {' | '.join(_lead(each.powers[key]) for each in found.values())} |")
    text.append(f"| {OURS} is level at equal compute after | {' | '.join(map(_when, found.values()))} |")
    return text


def _title(name: str, found: Forecast) -> str:
    return f"{name}, {found.steps[0]:,} → {found.steps[1]:,} steps"


def _lead(power: Power) -> str:
    low, high = power.ends()
    exponent = f"steps^{power.exponent:.2f} [{low:.2f}, {high:.2f}]".replace("-", "−")
    return f"{power.found[0]:.3f} → {power.found[1]:.3f}, {exponent}"


def _when(found: Forecast) -> str:
    early = float(np.quantile(found.crossings, 0.05))
    return f"{_rounded(found.crossing)}; 5 % of the draws: before {_rounded(early)}"


def _rounded(steps: float) -> str:
    """Write a number of steps with one significant digit, because it is known no better."""
    return f"{float(f'{steps:.0e}'):,.0f} steps" if np.isfinite(steps) else "no number of steps"
