"""Stage ``claims``: the paper's claims, graded, and its numbers next to ours."""

from pathlib import Path
from typing import TYPE_CHECKING

from indm.bench.suite.borne_out import contradictions
from indm.bench.suite.claims import load_claims
from indm.bench.suite.registrations import changed_seeds
from indm.report.comparison import comparison_table
from indm.report.differences import compare
from indm.report.export import write_published
from indm.report.numbers import Tidy
from indm.report.published import read_published
from indm.report.registrations import load_registrations
from indm.report.rows import read_rows
from indm.report.sides import Codes
from indm.report.verdicts import claims_table, differences_table, without_verdicts
from indm.store.layout import Layout
from indm.store.manifest import read_manifest
from indm.store.provenance import Finished

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite


def run(suite: "Suite", layout: Layout) -> Finished:
    """Write ``claims.csv``, ``differences.csv`` and ``comparison.csv``."""
    claims = load_claims(Path("params/claims.yaml"))
    published = read_published(Path("params/published.csv"))
    numbers = Tidy(layout.suite_folder)
    fid, nll = (read_rows(layout.tables / f"{name}.csv") for name in ("fid", "nll"))
    registrations = load_registrations(Path("params/registrations.yaml"))
    registration = registrations.of(suite.suite)
    registered = registration.seeds if registration else {}
    compared = compare(numbers.values, numbers.images, claims, suite.grading, suite.failed_beyond, registered)
    changes = changed_seeds(registration, suite)
    graded = claims_table(compared, suite.suite, suite.grading.rows, changes, _codes(suite, layout))
    graded = without_verdicts(graded, contradictions(registrations, suite.suite).values())
    write_published(layout.tables / "claims.csv", graded)
    write_published(layout.tables / "differences.csv", differences_table(compared, suite.suite))
    write_published(
        layout.tables / "comparison.csv", comparison_table(suite.suite, fid, nll, numbers.values, published)
    )
    return Finished(layout.tables)


def _codes(suite: "Suite", layout: Layout) -> Codes:
    """Read the code behind each run from its manifests; nothing, if the numbers are those that were published."""
    published = Path("docs/results") / suite.suite / "tables/values.csv"
    if published.is_file() and published.read_bytes() == (layout.tables / "values.csv").read_bytes():
        return {}
    found = {}
    for name, run in suite.runs.items():
        made = [read_manifest(path) for path in sorted((layout.run(name) / "manifest").glob("*.json"))]
        cell = (run.dataset, run.sde, run.objective, run.model, run.variant, run.seed)
        found[cell] = {each.stage: each.modules for each in made}
    return found
