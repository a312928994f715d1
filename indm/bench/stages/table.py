"""Stage ``table``: the suite's tables, from its result files."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indm.bench.pipeline.stages import STAGES, has_clusters
from indm.errors import ArtifactError
from indm.registry import DIFFUSIONS
from indm.report.export import write_published
from indm.report.published import read_published
from indm.report.results import Measured, read_results
from indm.report.tables import suite_tables
from indm.store.files import AGAIN, read_json
from indm.store.layout import Layout
from indm.store.provenance import Finished

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import RunParams, Suite


def run(suite: "Suite", layout: Layout) -> Finished:
    """Write the tidy tables ``values.csv`` and ``images.csv``, and a table for every kind of result, empty if not asked for."""
    published = read_published(Path("params/published.csv"))
    results = read_results(layout, _measured(suite, layout), partial(_alpha, suite))
    for name, table in suite_tables(results, published, suite.grading.decoder).items():
        write_published(layout.tables / f"{name}.csv", table)
    return Finished(layout.tables)


def _measured(suite: "Suite", layout: Layout) -> Measured:
    """Say what the suite measures."""
    return Measured(
        runs=_identities(suite.runs),
        datasets=[*suite.reference],
        curve=STAGES["curve"].subjects(suite),
        flow=STAGES["flow"].subjects(suite),
        sweep=STAGES["sweep"].subjects(suite),
        tune=STAGES["tune"].subjects(suite),
        toy2d={name: job.label for name, job in suite.toy2d.datasets.items()},
        toy2d_grid=suite.toy2d.grid,
        protocol={dataset: section.run for dataset, section in suite.protocol.items()},
        failed=list(_identities(suite.failed).values()),
        clusters={name: _clusters(layout.data(name)) for name in filter(has_clusters, suite.datasets)},
    )


def _identities(runs: "Mapping[str, RunParams]") -> dict[str, dict[str, Any]]:
    return {name: run.model_dump(exclude={"train", "sample"}) for name, run in runs.items()}


def _clusters(data: Path) -> list[int]:
    """Read the cluster of each test image of a dataset whose images come in clusters."""
    found: list[int] | None = read_json(path := data / "dataset.json").get("test_clusters")
    if found is None:
        raise ArtifactError(f"{path}: found no test_clusters, expected the cluster of each test image; {AGAIN}")
    return found


def _alpha(suite: "Suite", name: str) -> float:
    """Calculate alpha at eps of a run's diffusion; NaN if its log-SNR is learned, which the suite does not tell."""
    import torch  # Imported here because it takes seconds, and only earlier results need it.

    diffusion, sde = DIFFUSIONS[suite.runs[name].sde], suite.train_params(name).sde
    section = getattr(sde, diffusion.section).model_dump()
    if section.pop("learned_range", False):
        return math.nan
    return float(diffusion(**section).alpha(torch.tensor(sde.eps, dtype=torch.float64)))
