"""Figures and pictures, prepared for one HTML document."""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup

from indm.errors import ArtifactError
from indm.report.catalogue import PLACE
from indm.report.names import names
from indm.report.page.contents import Contents, Missing, missing
from indm.report.page.tables import data_uri
from indm.report.palette import INK, themed
from indm.store.files import AGAIN
from indm.store.layout import PICTURES

# The elements that Matplotlib uses. Other elements of SVG, such as scripts, are refused.
SHAPES = {"svg", "defs", "style", "g", "path", "use", "clipPath", "rect", "image", "text", "tspan"}


@dataclass(frozen=True)
class Drawing:
    """A figure, prepared for a document, and the description of its error bars."""

    svg: Markup
    bars: str


def read_figures(folder: Path) -> dict[str, Drawing]:
    """Read the existing figures, with unique identifiers and the theme's colours."""
    return {path.stem: _read(path) for path in sorted(folder.glob("*.svg"))}


def galleries(contents: Contents, results: Path) -> list[dict[str, Any]]:
    """Collect the pictures of every run, in the suite's order; ``first`` marks the first seed of a cell."""
    found: list[dict[str, Any]] = []
    for run_name, run in contents.runs.items():
        title = names(*(str(run.get(key, "")) for key in ("dataset", "sde", "model", "variant", "objective")))
        first = title not in {item["title"] for item in found}
        pictures = {kind: _picture(contents.suite, results / "runs" / run_name / f"{kind}.png") for kind in PICTURES}
        cell = {"place": [run[key] for key in PLACE], "model": run["model"], "variant": run["variant"]}
        found.append({"run": run_name, "title": title, "seed": run["seed"], "first": first, **cell, **pictures})
    return found


def side_by_side(found: list[dict[str, Any]], arms: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Choose a gallery of each model in ``arms`` at one place, where INDM has samples: trained for images, if any was."""
    drawn = [item for item in found if item["first"] and isinstance(item["samples"], str)]
    places = [item["place"] for item in drawn if item["model"] == "indm"]
    place = min(places, key=lambda place: place[-1] != "fid", default=None)
    beside = {(item["model"], item["variant"]): item for item in drawn if item["place"] == place}
    return [beside[arm] for arm in arms if arm in beside]


def _picture(suite: str, path: Path) -> str | Missing | None:
    """Read a picture; ``None`` for an empty file, which stands for a picture that is not drawn."""
    if not path.is_file():
        return missing(suite, path, path)
    content = path.read_bytes()
    return data_uri("image/png", content) if content else None


def _read(path: Path) -> Drawing:
    """Take the ``<svg>`` element of a document, its identifiers marked with the figure's name.

    A figure that does not use the theme's ink is left as drawn, on white.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    bars = re.search("<dc:description>(.*?)</dc:description>", text, flags=re.DOTALL)
    svg = re.sub(r"<metadata>.*?</metadata>", "", text[max(text.find("<svg"), 0) :], flags=re.DOTALL)
    _check_drawing(path, svg)
    paper = "" if INK in svg else ' class="paper"'
    svg = svg if paper else themed(svg)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{path.stem}-", svg)
    width = re.search(r'<svg[^>]* width="([\d.]+pt)"', svg)
    own = f' style="--own: {width[1]}"' if width else ""
    opening = f'<svg aria-hidden="true" focusable="false"{paper}{own}'
    return Drawing(Markup(svg.replace("<svg", opening, 1)), html.unescape(bars[1]) if bars else "")


def _check_drawing(path: Path, svg: str) -> None:
    """Refuse a document that does more than draw, because it becomes part of the page, with the page's rights.

    Raises:
        ArtifactError: if it is not one ``<svg>`` element of shapes that refer only to each other.
    """
    try:
        root = ElementTree.fromstring(svg)
    except ElementTree.ParseError as error:
        raise ArtifactError(f"{path}: found no drawing ({error}), expected one <svg> element; {AGAIN}") from None
    for element in root.iter():
        if wrong := next(_active(element), None):
            raise ArtifactError(f"{path}: found {wrong} in a drawing, expected only shapes and texts; {AGAIN}")
    if _local(root.tag) != "svg":
        raise ArtifactError(f"{path}: found a <{_local(root.tag)}> element, expected <svg>; {AGAIN}")


def _active(element: ElementTree.Element) -> Iterator[str]:
    """Name the parts of an element that do more than draw."""
    if _local(element.tag) not in SHAPES:
        yield f"<{_local(element.tag)}>"
    for name, value in element.attrib.items():
        if _local(name).startswith("on"):
            yield f"the attribute {_local(name)}"
        if _local(name) == "href" and not value.startswith(("#", "data:image/")):
            yield f"a reference to {value}"


def _local(name: str) -> str:
    """Remove the namespace from a name."""
    return name.rpartition("}")[2]
