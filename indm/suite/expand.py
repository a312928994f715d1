"""What a suite file says in short, said in full: the suite that it builds on, and the seeds of its cells.

``based_on: digits`` takes all that a suite does not say from another one: sections key by key, and whole what is listed by name
(:data:`NAMED`). A cell that has ``seeds`` instead of ``seed`` is a run for each, named after it: ``-s0``, ``-s1``, ....
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indm.errors import ParamsError
from indm.suite.schema.suite import Suite
from indm.suite.schema.types import first_repeat
from indm.suite.strict_yaml import read_mapping

BASE = "based_on"
NAME = r"[a-z0-9][a-z0-9-]*"
# Lists by name: an entry that is not named is not there.
NAMED = {("datasets",), ("reference",), ("protocol",), ("toy2d", "datasets"), ("runs",)}


@dataclass(frozen=True)
class Expanded:
    """A suite in full, not yet checked.

    Arguments:
        content: what its file would say.
        cells: the name in the file of every run; of a cell with seeds, its own.
    """

    content: dict[str, Any]
    cells: Mapping[str, str]


def suite_files(folder: Path) -> list[Path]:
    """List the suites of a folder: its YAML files, but for the claims."""
    return sorted(path for path in folder.glob("*.yaml") if path.stem != "claims")


def expand_suite(path: Path) -> Expanded:
    """Read a suite file, and say in full what it says in short.

    Raises:
        ParamsError: if a file is missing or no YAML, if suites build on each other in a circle, or if seeds are no seeds.
    """
    files, content = [path], _read(path)
    while BASE in content:
        base = content.pop(BASE)
        if not isinstance(base, str) or not re.fullmatch(NAME, base):
            raise ParamsError(f"{path}: key {BASE}: found {base!r}; allowed: the name of a suite in {path.parent}/")
        files.append(path.with_name(f"{base}.yaml"))
        if files[-1] in files[:-1]:
            circle = ", ".join(file.stem for file in files)
            raise ParamsError(
                f"{path}: key {BASE}: found the circle {circle}; allowed: a suite that builds on no other of them"
            )
        content = _over(_read(files[-1], f"{path}: key {BASE}: "), content)
    cells: dict[str, str] = {}
    if isinstance(content.get("runs"), dict):
        place = f"{path}: suite {content.get('suite', path.stem)}"
        content["runs"] = {
            name: run for cell, entry in content["runs"].items() for name, run in _runs(place, cell, entry, cells)
        }
    return Expanded(content, cells)


def _read(path: Path, place: str = "") -> dict[str, Any]:
    try:
        return read_mapping(path, Suite)
    except FileNotFoundError:
        found = ", ".join(file.stem for file in suite_files(path.parent)) or "none"
        raise ParamsError(f"{place}{path}: no such suite; suites in {path.parent}/: {found}") from None


def _over(base: dict[str, Any], content: dict[str, Any], place: tuple[str, ...] = ()) -> dict[str, Any]:
    """Lay what a suite says over what its base says."""
    merged = dict(base)
    for key, value in content.items():
        here = (*place, key)
        nested = isinstance(value, dict) and isinstance(base.get(key), dict) and here not in NAMED
        merged[key] = _over(base[key], value, here) if nested else value
    return merged


def _runs(place: str, cell: Any, entry: Any, cells: dict[str, str]) -> list[tuple[Any, Any]]:
    """List the runs of an entry, each with its name."""
    if not isinstance(entry, dict) or "seeds" not in entry:
        _claim(place, str(cell), str(cell), cells)
        return [(cell, entry)]
    seeds = entry["seeds"]
    if "seed" in entry or not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        found = f"found seed {entry['seed']!r} too" if "seed" in entry else f"found {seeds!r}"
        raise ParamsError(
            f"{place}, run {cell}, key seeds: {found}; allowed: a list of whole numbers, in the place of seed"
        )
    if (seed := first_repeat(seeds)) is not None:
        found = f"found {seed} twice in {seeds}"
        raise ParamsError(f"{place}, run {cell}, key seeds: {found}; allowed: each value once: take the repeats out")
    for seed in seeds:
        _claim(place, f"{cell}-s{seed}", str(cell), cells)
    rest = {key: value for key, value in entry.items() if key != "seeds"}
    return [(f"{cell}-s{seed}", rest | {"seed": seed}) for seed in seeds]


def _claim(place: str, run: str, cell: str, cells: dict[str, str]) -> None:
    """Note which entry a run comes from.

    Raises:
        ParamsError: if another one has it already.
    """
    if run in cells:
        raise ParamsError(f"{place}, run {cell}: found the run {run} in {cells[run]} too; allowed: each run once")
    cells[run] = cell
