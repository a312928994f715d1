"""The suite's page: one HTML file that needs no network, made of result files and of nothing else.

Every number of a table carries the text it has in its file (``data-value``). What is missing is named, with the command that
makes it.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from indm.report.page.missing import missing_figure
from indm.report.page.pictures import galleries, read_figures
from indm.report.page.sources import caveats, origins, read_provenance
from indm.report.page.tables import read_table
from indm.report.page.verdicts import summarise_claims

TABLES = (
    "claims",
    "comparison",
    "fid",
    "nll",
    "discretization",
    "learning_curve",
    "ablation",
    "protocol",
    "toy2d",
    "compute",
    "values",
)


def render(suite: str, runs: Mapping[str, Mapping[str, Any]], results: Path, figures: Path, params: Path) -> str:
    """Render the page of a suite.

    Arguments:
        suite: name of the suite.
        runs: identity of every run: dataset, sde, model, variant, objective, seed.
        results: the suite's results folder.
        figures: the folder of its figures.
        params: the folder of suite files.

    Returns:
        The HTML document. Absent files are named in it; they are no error.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tables = {table: read_table(suite, results / "tables" / f"{table}.csv") for table in TABLES}
    records = read_provenance(results)
    suite_file = params / f"{suite}.yaml"
    return environment.get_template("index.html.jinja").render(
        suite=suite,
        tables=tables,
        claims=summarise_claims(tables["claims"].path),
        figures=read_figures(figures),
        missing_figure=lambda figure: missing_figure(suite, figures, figure),
        galleries=galleries(suite, runs, results),
        records=records,
        origins=origins(records),
        caveats=caveats(suite, tables, records),
        suite_file=suite_file,
        suite_hash=hashlib.sha256(suite_file.read_bytes()).hexdigest() if suite_file.is_file() else None,
    )
