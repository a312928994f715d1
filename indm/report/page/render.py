"""The suite's page: one HTML file that needs no network, made only from result files.

Every number in a table carries its text from the file (``data-value``). Missing results are named, with the command that makes
them.
"""

from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from indm.report.answers import kinds_of, read_answers, seeds_of
from indm.report.catalogue import CATALOGUE, SHOWN
from indm.report.grades import MEANINGS
from indm.report.matrix import OnPage, matrix, plain
from indm.report.multiples import read_multiples
from indm.report.page.caveats import caveats
from indm.report.page.contents import Contents, code_since, missing_figure, read_records
from indm.report.page.document import LEADS, Document, facts, sections
from indm.report.page.entries import set_entry
from indm.report.page.markup import to_html
from indm.report.page.means import ARMS, read_cells, read_means
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
    registration = describe_registration(
        contents.suite,
        contents.registration,
        contents.sha256,
        contents.claims_sha256,
        [record["commit"] for record in records],
        contents.changed_seeds,
        added=contents.added,
        contradicted=contents.contradicted,
    )
    changed, costs = plain("; ".join(code_since(records))), read_cells(results / "tables/compute.csv")
    document = Document(
        answers=read_answers(tables["claims"].path, evidence),
        means=read_means(results / "tables"),
        lead="error-compute" if "learning" in left_out else "learning-curve-flops",
        facts=facts(contents.suite, contents.sha256, registration, records, costs, changed),
        multiples=read_multiples(results / "tables"),
    )
    return (
        _environment()
        .get_template("index.html.jinja")
        .render(
            contents=contents,
            meanings=MEANINGS,
            catalogue=CATALOGUE,
            tables=tables,
            answers=document.answers,
            document=sections(document, OnPage()),
            lead=document.lead,
            leads=LEADS,
            figures=read_figures(figures),
            missing_figure=lambda figure: missing_figure(contents.suite, figures, figure),
            galleries=pictures,
            shown=side_by_side(pictures, [*ARMS]),
            records=records,
            executions=executions(records),
            is_registered=registration.startswith(REGISTERED),
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
    document = Document(read_answers(tables / "claims.csv"), means={}, lead="error-compute", facts={})
    told = sections(document, OnPage())
    return to_html(f"{told['answer']}\n\n{told['longer']}")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    environment.filters["to_html"] = to_html
    environment.globals |= {one.__name__: one for one in (kinds_of, matrix, seeds_of, set_entry)}
    environment.globals["form"] = OnPage()
    return environment
