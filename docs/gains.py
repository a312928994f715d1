"""README's table: the gain of each map over no map, with one sign, its multiple of training and the cost of its step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from docs.answers import FILTER, MAPS, PHOTOGRAPHS
from docs.report import is_finished
from indm.bench.kept.page import replace_block
from indm.report.differences import COMPUTE, STEPS
from indm.report.matrix import table
from indm.report.multiples import Arm, Trained, read_multiples
from indm.report.names import REFERENCE, TREATMENT, name
from indm.report.rows import read_rows, records

PLACE = "README.md"
# The columns, with the suites whose models are shown; of two suites with a model, the first one counts.
COLUMNS = {
    "CIFAR-10": ("cifar10-maps", "cifar10-precondition"),
    "CelebA": ("celeba64-6000",),
    "Fashion-MNIST": ("fashion-full", "fashion-filters"),
}
FLOW = (TREATMENT, "")


class Row(NamedTuple):
    """A row: a model, and the claim and comparison that have its gain."""

    says: str
    model: Arm
    claim: str
    comparison: str


ROWS = (
    Row("a fixed filter", (REFERENCE, FILTER), "better-nelbo-fixed-filter", STEPS),
    Row(
        "no map, a network that knows the spectrum", (REFERENCE, "preconditioned"), "better-nelbo-preconditioned", STEPS
    ),
    Row("a learned curve and filter", (REFERENCE, MAPS), "better-nelbo-maps", STEPS),
    Row("INDM’s small flow", FLOW, "better-nelbo", STEPS),
    Row("INDM’s small flow, if no map trains for its compute", FLOW, "better-nelbo", COMPUTE),
)


def with_gains(page: str, published: Path) -> str:
    """Return README with the table; unchanged if none of its suites is published.

    Arguments:
        page: its text.
        published: the folder with one folder per published suite, which has ``tables/``.

    Raises:
        ArtifactError: if a table is missing or damaged, or the page has no place for the table.
    """
    suites = {title: [it for it in asked if is_finished(published, it)] for title, asked in COLUMNS.items()}
    if not all(suites.values()):
        return page
    found = {it: _read(published / it / "tables") for asked in suites.values() for it in asked}
    rows = [_row(row, {title: [found[it] for it in asked] for title, asked in suites.items()}) for row in ROWS]
    headings = ("gain over no map, bits/dim", "cost of a step", *suites)
    return replace_block(page, "gains", table(headings, filter(None, rows), numbers=True), PLACE)


class Suite(NamedTuple):
    """The gains of a suite by claim and comparison, and its multiples of training by model."""

    gains: Mapping[tuple[str, str], Mapping[str, Any]]
    trained: Mapping[Arm, Trained]


def _read(tables: Path) -> Suite:
    claims = read_rows(tables / "claims.csv").query("objective == 'nll'").dropna(subset="effect")
    gains = {(row["id"], row["comparison"]): row for row in records(claims)}
    return Suite(gains, {one.arm: one for one in read_multiples(tables)})


def _row(row: Row, columns: Mapping[str, list[Suite]]) -> list[str]:
    """Write a row; empty if no suite has the model."""
    asked = row.claim, row.comparison
    cells, costs = [], []
    for title, suites in columns.items():
        having = [it for it in suites if asked in it.gains]
        cells.append(_cell(row, having[0]) if having else _absent(row, title))
        costs += [it.trained[row.model].flops for it in having if row.model in it.trained]
    return [row.says, _cost(costs), *cells] if costs else []


def _cell(row: Row, suite: Suite) -> str:
    """Write a gain with its verdict, and below it the multiple of training at equal steps."""
    claim = suite.gains[row.claim, row.comparison]
    marked = name(claim["verdict"]) + r" \*" * (claim["family"] != "primary")
    one = suite.trained.get(row.model) if row.comparison == STEPS else None
    below = f"{marked}; × {one.multiple.value:.2f}" if one else marked
    return f"{claim['effect']:.3f}<br><sub>{below}</sub>".replace("-", "−", 1)


def _cost(costs: list[float]) -> str:
    """Write the range of the FLOPs of a step, in steps of DDPM++."""
    low, *_, high = sorted(f"{cost:.2f}" for cost in costs * 2)
    return f"× {low}" if low == high else f"× {low} to {high}"


def _absent(row: Row, title: str) -> str:
    """Write that a model was not run; of the fixed filter, that it was run on photographs only, if these are others."""
    on_photographs = row.model == (REFERENCE, FILTER) and not PHOTOGRAPHS & {*COLUMNS[title]}
    return "not run<br><sub>run on photographs only</sub>" if on_photographs else "not run"
