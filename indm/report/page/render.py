"""The suite's page: one HTML file that needs no network, made only from result files.

Every number in a table carries its text from the file (``data-value``). Missing results are named, with the command that makes
them.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from indm.report.catalogue import CATALOGUE, SHOWN
from indm.report.grades import MEANINGS
from indm.report.page.answers import conclusion, counted, elsewhere, kinds_of, read_answers, seeds_of, tally
from indm.report.page.caveats import caveats
from indm.report.page.contents import Contents, missing_figure, origins, read_records
from indm.report.page.entries import text_entry
from indm.report.page.equal_time import equal_time
from indm.report.page.means import ARMS, read_means
from indm.report.page.pictures import galleries, read_figures, side_by_side
from indm.report.page.registration import REGISTERED, describe_registration
from indm.report.page.tables import Table, executions, read_table

# The sections that a page can have, in order, by anchor.
SECTIONS = {
    "answers": "Results",
    "caveats": "Limitations",
    "likelihood": "Likelihood",
    "quality": "Image quality",
    "samples": "Samples",
    "learning": "Learning",
    "steps": "Few steps",
    "ablation": "Controls",
    "flow": "Flows",
    "published": "Published numbers",
    "toy": "Known densities",
    "protocol": "Protocol",
    "tuning": "Hyper-parameters",
    "cost": "Cost",
    "provenance": "Provenance",
    "all": "Raw data",
}


def render(contents: Contents, results: Path, figures: Path, evidence: Path | None = None) -> str:
    """Render the page of a suite."""
    tables = {table: read_table(contents.suite, results / "tables" / f"{table}.csv") for table in (*SHOWN, "values")}
    records = read_records(contents, results)
    found = caveats(contents, tables, records, results)
    pictures = galleries(contents, results)
    left_out = _left_out(tables) | (set() if found else {"caveats"})
    return (
        _environment()
        .get_template("index.html.jinja")
        .render(
            contents=contents,
            meanings=MEANINGS,
            catalogue=CATALOGUE,
            tables=tables,
            answers=read_answers(tables["claims"].path, evidence),
            arms=ARMS.values(),
            means=read_means(results / "tables"),
            equal_time=equal_time(contents.runs, results / "tables"),
            figures=read_figures(figures),
            missing_figure=lambda figure: missing_figure(contents.suite, figures, figure),
            galleries=pictures,
            shown=side_by_side(pictures, [*ARMS]),
            records=records,
            executions=executions(records),
            origins=origins(records),
            registered=REGISTERED,
            registration=describe_registration(
                contents.suite,
                contents.registration,
                contents.sha256,
                contents.claims_sha256,
                [record["commit"] for record in records],
                contents.changed_seeds,
                added=contents.added,
            ),
            caveats=found,
            sections={anchor: title for anchor, title in SECTIONS.items() if anchor not in left_out},
            left_out=[title for anchor, title in SECTIONS.items() if anchor in left_out - {"caveats"}],
        )
    )


def _left_out(tables: Mapping[str, Table]) -> set[str]:
    """Find the sections whose tables all exist and have no row to show."""
    sections: dict[str, list[bool]] = {}
    for name, entry in CATALOGUE.items():
        if entry.section:
            sections.setdefault(entry.section, []).append(tables[name].empty)
    return {section for section, empty in sections.items() if all(empty)}


def render_headline(tables: Path) -> str:
    """Render the answer that the page begins with, for another document."""
    template = _environment().get_template("headline.html.jinja")
    return str(template.module.headline(read_answers(tables / "claims.csv")))  # type: ignore[attr-defined]


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    environment.globals |= {one.__name__: one for one in (conclusion, counted, elsewhere, kinds_of, seeds_of, tally)}
    environment.globals["symbols"] = partial(text_entry, "verdict")
    return environment
