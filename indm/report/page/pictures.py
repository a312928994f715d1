"""Figures and pictures for one HTML document, as images: a drawing in an image can neither run nor load anything."""

import html
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indm.errors import ArtifactError
from indm.report.catalogue import PLACE
from indm.report.names import row_name
from indm.report.page.contents import Contents, Missing, missing
from indm.report.page.tables import data_uri
from indm.store.files import AGAIN
from indm.store.layout import PICTURES


@dataclass(frozen=True)
class Drawing:
    """A figure: its address, its width as drawn, and the description of its error bars."""

    address: str
    width: str
    bars: str


def read_figures(folder: Path) -> dict[str, Drawing]:
    """Read the existing figures, by their names."""
    return {path.stem: _read(path) for path in sorted(folder.glob("*.svg"))}


def galleries(contents: Contents, results: Path) -> list[dict[str, Any]]:
    """Collect the pictures of the runs that a page shows, in the suite's order; ``first`` marks the first seed of a cell."""
    found: list[dict[str, Any]] = []
    cells: set[str] = set()
    for run_name, run in contents.runs.items():
        title = row_name(run, ("dataset", "sde", "model", "variant", "objective"))
        first = title not in cells
        cells.add(title)
        if contents.has_many_runs and not first:
            continue
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
        return missing(suite, path)
    content = path.read_bytes()
    return data_uri("image/png", content) if content else None


def _read(path: Path) -> Drawing:
    text = path.read_text(encoding="utf-8", errors="replace")
    width = re.search(r'<svg[^>]* width="([\d.]+pt)"', text)
    if width is None:
        raise ArtifactError(f"{path}: found no drawing, expected an <svg> element with a width in pt; {AGAIN}")
    bars = re.search("<dc:description>(.*?)</dc:description>", text, flags=re.DOTALL)
    address = data_uri("image/svg+xml", text.replace("\n", " ").encode())
    return Drawing(address, width[1], html.unescape(bars[1]) if bars else "")
