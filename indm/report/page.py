"""The suite's page: one HTML file that needs no network, made of result files and of nothing else.

Every number of a table carries the text it has in its file (``data-value``). What is missing is named, with the command that
makes it.
"""

import base64
import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from indm.artifacts import read_json
from indm.report.claims import REPEATABLE
from indm.report.names import heading, name, names

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
PICTURES = ("samples", "neighbours")
# The columns of a table that is too wide to be read whole, in the order of reading; its CSV has them all.
COLUMNS = {
    "claims": [
        "id",
        "grade",
        "dataset",
        "sde",
        "objective",
        "n",
        "effect",
        "low",
        "high",
        "unit",
        "control",
        "control_effect",
        "control_low",
        "control_high",
        "repeatability",
        "reason",
    ]
}
# Said once, in the caption, where all rows agree.
SHARED = {
    "dataset",
    "sde",
    "objective",
    "variant",
    "seeds",
    "sampler",
    "nfe",
    "num_samples",
    "images",
    "extractor",
    "split",
    "machine",
}
FEWEST_ROWS_TO_SHARE = 3
GRADES = {"shown": "✓", "explained by a control": "≈", "not shown": "✗", "inconclusive": "?", "no data": "∅"}
MOST_DECIMALS = 6
LARGEST_PLAIN = 1e7
# These colours of the figures are the theme's; the rest of a figure stays as it was drawn.
INK = "#1b1b1a"
THEMED = {
    INK: "currentColor",
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
    """A cell: what is shown and what its file says; the same of the error beside it; the symbol of a grade."""

    text: str = ""
    value: str = ""
    error: str = ""
    error_value: str = ""
    symbol: str = ""

    def __str__(self) -> str:
        return f"{self.text} ± {self.error}" if self.error else self.text or "–"


@dataclass(frozen=True)
class Missing:
    """A result that is not there, why, and what makes it."""

    path: Path
    reason: str
    remedy: str


@dataclass(frozen=True)
class Table:
    """A table of the page: its rows and downloads (file name and address), or why it is missing."""

    name: str
    path: Path
    headings: list[str] = field(default_factory=list)
    numeric: list[bool] = field(default_factory=list)
    rows: list[list[Cell]] = field(default_factory=list)
    shared: dict[str, Cell] = field(default_factory=dict)
    downloads: dict[str, tuple[str, str]] = field(default_factory=dict)
    missing: Missing | None = None

    def texts(self, column: str) -> set[str]:
        """Return the texts of a column, in the rows or shared by them; none where the table lacks it."""
        if (title := heading(column)) in self.shared:
            return {self.shared[title].text}
        return {row[self.headings.index(title)].text for row in self.rows} if title in self.headings else set()


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
        missing_figure=lambda figure: _missing_figure(suite, figures, figure),
        galleries=galleries(suite, runs, results),
        records=records,
        origins=origins(records),
        caveats=caveats(suite, tables, records),
        suite_file=suite_file,
        suite_hash=hashlib.sha256(suite_file.read_bytes()).hexdigest() if suite_file.is_file() else None,
    )


def read_table(suite: str, path: Path) -> Table:
    """Read a table as texts, and set it: errors beside values, empty columns left out, shared values for the caption."""
    if not path.is_file():
        return Table(path.stem, path, missing=_missing(suite, path, path))
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if len(table) == 0:
        reason = f"no rows: the suite {suite} asks for none of these numbers"
        return Table(path.stem, path, missing=Missing(path, reason, f"edit params/{suite}.yaml"))
    cells = {
        column: _column(column, table)
        for column in COLUMNS.get(path.stem, list(table.columns))
        if _is_shown(column, table)
    }
    shared = {column: cells.pop(column)[0] for column in list(cells) if _is_shared(column, cells[column])}
    headings = [heading(column) for column in cells]
    rows = [list(row) for row in zip(*cells.values(), strict=True)]
    return Table(
        path.stem,
        path,
        headings,
        [all(cell.value or not cell.text for cell in column) for column in cells.values()],
        rows,
        {heading(column): cell for column, cell in shared.items()},
        _downloads(path, headings, rows),
    )


def set_numbers(values: Sequence[str], errors: Sequence[str]) -> list[tuple[str, str]]:
    """Round the numbers of a column alike, and their errors.

    To two digits of the median error; without errors, to three digits of the median number. Integers stay whole, and very large
    and very small numbers are written with an exponent. An empty text stays empty.
    """
    if not any(errors) and all(value.lstrip("-").isdigit() for value in values if value):
        return [(_minus(f"{int(value):,}") if value else "", "") for value in values]
    form = _format([float(value) for value in values if value], [float(error) for error in errors if error])
    return [
        (_minus(format(float(value), form)) if value else "", format(float(error), form) if value and error else "")
        for value, error in zip(values, errors, strict=True)
    ]


def read_figures(folder: Path) -> dict[str, Markup]:
    """Read the figures that are there, ready to stand in one document: own identifiers, the theme's colours."""
    return {path.stem: _inline(path) for path in sorted(folder.glob("*.svg"))}


def galleries(suite: str, runs: Mapping[str, Mapping[str, Any]], results: Path) -> list[dict[str, Any]]:
    """Collect the pictures of every run, in the suite's order; ``first`` marks the first seed of a cell."""
    found: list[dict[str, Any]] = []
    for run_name, run in runs.items():
        title = names(*(str(run.get(key, "")) for key in ("dataset", "sde", "model", "variant", "objective")))
        first = title not in {item["title"] for item in found}
        pictures = {kind: _picture(suite, results / "runs" / run_name / f"{kind}.png") for kind in PICTURES}
        found.append({"run": run_name, "title": title, "seed": run["seed"], "first": first, **pictures})
    return found


def summarise_claims(path: Path) -> list[dict[str, Any]]:
    """Gather the grades of every claim under its statement; nothing where there is no table."""
    if not path.is_file():
        return []
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return [
        {
            "id": claim,
            "statement": part["statement"].iloc[0],
            "source": part["source"].iloc[0],
            "grades": [(_text_cell("grade", row["grade"]), _where(row)) for row in part.to_dict("records")],
        }
        for claim, part in table.groupby("id", sort=False)
    ]


def _where(row: Mapping[Any, str]) -> str:
    """Name what a grade is of, and whether other seeds might well give another."""
    borderline = row["repeatability"] and float(row["repeatability"]) < REPEATABLE
    return names(row["dataset"], row["sde"], row["objective"]) + (" (borderline)" if borderline else "")


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
        changed = " with uncommitted changes" if record["uncommitted_changes"] else ""
        found["commit"][f"{record['commit'] or 'unknown'}{changed}"] = None
        found["machine"][record["machine"]] = None
        found["versions"] |= {f"{package} {version}": None for package, version in record["versions"].items()}
    return {key: list(texts) for key, texts in found.items()}


def caveats(suite: str, tables: Mapping[str, Table], records: list[dict[str, Any]]) -> list[str]:
    """Say what the numbers of this page cannot be taken for, as far as its files tell."""
    seeds = tables["fid"].texts("seeds") | tables["nll"].texts("seeds")
    extractors = {text for text in tables["fid"].texts("extractor") if text and not text.startswith("inception")}
    found = {
        "The suite smoke only checks that the pipeline runs: its models are barely trained, and its numbers mean"
        " nothing.": suite == "smoke",
        "Some models were trained with one seed: their ± is over images, and says nothing of how far another seed would"
        " move a number.": "1" in seeds,
        f"FID and KID are on features of {', '.join(sorted(extractors))}: they compare with each other, and with no"
        " number published on Inception features.": bool(extractors),
        "Some stages ran on a checkout with uncommitted changes: their commit alone does not give their code.": any(
            record["uncommitted_changes"] for record in records
        ),
        "Not all stages ran at one commit: a stage whose code and inputs stay the same is not run again.": len(
            {record["commit"] for record in records}
        )
        > 1,
        "Not all stages ran on one machine, and results repeat to the byte on one machine only.": len(
            {record["machine"] for record in records}
        )
        > 1,
    }
    return [text for text, applies in found.items() if applies]


def _missing(suite: str, path: Path, target: Path) -> Missing:
    return Missing(path, "missing", f"snakemake --cores all --config suite={suite} -- {target}")


def _missing_figure(suite: str, folder: Path, figure: str) -> Missing:
    reason = "not drawn yet, or its table has no number to draw"
    return Missing(folder / f"{figure}.svg", reason, _missing(suite, folder, folder).remedy)


def _is_shown(column: str, table: pd.DataFrame) -> bool:
    """Leave out the suite, empty columns, and errors: they stand beside their values."""
    value = column.removesuffix("_se").removesuffix("_image")
    beside_its_value = column.endswith("_se") and value in table
    return column in table and column != "suite" and not beside_its_value and bool((table[column] != "").any())


def _is_shared(column: str, cells: list[Cell]) -> bool:
    return column in SHARED and len(cells) >= FEWEST_ROWS_TO_SHARE and len(set(cells)) == 1


def _column(column: str, table: pd.DataFrame) -> list[Cell]:
    texts = list(table[column])
    if not all(_is_number(text) for text in texts if text):
        return [_text_cell(column, text) for text in texts]
    # With one seed there is no error over seeds, and the one over images stands in its place.
    empty = pd.Series("", index=table.index)
    over = zip(table.get(f"{column}_se", empty), table.get(f"{column}_image_se", empty), strict=True)
    errors = [seeds or images for seeds, images in over]
    numbers = set_numbers(texts, errors)
    return [
        Cell(text, value, error_text, error)
        for (text, error_text), value, error in zip(numbers, texts, errors, strict=True)
    ]


def _text_cell(column: str, text: str) -> Cell:
    if column == "grade":
        return Cell(text, symbol=GRADES.get(text, "?"))
    return Cell(heading(text) if column == "metric" else name(text), value=text if _is_number(text) else "")


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", text, flags=re.IGNORECASE) is not None


def _format(values: list[float], errors: list[float]) -> str:
    sizes = [abs(size) for size in errors or values if size != 0]
    decimals = (1 if errors else 2) - math.floor(math.log10(median(sizes))) if sizes else 0
    plain = decimals <= MOST_DECIMALS and max(map(abs, values), default=0.0) < LARGEST_PLAIN
    return f",.{max(decimals, 0)}f" if plain else ".3g"


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _downloads(path: Path, headings: list[str], rows: list[list[Cell]]) -> dict[str, tuple[str, str]]:
    """Return the file's own bytes as CSV, and the table as it is set here as Markdown and LaTeX: file name and address."""
    table = pd.DataFrame([list(map(str, row)) for row in rows], columns=headings)
    latex = table.to_latex(index=False, escape=True).replace("±", r"$\pm$").replace("−", "$-$").replace("–", "--")
    texts = {
        "CSV": ("csv", "text/csv", path.read_bytes()),
        "Markdown": ("md", "text/markdown", table.to_markdown(index=False, disable_numparse=True).encode() + b"\n"),
        "LaTeX": ("tex", "application/x-tex", latex.encode()),
    }
    return {label: (f"{path.stem}.{suffix}", _data_uri(kind, text)) for label, (suffix, kind, text) in texts.items()}


def _data_uri(kind: str, content: bytes) -> str:
    return min(f"data:{kind},{quote(content)}", f"data:{kind};base64,{base64.b64encode(content).decode()}", key=len)


def _picture(suite: str, path: Path) -> str | Missing:
    return _data_uri("image/png", path.read_bytes()) if path.is_file() else _missing(suite, path, path)


def _inline(path: Path) -> Markup:
    """Take the ``<svg>`` element of a document, its identifiers marked with the figure's name.

    A figure that does not use the theme's ink is left as drawn, on white.
    """
    text = path.read_text()
    svg = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{path.stem}-", svg)
    themed = INK in svg
    for colour, variable in THEMED.items() if themed else ():
        svg = svg.replace(colour, variable)
    opening = '<svg aria-hidden="true" focusable="false"' + ("" if themed else ' class="paper"')
    return Markup(svg.replace("<svg", opening, 1))
