"""Stage ``compute``: the table of costs, separate from the others because times differ between executions."""

from typing import TYPE_CHECKING, Any

from indm.report.compute import compute_table
from indm.report.export import write_published
from indm.report.numbers import FILES
from indm.report.rows import read_object
from indm.store.layout import Layout
from indm.store.provenance import Finished, read_provenance

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite


def run(suite: "Suite", layout: Layout) -> Finished:
    """Write ``compute.csv``."""
    runs = {name: run.model_dump(exclude={"train", "sample"}) for name, run in suite.runs.items()}
    files = {
        stage: {name: read_object(layout.suite_folder / FILES[stage].format(name), stage, name) for name in runs}
        for stage in ("train", "sample")
    }
    executions = {name: {stage: _execution(layout, name, stage) for stage in files} for name in runs}
    table = compute_table(suite.suite, runs, files["train"], files["sample"], executions)
    write_published(layout.tables / "compute.csv", table)
    return Finished(layout.tables)


def _execution(layout: Layout, run: str, stage: str) -> dict[str, Any]:
    """Read the record of a stage's execution; empty if the results came without the file."""
    path = layout.run(run) / "provenance" / f"{stage}.json"
    return read_provenance(path, layout.suite, run) if path.is_file() else {}
