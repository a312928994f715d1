"""Stage ``compute``: the table of costs, apart from the others because times differ from one execution to the next."""

from typing import TYPE_CHECKING, Any

from indm.errors import ArtifactError
from indm.report.compute import compute_table
from indm.report.schema import read_object
from indm.store.files import read_json, write_table
from indm.store.finished import Finished
from indm.store.layout import Layout

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite


def run(suite: "Suite", layout: Layout) -> Finished:
    """Write ``compute.csv``."""
    runs = {name: run.model_dump(exclude={"train", "sample"}) for name, run in suite.runs.items()}
    files = {
        kind: {name: read_object(layout.run(name) / f"{kind}.json", kind, name) for name in runs}
        for kind in ("train", "samples")
    }
    executions = {name: {stage: _provenance(layout, name, stage) for stage in ("train", "sample")} for name in runs}
    write_table(
        layout.tables / "compute.csv", compute_table(suite.suite, runs, files["train"], files["samples"], executions)
    )
    return Finished(layout.tables)


def _provenance(layout: Layout, run: str, stage: str) -> dict[str, Any]:
    """Read what is known of a stage's execution: nothing where the file did not travel with the results.

    Raises:
        ArtifactError: if it is damaged or another run's.
    """
    path = layout.run(run) / "provenance" / f"{stage}.json"
    if not path.is_file():
        return {}
    found = read_json(path)
    if found.get("subject") != run:
        raise ArtifactError(f"{path}: found that of {found.get('subject')!r}, expected that of {run!r}; delete it")
    return found
