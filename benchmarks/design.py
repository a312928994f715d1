"""Calculate what a registered suite can decide, from the spread of its pilot.

    python -m benchmarks.design docs/results/fashion-pilot params/fashion-full.yaml

Prints a row for each primary claim and objective of the pilot: the probability, in %, that the suite's seeds give each verdict if
the true effect is 0, twice the smallest effect, or the pilot's, and that they find the claim matched by ``same-compute`` if the
true effect against it is the pilot's. Spreads over seeds and images and the mean gap of DDPM++ are taken as the pilot's. The method
is that of :func:`indm.report.grades.repeatability`.
"""

import argparse
from pathlib import Path
from typing import Any

from tabulate import tabulate

from indm.report.claims import SAME_COMPUTE
from indm.report.differences import Comparison, Paired, compare, family_sizes
from indm.report.grades import lies
from indm.report.intervals import TAIL, Estimate, Numbers, estimate
from indm.report.results import read_rows
from indm.suite.claims import load_claims
from indm.suite.load import load_suite
from indm.suite.schema.suite import Suite

HEAD = (
    "claim",
    "objective",
    "seeds",
    "0: ruled out",
    "2 δ: shown",
    "pilot's: shown",
    "not testable",
    "pilot's: matched",
)


def seeds(suite: Suite, objective: str, variant: str = "") -> int:
    """Count the seeds that INDM and a DDPM++ of a suite share."""
    runs = [run for run in suite.runs.values() if run.objective == objective]
    arms = [
        {run.seed for run in runs if (run.model, run.variant) == arm} for arm in (("indm", ""), ("ddpmpp", variant))
    ]
    return len(arms[0] & arms[1])


def with_seeds(numbers: Numbers, count: int, mean: float | None = None) -> Estimate:
    """Return the estimate that as many seeds of this spread would give, with another mean if one is given."""
    found = estimate(numbers)
    mean = found.mean if mean is None else mean
    return found._replace(mean=mean, of_seeds=found.of_seeds * found.seeds / count, seeds=count)


def row(one: Comparison, tail: float, suite: Suite) -> list[Any]:
    """Return the probabilities of a claim's verdicts at one objective."""
    objective, smallest, baseline = one.place["objective"], one.claim.smallest.effect, one.baseline
    count = seeds(suite, objective)
    found = {mean: with_seeds(baseline.differences, count, mean) for mean in (0.0, 2 * smallest)}
    pilot = with_seeds(baseline.differences, count)
    above, ceiling = 1.0, 0.0
    if one.claim.floor is not None:
        against = with_seeds(baseline.against, count)
        above, ceiling = lies(against, above=smallest, start=tail), lies(against, by=smallest, end=tail)
    small = lies(found[0.0], by=smallest, end=tail) * (1 - ceiling)
    shown = [lies(each, above=smallest, start=tail) * above for each in (found[2 * smallest], pilot)]
    return [one.claim.id, objective, count, small, *shown, ceiling, matched(one, tail, suite)]


def matched(one: Comparison, tail: float, suite: Suite) -> float | None:
    """Return how probably *same-compute* is found to match; ``None`` if the pilot did not run it."""
    control, count = one.controls.get(SAME_COMPUTE, Paired()), seeds(suite, one.place["objective"], SAME_COMPUTE)
    if not control.is_planned or not count:
        return None
    found = with_seeds(control.differences, count)
    return lies(found, by=one.claim.smallest.effect, end=tail / one.run_controls)


def table(pilot: Path, suite: Path) -> str:
    """Return the table of a pilot's published results and a suite's file."""
    tables = pilot / "tables"
    compared = compare(
        read_rows(tables / "values.csv"),
        read_rows(tables / "images.csv.gz"),
        load_claims(Path("params/claims.yaml")),
        load_suite(Path(f"params/{pilot.name}.yaml")).failed_beyond,
    )
    asked = zip(compared, family_sizes(compared), strict=True)
    rows = [
        row(one, TAIL / size, load_suite(suite))
        for one, size in asked
        if one.claim.family == "primary" and one.baseline.is_planned
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
