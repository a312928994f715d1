"""What the ten minutes of the default suite are spent on: the allocation of most decided answers, by calculation.

``python -m benchmarks.default_suite`` prints the table of ``docs/verdict-errors.md``. Spreads and costs come from
published results, and spreads at other lengths of training follow a power law through the two lengths that are published.
A row is decided in the sense of ``indm.report.grades``: if the true effect is 0, its interval ends at or below the smallest effect;
if it is twice the smallest, the interval begins above it. Both truths count one half. The second question counts likewise, by
``same-compute`` alone: with 0 it is matched; with twice the smallest effect it is never decided, since other controls are missing.
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tabulate import tabulate

from indm.report.grades import lies
from indm.report.intervals import FEWEST_SEEDS, TAIL, Estimate
from tests.checkout import REPOSITORY

# Core-seconds for runs: ten minutes of two cores, less what is shared by all runs and what the last jobs leave idle.
BUDGET = 900.0
# Core-seconds of a run outside its training, of DDPM++ and INDM: images, FID, likelihoods, curve or sweep, starting.
OVERHEAD = {"nll": (22.0, 33.0), "fid": (19.0, 33.0)}
# Rows by objective: stage, metric, and the smallest effect.
ROWS = {
    "nll": [("nll", "nll", 0.01), ("nll", "gap", 0.01), ("curve", "gap", 0.01)],
    "fid": [("nll", "nll", 0.01), ("nll", "gap", 0.01), ("fid", "fid", 0.1), ("sweep", "fid", 0.1)],
}
# Published lengths of training, of digits and of digits-full; and those that are tried.
LENGTHS = {"nll": (400, 3200), "fid": (250, 2400)}
TRIED = {"nll": (400, 800, 1600), "fid": (250, 500, 1000)}
FEW = (16, 32)


class Part(NamedTuple):
    """What is spent on one objective: steps of a training, pairs of DDPM++ and INDM, and runs of ``same-compute``."""

    steps: int
    pairs: int
    controls: int


def spread(suite: str, objective: str, stage: str, metric: str) -> float:
    """Return the standard deviation over seeds of the paired difference of DDPM++ and INDM in a published suite."""
    values = pd.read_csv(_tables(suite) / "values.csv", keep_default_na=False)
    found = values[(values["objective"] == objective) & (values["stage"] == stage) & (values["metric"] == metric)]
    found = found[(found["sde"] == "vp") & (found["variant"] == "")]
    if stage == "sweep":
        points = pd.to_numeric(found["x"]).isin(FEW)
        found = found[points & (found["sampler"] != "ode_euler")]
    numbers = pd.to_numeric(found["value"])
    numbers = np.log(numbers) if metric == "fid" else numbers
    of_models = numbers.groupby([found["model"], found["seed"]]).mean().unstack(0)
    return float((of_models["ddpmpp"] - of_models["indm"]).std())


def spreads(objective: str) -> dict[int, list[float]]:
    """Return the spread of each row at each length that is tried."""
    short, long = (np.array([spread(suite, objective, *row[:2]) for row in ROWS[objective]]) for suite in _SUITES)
    power = np.log(long / short) / np.log(LENGTHS[objective][1] / LENGTHS[objective][0])
    return {steps: list(short * (steps / LENGTHS[objective][0]) ** power) for steps in TRIED[objective]}


_SUITES = ("digits", "digits-full")


def _tables(suite: str) -> Path:
    return REPOSITORY / "docs/results" / suite / "tables"


def costs(objective: str) -> tuple[float, float]:
    """Return the core-seconds of a step of DDPM++ and of INDM."""
    compute = pd.read_csv(_tables("digits") / "compute.csv", keep_default_na=False)
    found = compute[(compute["objective"] == objective) & (compute["variant"] == "")].set_index("model")
    return tuple(pd.to_numeric(found["ms_per_step"]).loc[["ddpmpp", "indm"]] / 1000)


def cost(objective: str, part: Part) -> float:
    """Return the core-seconds of a part; ``same-compute`` trains for as long as INDM and is measured as DDPM++."""
    (linear, flow), (shorter, longer) = costs(objective), OVERHEAD[objective]
    pair = part.steps * (linear + flow) + shorter + longer
    return part.pairs * pair + part.controls * (part.steps * flow + shorter)


def power(seeds: int, sd: float, distance: float, tail: float) -> float:
    """Return how probably an interval of as many seeds lies beyond a bound that is this far from the true effect."""
    if seeds < FEWEST_SEEDS:
        return 0.0
    return lies(Estimate(distance, sd**2 / seeds, 0.0, seeds), above=0.0, start=tail)


def decided(parts: dict[str, Part], known: dict[str, dict[int, list[float]]]) -> tuple[float, float]:
    """Return how many answers to each question are expected to be decided."""
    rows = sum(len(ROWS[objective]) for objective, part in parts.items() if part.pairs >= FEWEST_SEEDS)
    first = second = 0.0
    for objective, part in parts.items():
        for (*_, smallest), sd in zip(ROWS[objective], known[objective][part.steps], strict=True):
            first += power(part.pairs, sd, smallest, TAIL / max(rows, 1))
            second += power(part.controls, sd, smallest, TAIL / max(rows, 1)) / 2
    return first, second


def allocations(objective: str) -> Iterator[Part]:
    """Yield what could be spent on an objective."""
    for steps in TRIED[objective]:
        for pairs in range(FEWEST_SEEDS, 20):
            yield from (Part(steps, pairs, controls) for controls in (0, *range(FEWEST_SEEDS, pairs + 1)))


def table(most: int = 8) -> pd.DataFrame:
    """Tabulate the allocations within the budget in which most answers are decided, some rows with a control."""
    known = {objective: spreads(objective) for objective in ROWS}
    parts = {o: [(part, spent) for part in allocations(o) if (spent := cost(o, part)) < BUDGET] for o in ROWS}
    rows = []
    for (nll, of_nll), (fid, of_fid) in product(parts["nll"], parts["fid"]):
        if of_nll + of_fid > BUDGET or not nll.controls + fid.controls:
            continue
        first, second = decided({"nll": nll, "fid": fid}, known)
        rows.append([*nll, *fid, of_nll + of_fid, first, second, first + second])
    columns = [f"{key} ({objective})" for objective in ROWS for key in Part._fields]
    found = pd.DataFrame(rows, columns=[*columns, "core-seconds", "holds", "flow", "decided"])
    return found.sort_values("decided", ascending=False).head(most)


if __name__ == "__main__":
    print(tabulate(table(), headers="keys", tablefmt="github", floatfmt=".2f", showindex=False))
