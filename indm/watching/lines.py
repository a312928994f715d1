"""Reading the progress lines of a job (:mod:`indm.progress`)."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Line = dict[str, Any]
# The keys of a line with text, and the required keys of a line other than its time, by its event.
TEXTS = {"event", "part", "host", "error"}
NEEDED = {"begin": {"part", "done", "total"}, "progress": {"part", "done", "total", "seconds_each"}}
# The keys with whole numbers, and all keys with numbers that cannot be negative.
COUNTS = {"done", "total"}
AT_LEAST_0 = {"time", "seconds_each", "saved_at", *COUNTS}
# The largest number in a line: seconds, steps, MiB, norms.
LARGEST = 1e15
# In bytes, about fifty lines.
TAIL = 16384


def read_lines(path: Path, tail: int | None = None) -> list[Line]:
    """Read the lines of a file, oldest first, without lines torn by a power cut; a missing file has no lines.

    Arguments:
        path: the file.
        tail: number of bytes to read at its end; ``None`` for all of it.
    """
    try:
        content = _read_end(path, tail)
    except OSError:
        return []
    return [line for text in content.splitlines() if (line := _parse(text))]


def curves(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """Arrange the lines of progress as one curve for each part, across kills and resumes.

    A process that continues from a saved state repeats some steps, and its lines replace the lines of the previous process.
    """
    found: dict[str, list[Line]] = {}
    for line in lines:
        if line["event"] not in ("begin", "progress"):
            continue
        curve, begins = found.setdefault(line["part"], []), line["event"] == "begin"
        while curve and curve[-1]["done"] >= line["done"] + begins:
            curve.pop()
        if not begins:
            curve.append(line)
    return found


def _read_end(path: Path, tail: int | None) -> bytes:
    with path.open("rb") as file:
        if tail is not None:
            file.seek(max(0, file.seek(0, os.SEEK_END) - tail))
        return file.read()


def _parse(text: bytes) -> Line | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        # RecursionError: lists in lists in lists.
        return None
    return line if isinstance(line, dict) and _is_whole(line) else None


def _is_whole(line: Line) -> bool:
    """Return whether a line is valid: it has its required keys, with texts or numbers as values."""
    texts, needed = line.keys() & TEXTS, {"time", "event"} | NEEDED.get(str(line.get("event")), set())
    numbers = line.keys() - TEXTS
    return (
        needed <= line.keys()
        and all(isinstance(line[key], str) for key in texts)
        and all(_is_sane(key, line[key]) or (line[key] is None and key not in needed) for key in numbers)
    )


def _is_sane(key: str, value: object) -> bool:
    """Return whether a value is a valid number for a key, unlike JSON's NaN and Python's ``True``."""
    if isinstance(value, bool) or not isinstance(value, int if key in COUNTS else int | float):
        return False
    return (0 if key in AT_LEAST_0 else -LARGEST) <= value <= LARGEST
