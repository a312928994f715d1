"""Stage ``report``: the suite's page, from its tables, figures, pictures and provenance."""

from pathlib import Path
from typing import TYPE_CHECKING

from indm.report.page.render import render
from indm.store.files import atomic_write
from indm.store.finished import Finished
from indm.store.layout import Layout

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite


def run(suite: "Suite", layout: Layout, reports: Path) -> Finished:
    """Write ``index.html``."""
    folder = reports / suite.suite
    runs = {
        name: run.model_dump(include={"dataset", "sde", "model", "variant", "objective", "seed"})
        for name, run in suite.runs.items()
    }
    page = render(suite.suite, runs, layout.suite_folder, folder / "figures", Path("params"))
    with atomic_write(folder / "index.html") as file:
        file.write(page.encode())
    return Finished(folder)
