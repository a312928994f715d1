"""The seeds of a suite, beside those that were registered before its runs."""

from typing import TYPE_CHECKING

from indm.bench.suite.load import suite_sha256
from indm.report.registrations import Registration

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite

# A text names so many cells whose seeds have changed, and counts the others.
NAMED = 2


def planned_seeds(suite: "Suite") -> dict[str, list[int]]:
    """List the seeds of each cell of a suite, with those that failed, and of each known density and length, in their order."""
    found: dict[str, list[int]] = {}
    for run in (*suite.runs.values(), *suite.failed.values()):
        found.setdefault(run.cell, []).append(run.seed)
    for job in suite.toy2d.datasets.values():
        found.setdefault(job.label, []).extend(job.seeds)
    return {name: sorted(seeds) for name, seeds in found.items()}


def changed_seeds(registration: Registration | None, suite: "Suite") -> str:
    """Describe how the seeds of a suite's registered cells have changed since; empty if they have not, or were not registered."""
    if registration is None:
        return ""
    if not registration.seeds:
        same = registration.suite_sha256 == suite_sha256(suite)
        return "" if same else "the suite, whose seeds the registration does not record"
    planned, changes = planned_seeds(suite), []
    for cell, registered in registration.seeds.items():
        now = planned.get(cell, [])
        struck, added = set(registered) - set(now), set(now) - set(registered)
        if struck:
            changes.append(f"{len(struck)} of {len(registered)} seeds of {cell} struck")
        if added:
            changes.append(f"{len(added)} added to {cell}")
    more = [f"and {len(changes) - NAMED} more such changes"] if len(changes) > NAMED else []
    return ", ".join(changes[:NAMED] + more)
