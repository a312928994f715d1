"""Stage ``report``: the suite's report, from its tables, figures, pictures and provenance."""

from pathlib import Path
from typing import TYPE_CHECKING

from indm.bench.pipeline.stages import STAGES
from indm.bench.suite.borne_out import contradictions
from indm.bench.suite.claims import load_claims
from indm.bench.suite.load import claims_sha256, suite_sha256
from indm.bench.suite.registrations import changed_seeds
from indm.report.page.contents import Contents
from indm.report.page.render import render
from indm.report.registrations import load_registrations
from indm.store.files import atomic_write
from indm.store.layout import Layout
from indm.store.provenance import Finished

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite


def run(suite: "Suite", layout: Layout, reports: Path) -> Finished:
    """Write ``index.html``."""
    folder = reports / suite.suite
    page = render(contents(suite), layout.suite_folder, folder / "figures", Path("params/evidence.csv"))
    with atomic_write(folder / "index.html") as file:
        file.write(page.encode())
    return Finished(folder)


def contents(suite: "Suite") -> Contents:
    """Collect the contents of a suite for its report."""
    registrations = load_registrations(Path("params/registrations.yaml"))
    keys = {"dataset", "sde", "model", "variant", "objective", "seed"}
    stages: dict[str, list[str]] = {}
    for name, stage in STAGES.items():
        for subject in stage.subjects(suite):
            stages.setdefault(subject, []).append(name)
    registration = registrations.of(suite.suite)
    return Contents(
        suite=suite.suite,
        sha256=suite_sha256(suite),
        stages=stages,
        runs={
            name: run.model_dump(include=keys) | suite.train_params(name).model_dump(include={"steps", "batch_size"})
            for name, run in suite.runs.items()
        },
        datasets=list(suite.datasets),
        protocol=list(suite.protocol),
        toy2d=list(suite.toy2d.datasets),
        planes=list(dict.fromkeys(job.label for job in suite.toy2d.datasets.values() if job.is_plane)),
        claims_sha256=claims_sha256(load_claims(Path("params/claims.yaml"))),
        registration=registration,
        changed_seeds=changed_seeds(registration, suite),
        added=registrations.added_to(suite.suite),
        contradicted=contradictions(registrations, suite.suite),
    )
