"""Calculate how INDM's lead changes from one suite to another that trains for longer.

    python -m benchmarks.lead docs/results/fashion-full docs/results/fashion-long

Prints a row for each likelihood and opponent: the mean lead over seeds in both suites, the change, its 95 % interval by Welch's t
over seeds, and whether the lead *grows* (the interval lies above 0), *shrinks* (below 0), *stays* (within the smallest effect that
counts, on either side of 0) or is *open*. The rule was registered with the suite ``fashion-long``.
"""

import argparse
from pathlib import Path

import pandas as pd
from scipy import stats
from tabulate import tabulate

from indm.report.results import read_rows

CLAIMS = ("better-nelbo", "better-nll")
SMALLEST = 0.01
HEAD = ("claim", "against", "lead", "seeds", "longer: lead", "seeds", "change", "from", "to", "answer")


def leads(folder: Path) -> dict[tuple[str, str], "pd.Series[float]"]:
    """Return the lead of each seed in a published suite, bits/dim, by claim and opponent, with the objective ``nll``."""
    table = read_rows(folder / "tables/differences.csv")
    table = table[table["id"].isin(CLAIMS) & (table["objective"] == "nll")]
    return {
        (str(claim), str(against)): part["difference"] for (claim, against), part in table.groupby(["id", "against"])
    }


def answer(low: float, high: float) -> str:
    """Return how a lead changes if the change has the interval from ``low`` to ``high``, bits/dim."""
    if low > 0:
        return "grows"
    if high < 0:
        return "shrinks"
    return "stays" if low >= -SMALLEST and high <= SMALLEST else "open"


def table(short: Path, longer: Path) -> str:
    """Return the table of two published suites."""
    before, after = leads(short), leads(longer)
    rows = []
    for key in before.keys() & after.keys():
        first, second = before[key], after[key]
        low, high = stats.ttest_ind(second, first, equal_var=False).confidence_interval(0.95)
        means = first.mean(), len(first), second.mean(), len(second), second.mean() - first.mean()
        rows.append([*key, *means, low, high, answer(low, high)])
    return tabulate(sorted(rows), headers=HEAD, tablefmt="github", floatfmt=".3f")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("short", type=Path)
    parser.add_argument("longer", type=Path)
    print(table(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
