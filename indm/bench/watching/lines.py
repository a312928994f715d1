"""Reading the progress lines of a job (:mod:`indm.progress`)."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

# In bytes, about fifty lines.
TAIL = 16384
# Seconds, steps, MiB, norms; larger ones would be mistakes, and too wide for a table.
Number = Annotated[float, Field(ge=-1e15, le=1e15)]
Positive = Annotated[float, Field(ge=0, le=1e15)]
Count = Annotated[int, Field(ge=0, le=10**15)]


class Line(BaseModel):
    """A line, with numbers of its stage beside the keys here, such as losses."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)
    __pydantic_extra__: dict[str, Number | str | None]

    time: Positive
    event: Literal["start", "begin", "progress", "done", "stopped", "failed"]
    part: str = ""
    done: Count = 0
    total: Count = 0
    seconds_each: Positive | None = None
    saved_at: Positive | None = None
    error: str = ""

    @model_validator(mode="after")
    def _needs(self) -> Self:
        """Refuse a line of a loop that does not say where the loop is."""
        needed = {"begin": ("part", "done", "total"), "progress": ("part", "done", "total", "seconds_each")}
        if missing := {*needed.get(self.event, ())} - self.model_fields_set:
            raise ValueError(f"found no {', '.join(sorted(missing))}")
        return self

    @property
    def numbers(self) -> dict[str, float]:
        """The numbers that make curves."""
        found = {**self.__pydantic_extra__, "seconds_each": self.seconds_each}
        return {key: float(value) for key, value in sorted(found.items()) if isinstance(value, int | float)}


def read_lines(path: Path, tail: int | None = None) -> list[Line]:
    """Read the lines of a file, oldest first, without torn ones, or of the bytes at its end; a missing file has no lines."""
    try:
        with path.open("rb") as file:
            if tail is not None:
                file.seek(max(0, file.seek(0, os.SEEK_END) - tail))
            content = file.read()
    except OSError:
        return []
    found = []
    for text in content.splitlines():
        with contextlib.suppress(ValidationError):
            found.append(Line.model_validate_json(text))
    return found


def curves(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """Arrange the lines of progress as one curve for each part, across kills and resumes.

    A process that continues from a saved state repeats some steps, and its lines replace the lines of the previous process.
    """
    found: dict[str, list[Line]] = {}
    for line in lines:
        if line.event not in ("begin", "progress"):
            continue
        curve, begins = found.setdefault(line.part, []), line.event == "begin"
        while curve and curve[-1].done >= line.done + begins:
            curve.pop()
        if not begins:
            curve.append(line)
    return found
