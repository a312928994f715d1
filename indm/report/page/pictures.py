"""Figures and pictures, ready to stand in one document."""

import html
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from indm.report.names import names
from indm.report.page.contents import Contents
from indm.report.page.missing import Missing, missing
from indm.report.page.tables import data_uri

PICTURES = ("samples", "neighbours", "diffusion")
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
class Drawing:
    """A figure, ready to stand in a document, and what it says of its error bars."""

    svg: Markup
    bars: str


def read_figures(folder: Path) -> dict[str, Drawing]:
    """Read the figures that are there: own identifiers, the theme's colours."""
    return {path.stem: _read(path) for path in sorted(folder.glob("*.svg"))}


def galleries(contents: Contents, results: Path) -> list[dict[str, Any]]:
    """Collect the pictures of every run, in the suite's order; ``first`` marks the first seed of a cell."""
    found: list[dict[str, Any]] = []
    for run_name, run in contents.runs.items():
        title = names(*(str(run.get(key, "")) for key in ("dataset", "sde", "model", "variant", "objective")))
        first = title not in {item["title"] for item in found}
        pictures = {kind: _picture(contents.suite, results / "runs" / run_name / f"{kind}.png") for kind in PICTURES}
        found.append({"run": run_name, "title": title, "seed": run["seed"], "first": first, **pictures})
    return found


def _picture(suite: str, path: Path) -> str | Missing:
    return data_uri("image/png", path.read_bytes()) if path.is_file() else missing(suite, path, path)


def _read(path: Path) -> Drawing:
    """Take the ``<svg>`` element of a document, its identifiers marked with the figure's name.

    A figure that does not use the theme's ink is left as drawn, on white.
    """
    text = path.read_text()
    bars = re.search("<dc:description>(.*?)</dc:description>", text, flags=re.DOTALL)
    svg = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{path.stem}-", svg)
    themed = INK in svg
    for colour, variable in THEMED.items() if themed else ():
        svg = svg.replace(colour, variable)
    opening = '<svg aria-hidden="true" focusable="false"' + ("" if themed else ' class="paper"')
    return Drawing(Markup(svg.replace("<svg", opening, 1)), html.unescape(bars[1]) if bars else "")
