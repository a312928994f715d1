"""Calculate what a registered suite can decide, from the spread of its pilot.

    python -m benchmarks.design docs/results/fashion-pilot params/fashion-full.yaml

Prints a row for each primary claim and objective of the pilot: the probability, in %, that the suite's seeds give each verdict if
the true effect is 0, twice the smallest effect, or the pilot's, and that they find the claim matched by ``same-compute`` if the
true effect against it is the pilot's. Spreads over seeds and images, the mean gap of DDPM++, and the numbers of primary rows and of
controls are taken as the pilot's. See :func:`indm.report.grades.repeatability`.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

from indm.report.claims import SAME_COMPUTE
from indm.report.differences import PLACE, Comparison, Paired, compare, family_sizes
from indm.report.grades import lies
from indm.report.intervals import FEWEST_SEEDS, TAIL, estimate
from indm.report.power import with_seeds
from indm.report.results import read_rows
from indm.suite.claims import load_claims
from indm.suite.load import load_suite
from indm.suite.schema.suite import Suite

HEAD = (
    "claim",
    "objective",
    "seeds",
    "0: ruled out or contradicted",
    "2 δ: shown",
    "pilot's: shown",
    "not testable",
    "pilot's: matched",
)


def seeds(suite: Suite, place: Mapping[str, str], variant: str = "") -> int:
    """Count the seeds that INDM and a DDPM++ of a suite share at a dataset, SDE and objective."""
    runs = [run for run in suite.runs.values() if all(getattr(run, key) == place[key] for key in PLACE)]
    arms = [
        {run.seed for run in runs if (run.model, run.variant) == arm} for arm in (("indm", ""), ("ddpmpp", variant))
    ]
    return len(arms[0] & arms[1])


def row(one: Comparison, tail: float, suite: Suite) -> list[Any]:
    """Return the probabilities of a claim's verdicts at one objective."""
    smallest, count = one.claim.smallest.effect, seeds(suite, one.place)
    pilot = with_seeds(estimate(one.baseline.differences), count)
    above, ceiling = 1.0, 0.0
    if one.claim.floor is not None:
        against = with_seeds(estimate(one.baseline.against), count)
        above, ceiling = lies(against, above=smallest, start=tail), lies(against, by=smallest, end=tail)
    small = lies(pilot._replace(mean=0.0), by=smallest, end=tail) * (1 - ceiling)
    shown = [lies(each, above=smallest, start=tail) * above for each in (pilot._replace(mean=2 * smallest), pilot)]
    return [one.claim.id, one.place["objective"], count, small, *shown, ceiling, matched(one, tail, suite)]


def matched(one: Comparison, tail: float, suite: Suite) -> float | None:
    """Return how probably *same-compute* is found to match; ``None`` if the pilot did not run it."""
    control, count = one.controls.get(SAME_COMPUTE, Paired()), seeds(suite, one.place, SAME_COMPUTE)
    if not control.is_planned or count < FEWEST_SEEDS:
        return None
    return lies(
        with_seeds(estimate(control.differences), count), by=one.claim.smallest.effect, end=tail / one.run_controls
    )


def table(pilot: Path, suite: Path) -> str:
    """Return the table of a pilot's published results and a suite's file."""
    tables = pilot / "tables"
    compared = compare(
        read_rows(tables / "values.csv"),
        read_rows(tables / "images.csv.gz"),
        load_claims(Path("params/claims.yaml")),
        load_suite(Path(f"params/{pilot.name}.yaml")).failed_beyond,
    )
    planned = load_suite(suite)
    rows = [
        row(one, TAIL / size, planned)
        for one, size in zip(compared, family_sizes(compared), strict=True)
        if one.claim.family == "primary" and one.baseline.is_planned and seeds(planned, one.place) >= FEWEST_SEEDS
    ]
    shown = [[100 * cell if isinstance(cell, float) else cell for cell in cells] for cells in rows]
    return tabulate(shown, headers=HEAD, tablefmt="github", floatfmt=".0f")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pilot", type=Path)
    parser.add_argument("suite", type=Path)
    print(table(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
