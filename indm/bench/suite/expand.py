"""Expansion of a suite file: the suite on which it is based, and the seeds of its cells.

With ``based_on: digits``, a suite takes all keys that it does not set from another suite: sections key by key, but lists by name
(:data:`NAMED`) as a whole. A cell with ``seeds`` instead of ``seed`` stands for one run per seed, with the names ``-s0``, ``-s1``,
and so on. Seeds in its list ``failed`` do not become runs, but go to the suite's section ``failed``, where claims count them.
"""

import difflib
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indm.bench.suite.schema.suite import Suite
from indm.errors import ParamsError
from indm.fields import first_repeat
from indm.strict_yaml import read_mapping
from indm.terminal import printable

BASE = "based_on"
NOWHERE = "found no suites in {folder}/; run from the top of a checkout, or of a folder that indm init has made"
# A cell's list of seeds that cannot be trained or evaluated.
FAILED = "failed"
# Files in the folder of the suites that are not suites.
BESIDE = ("claims", "registrations")
NAME = r"[a-z0-9][a-z0-9-]*"
# Lists by name, which replace the list of the base as a whole.
NAMED = {("datasets",), ("reference",), ("protocol",), ("toy2d", "datasets"), ("tune",), ("runs",)}


@dataclass(frozen=True)
class Expanded:
    """A suite in full, not yet checked.

    Arguments:
        content: content of the file that would state it in full.
        cells: the name in the file of every run; for a cell with seeds, the name of the cell.
        files: content of its file, and of the files on which it is based, in this order.
        mistakes: mistakes of cells, whose runs are as if they had been corrected.
    """

    content: dict[str, Any]
    cells: Mapping[str, str]
    files: Mapping[Path, dict[str, Any]]
    mistakes: Sequence[str] = ()

    def file(self, location: Sequence[str]) -> Path:
        """Return the file that sets the value at a location, or else the file on which all others are based."""
        found, deepest = next(iter(self.files)), -1
        for path, content in self.files.items():
            depth = _depth(content, location)
            if any(tuple(location[: len(named)]) == named and depth >= len(named) for named in NAMED):
                # The list is taken as a whole, so a missing entry is not in another file.
                return path
            if depth > deepest or depth == deepest < len(location):
                found, deepest = path, depth
        return found


def suite_files(folder: Path) -> list[Path]:
    """List the suites of a folder: its YAML files, except the claims and the registrations."""
    return sorted(path for path in folder.glob("*.yaml") if path.stem not in BESIDE)


def variants_of(model: str, folder: Path) -> set[str]:
    """Return the variants of a model in the suites of a folder."""
    cells = [read_mapping(path, Suite).get("runs") for path in suite_files(folder)]
    entries = [
        entry for found in cells if isinstance(found, dict) for entry in found.values() if isinstance(entry, dict)
    ]
    return {str(entry.get("variant", "")) for entry in entries if entry.get("model") == model} - {""}


def expand_suite(path: Path) -> Expanded:
    """Read a suite file and expand it.

    Raises:
        ParamsError: if a file is missing or not YAML, or if suites are based on each other in a circle.
    """
    content = _read(path)
    files = {path: content}
    while BASE in content:
        last = next(reversed(files))
        base, content = content[BASE], {key: value for key, value in content.items() if key != BASE}
        if not isinstance(base, str) or not re.fullmatch(NAME, base):
            found = reprlib.repr(base)
            raise ParamsError(f"{last}: key {BASE}: found {found}; allowed: the name of a suite in {path.parent}/")
        file = path.with_name(f"{base}.yaml")
        if file in files:
            circle = ", ".join(file.stem for file in [*files, file])
            raise ParamsError(
                f"{last}: key {BASE}: found the circle {circle}; allowed: a suite that is not based on another one of them"
            )
        files[file] = _read(file, f"{last}: key {BASE}: ")
        content = _over(files[file], content)
    cells: dict[str, str] = {}
    mistakes: list[str] = []
    if isinstance(content.get("runs"), dict):
        place = f"{Expanded({}, {}, files).file(['runs'])}: suite {name_of(content, path)}"
        runs: dict[str, Any] = {}
        failed: dict[str, Any] = {}
        for cell, entry in content["runs"].items():
            entries, lost, wrong = _runs(cell, entry)
            mistakes += [f"{place}, run {cell}{mistake}" for mistake in wrong]
            for name, run in entries.items():
                if name in cells:
                    mistakes.append(
                        f"{place}, run {cell}: found the run {name} in {cells[name]} too; allowed: each run once"
                    )
                else:
                    cells[name] = str(cell)
                    (failed if name in lost else runs)[name] = run
        content = content | {"runs": runs} | ({FAILED: failed} if failed else {})
    return Expanded(content, cells, files, mistakes)


def name_of(content: Mapping[str, Any], path: Path) -> str:
    """Return the name of a suite for messages, or the name of its file if its own name is invalid."""
    name = content.get("suite")
    return name if isinstance(name, str) and re.fullmatch(NAME, name) else path.stem


def _depth(content: Any, location: Sequence[str]) -> int:
    """Count how many steps of a location exist in a file's content."""
    for depth, key in enumerate(location):
        if not isinstance(content, dict) or key not in content:
            return depth
        content = content[key]
    return len(location)


def _read(path: Path, place: str = "") -> dict[str, Any]:
    try:
        return read_mapping(path, Suite)
    except FileNotFoundError:
        found = [file.stem for file in suite_files(path.parent)]
        close = "".join(f"did you mean {name}? " for name in difflib.get_close_matches(path.stem, found, n=1))
        there = f"suites in {path.parent}/: {', '.join(found)}" if found else NOWHERE.format(folder=path.parent)
        raise ParamsError(f"{place}{printable(str(path))}: no such suite; {close}{there}") from None


def _over(base: dict[str, Any], content: dict[str, Any], place: tuple[str, ...] = ()) -> dict[str, Any]:
    """Override the content of a suite's base by the content of the suite."""
    merged = dict(base)
    for key, value in content.items():
        here = (*place, key)
        nested = isinstance(value, dict) and isinstance(base.get(key), dict) and here not in NAMED
        merged[key] = _over(base[key], value, here) if nested else value
    return merged


def _runs(cell: str, entry: Any) -> tuple[dict[str, Any], set[str], list[str]]:
    """List the runs of an entry by name, the names of the failed ones, and its mistakes."""
    if not isinstance(entry, dict) or "seeds" not in entry:
        return {cell: entry}, set(), []
    seeds, lost, mistakes = entry["seeds"], entry.get(FAILED, []), []
    if "seed" in entry or not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        found = f"found seed {reprlib.repr(entry['seed'])} too" if "seed" in entry else f"found {reprlib.repr(seeds)}"
        mistakes.append(f", key seeds: {found}; allowed: a list of whole numbers, instead of seed")
        seeds, lost = [0], []
    if (seed := first_repeat(seeds)) is not None:
        found = f"found {seed} twice in {reprlib.repr(seeds)}"
        mistakes.append(f", key seeds: {found}; allowed: each value once; remove the repeats")
    if not isinstance(lost, list) or not set(map(str, lost)) <= set(map(str, seeds)):
        mistakes.append(f", key {FAILED}: found {reprlib.repr(lost)}; allowed: a list of its seeds")
        lost = []
    rest = {key: value for key, value in entry.items() if key not in ("seed", "seeds", FAILED)}
    runs = {f"{cell}-s{seed}": rest | {"seed": seed} for seed in seeds}
    return runs, {f"{cell}-s{seed}" for seed in lost}, mistakes
