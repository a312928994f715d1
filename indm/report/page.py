"""The suite's page: one HTML file that needs no network, made of result files and of nothing else.

Every number of a table carries the text it has in its file (``data-value``). What is missing is named, with the command that
makes it.
"""

import base64
import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from indm.artifacts import read_json

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
HEADINGS = {
    "sde": "SDE",
    "fid": "FID",
    "kid": "KID",
    "nll": "NLL",
    "nelbo": "NELBO",
    "gap": "NELBO − NLL",
    "nfe": "NFE",
    "flops": "FLOPs",
    "nll_uncorrected": "NLL, uncorrected",
    "nelbo_no_residual": "NELBO, no residual",
    "num_samples": "images",
    "published_fid": "published FID",
    "published_nll": "published NLL",
    "published_source": "source",
}
NAMES = {"ddpmpp": "DDPM++", "indm": "INDM", "ve": "VE", "vp": "VP"}
VERDICTS = {"shown": "✓", "explained by a control": "≈", "not shown": "✗", "inconclusive": "?"}
# Said once, in the caption, where all rows agree.
SHARED = {"dataset", "sde", "objective", "variant", "seeds", "sampler", "nfe", "num_samples", "extractor", "split"}
FEWEST_ROWS_TO_SHARE = 3
# These colours of the figures are the theme's; the rest of a figure stays as it was drawn.
THEMED = {
    "#1b1b1a": "currentColor",
    "#b9b9b4": "var(--rule)",
    "#0072b2": "var(--blue)",
    "#d55e00": "var(--vermillion)",
    "#009e73": "var(--green)",
    "#cc79a7": "var(--purple)",
    "#e69f00": "var(--orange)",
    "#56b4e9": "var(--sky)",
}


@dataclass(frozen=True)
class Cell:
    """A cell: what is shown, what its file says, and the standard error beside it."""

    text: str = ""
    value: str = ""
    error: str = ""
    error_value: str = ""
    verdict: str = ""

    def __str__(self) -> str:
        return f"{self.text} ± {self.error}" if self.error else self.text or "–"


@dataclass(frozen=True)
class Missing:
    """A result that is not there, why, and what makes it."""

    path: Path
    reason: str
    command: str


@dataclass(frozen=True)
class Table:
    """A table of the page and its downloads."""

    name: str
    path: Path
    headings: list[str] = field(default_factory=list)
    rows: list[list[Cell]] = field(default_factory=list)
    shared: dict[str, Cell] = field(default_factory=dict)
    numeric: list[bool] = field(default_factory=list)
    downloads: dict[str, tuple[str, str]] = field(default_factory=dict)
    missing: Missing | None = None


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
    tables = {name: read_table(suite, results / "tables" / f"{name}.csv") for name in TABLES}
    records = read_provenance(results)
    return environment.get_template("index.html.jinja").render(
        suite=suite,
        suite_file=params / f"{suite}.yaml",
        suite_hash=_sha256(params / f"{suite}.yaml"),
        tables=tables,
        figures=read_figures(suite, figures),
        figure_folder=figures,
        make=lambda path: _command(suite, path),
        galleries=galleries(suite, runs, results),
        verdicts=verdicts(tables["claims"]),
        verdict_symbols=VERDICTS,
        records=records,
        origins=origins(records),
        caveats=caveats(suite, tables, records),
    )


def read_table(suite: str, path: Path) -> Table:
    """Read a table as texts, and set it: errors beside their values, empty columns left out, shared values in the caption."""
    if not path.is_file():
        return Table(path.stem, path, missing=Missing(path, "missing", _command(suite, path)))
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if len(table) == 0:
        reason = f"no rows: the suite {suite} computes none of these numbers"
        return Table(path.stem, path, missing=Missing(path, reason, f"edit params/{suite}.yaml"))
    columns = [column for column in table if _is_shown(str(column), table)]
    cells = {column: _column(column, table) for column in columns}
    shared = {column: cells[column][0] for column in columns if _is_shared(column, cells[column])}
    columns = [column for column in columns if column not in shared]
    headings = [_heading(column) for column in columns]
    rows = [list(row) for row in zip(*(cells[column] for column in columns), strict=True)]
    return Table(
        path.stem,
        path,
        headings,
        rows,
        {_heading(column): cell for column, cell in shared.items()},
        [all(cell.value or not cell.text for cell in cells[column]) for column in columns],
        _downloads(path, headings, rows),
    )


def set_number(value: str, error: str = "") -> tuple[str, str]:
    """Round a number to two digits of its error, or to four digits where it has none; keep an integer whole."""
    if error and math.isfinite(float(error)) and float(error) > 0:
        digits = max(0, 1 - math.floor(math.log10(float(error))))
        return f"{float(value):,.{digits}f}", f"{float(error):,.{digits}f}"
    number = float(value)
    return (f"{int(value):,}" if value.lstrip("-").isdigit() else f"{number:.4g}"), error and f"{float(error):.2g}"


def read_figures(suite: str, folder: Path) -> dict[str, Markup]:
    """Read the figures that are there, ready to stand in one document: own identifiers, the theme's colours."""
    return {path.stem: _inline(path) for path in sorted(folder.glob("*.svg"))}


def galleries(suite: str, runs: Mapping[str, Mapping[str, Any]], results: Path) -> list[dict[str, Any]]:
    """Collect the pictures of every run, in the suite's order."""
    found = []
    for name, run in runs.items():
        pictures = {
            kind: _picture(suite, results / "runs" / name / f"{kind}.png") for kind in ("samples", "neighbours")
        }
        found.append({"run": name, "title": _title(run), **pictures})
    return found


def verdicts(claims: Table) -> dict[str, list[str]]:
    """List the claims by verdict, in the order of ``VERDICTS``; empty where there is no table or no such column."""
    if "verdict" not in claims.headings:
        return {}
    i = claims.headings.index("verdict")
    return {verdict: [row[0].text for row in claims.rows if row[i].text == verdict] for verdict in VERDICTS}


def read_provenance(results: Path) -> list[dict[str, Any]]:
    """Read what every stage said of its execution, in the order of the paths."""
    files = sorted(results.glob("**/provenance/*.json"))
    return [
        {"stage": path.stem, "subject": str(path.parent.parent.relative_to(results)), **read_json(path)}
        for path in files
    ]


def origins(records: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """List every commit, machine and version that the results come from, each once."""
    found: dict[str, dict[str, None]] = {"commit": {}, "machine": {}, "versions": {}}
    for record in records:
        changed = ", with uncommitted changes" if record.get("uncommitted_changes") else ""
        found["commit"][f"{record.get('commit') or 'unknown'}{changed}"] = None
        found["machine"][str(record.get("machine", "unknown"))] = None
        for package, version in record.get("versions", {}).items():
            found["versions"][f"{package} {version}"] = None
    return {key: list(values) for key, values in found.items()}


def caveats(suite: str, tables: Mapping[str, Table], records: list[dict[str, Any]]) -> list[str]:
    """Say what the numbers of this page cannot be taken for, as far as its files tell."""
    found = []
    if suite == "smoke":
        found.append(
            "The suite smoke only checks that the pipeline runs: its models are barely trained, its numbers mean nothing."
        )
    if _values(tables["fid"], "seeds") & {"1"}:
        found.append(
            "Some cells were trained with one seed. Their ± is over images and says nothing of how far another seed would"
            " move the number."
        )
    if extractors := {text for text in _values(tables["fid"], "extractor") if not text.startswith("inception")}:
        found.append(
            f"FID and KID are on features of {', '.join(sorted(extractors))}: they compare with each other, and with no number"
            " published on Inception features."
        )
    if any(record.get("uncommitted_changes") for record in records):
        found.append(
            "Some stages ran on a checkout with uncommitted changes: the commit alone does not give their code."
        )
    if len({record.get("commit") for record in records}) > 1:
        found.append(
            "Not all stages ran at one commit: stages whose code did not change between them were not run again."
        )
    if len({record.get("machine") for record in records}) > 1:
        found.append("Not all stages ran on one machine: results repeat to the byte on one machine only.")
    return found


def _values(table: Table, column: str) -> set[str]:
    """Return the texts in a column, wherever it is shown."""
    heading = _heading(column)
    if heading in table.shared:
        return {table.shared[heading].text}
    return (
        {row[table.headings.index(heading)].text for row in table.rows} - {""} if heading in table.headings else set()
    )


def _is_shown(column: str, table: pd.DataFrame) -> bool:
    beside_its_value = column.endswith("_se") and column.removesuffix("_se") in table
    return column != "suite" and not beside_its_value and bool((table[column] != "").any())


def _is_shared(column: str, cells: list[Cell]) -> bool:
    return column in SHARED and len(cells) >= FEWEST_ROWS_TO_SHARE and len(set(cells)) == 1


def _column(column: str, table: pd.DataFrame) -> list[Cell]:
    errors = table[f"{column}_se"] if f"{column}_se" in table else [""] * len(table)
    return [_cell(column, value, error) for value, error in zip(table[column], errors, strict=True)]


def _cell(column: str, value: str, error: str) -> Cell:
    if column == "verdict":
        return Cell(value, verdict=VERDICTS.get(value, "?"))
    if not _is_number(value):
        return Cell(NAMES.get(value, value))
    text, error_text = set_number(value, error if _is_number(error) else "")
    return Cell(text, value, error_text, error if error_text else "")


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", text, flags=re.IGNORECASE) is not None


def _heading(column: str) -> str:
    return HEADINGS.get(column, column.replace("_", " "))


def _title(run: Mapping[str, Any]) -> str:
    words = [run["dataset"], run["sde"], run["model"], run.get("variant", ""), run["objective"], f"seed {run['seed']}"]
    return ", ".join(NAMES.get(word, word) for word in words if word)


def _command(suite: str, path: Path) -> str:
    return f"snakemake --cores all --config suite={suite} -- {path}"


def _downloads(path: Path, headings: list[str], rows: list[list[Cell]]) -> dict[str, tuple[str, str]]:
    """Return the file's own bytes as CSV, and the table as it is set here as Markdown and LaTeX: file name and address."""
    table = pd.DataFrame([list(map(str, row)) for row in rows], columns=headings)
    latex = table.to_latex(index=False, escape=True).replace("±", r"$\pm$").replace("−", "$-$").replace("–", "--")
    texts = {
        "CSV": ("csv", "text/csv", path.read_bytes()),
        "Markdown": ("md", "text/markdown", table.to_markdown(index=False, disable_numparse=True).encode() + b"\n"),
        "LaTeX": ("tex", "application/x-tex", latex.encode()),
    }
    return {
        label: (f"{path.stem}.{suffix}", _data_uri(kind, content)) for label, (suffix, kind, content) in texts.items()
    }


def _data_uri(kind: str, content: bytes) -> str:
    plain = f"data:{kind};charset=utf-8,{quote(content)}"
    coded = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return min(plain, coded, key=len)


def _picture(suite: str, path: Path) -> str | Missing:
    if not path.is_file():
        return Missing(path, "missing", _command(suite, path))
    return _data_uri("image/png", path.read_bytes())


def _inline(path: Path) -> Markup:
    """Take the ``<svg>`` element of a document, its identifiers marked with the figure's name.

    A figure that does not use the theme's ink is left as drawn, on white.
    """
    text = path.read_text()
    svg = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{path.stem}-", svg)
    if "#1b1b1a" not in svg:
        return Markup(svg.replace("<svg", '<svg class="paper" aria-hidden="true" focusable="false"', 1))
    for colour, name in THEMED.items():
        svg = svg.replace(colour, name)
    return Markup(svg.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1))


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
