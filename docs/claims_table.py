"""The table of the paper's claims in README.md and docs/results/README.md: counted from the published verdicts."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from docs.answers import DENSITIES, SUITES
from indm.bench.kept.page import replace_block
from indm.report.answers import answers_of, tally
from indm.report.differences import COMPUTE, STEPS
from indm.report.matrix import ABSENT, table
from indm.report.names import name
from indm.report.rows import read_rows


class Row(NamedTuple):
    """A claim: what the paper says, the claim of params/claims.yaml, the suites that are counted, and what was not tested."""

    says: str
    claim: str
    suites: tuple[str, ...]
    untested: str


IMAGES, KNOWN = tuple(SUITES), (DENSITIES,)
ROWS = (
    Row("better likelihood bound (NELBO), images", "better-nelbo", IMAGES, "the paper's size"),
    Row("better likelihood bound (NELBO), known densities", "better-nelbo-known", KNOWN, ABSENT),
    Row("better likelihood (NLL), images", "better-nll", IMAGES, "CelebA; the paper's size"),
    Row("better likelihood (NLL), known densities", "better-nll-known", KNOWN, ABSENT),
    Row("better images (FID)", "lower-fid", IMAGES, "CIFAR-10 and CelebA; features of Inception"),
    Row("smaller variational gap, two dimensions", "smaller-gap-known", KNOWN, "images, but for a stand-in"),
    Row(
        "few sampling steps suffice, known densities",
        "coarse-discretisation-known",
        KNOWN,
        "images, but for 8×8 digits",
    ),
    Row("straighter paths (first version), known densities", "shorter-paths-known", KNOWN, "images"),
    Row(
        "nonlinearity is what helps: a curve added to a filter",
        "better-nelbo-curve-with-filter",
        IMAGES,
        "the curve without its scale",
    ),
)
# Behind exploratory counts.
MARK = r" \*"
HEADINGS = ("the paper says", "here, at equal steps", "here, at equal compute", "not tested")


class Counted(NamedTuple):
    """The comparisons of a claim that have a number: how many have each verdict, and whether all are exploratory."""

    verdicts: dict[str, int]
    exploratory: bool


def with_claims(page: str, published: Path, place: str) -> str:
    """Return a page with the table of claims; unchanged if a suite of it is not published.

    Arguments:
        page: its text.
        published: the folder with one folder per published suite, which has ``tables/``.
        place: the page's file, for messages.

    Raises:
        ArtifactError: if a table is missing or damaged, or the page has no place for the table.
    """
    suites = {suite for row in ROWS for suite in row.suites}
    if not all((published / suite / "tables/claims.csv").is_file() for suite in suites):
        return page
    return replace_block(page, "claims", claims_table(published, ROWS), place)


def claims_table(published: Path, rows: Iterable[Row]) -> str:
    """Write a row per claim, with its verdicts at equal steps and at equal compute; see :func:`with_claims`."""
    cells = [
        (row.says, *(_cell(count(published, row, kind)) for kind in (STEPS, COMPUTE)), row.untested) for row in rows
    ]
    return table(HEADINGS, cells)


def count(published: Path, row: Row, comparison: str) -> Counted:
    """Count the verdicts of a claim in its suites."""
    tables = [read_rows(published / suite / "tables/claims.csv") for suite in row.suites]
    answers = [it for found in tables for it in answers_of(found[found["id"] == row.claim])]
    compared = [one for it in answers for one in it.cells.get(comparison, [])]
    return Counted(tally(compared), not any(it.is_primary for it in answers))


def _cell(found: Counted) -> str:
    """Write how often each verdict was found, of how many comparisons; an asterisk marks exploratory ones."""
    total = sum(found.verdicts.values())
    if not total:
        return ABSENT
    counts = [f"{name(verdict)} in {number}" for verdict, number in found.verdicts.items()]
    return f"{counts[0]} of {total}{''.join(f', {it}' for it in counts[1:])}{MARK * found.exploratory}"
