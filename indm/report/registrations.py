"""The schema of ``params/registrations.yaml``: the commits that contained a suite and the claims before the suite was run."""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from indm.errors import ParamsError
from indm.strict_yaml import Strict, read_valid

# Seeds by cell, and by the name of a known density and length, all of whose models have the same seeds.
Seeds = Mapping[str, Sequence[int]]
# A note with this word, in small or capital letters, is a forecast, which has to stand in git before the runs.
FORECAST = "forecast"


def _day(text: str) -> str:
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        raise PydanticCustomError("day", "a day, such as 2026-01-31") from None
    return text


Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$"), AfterValidator(_day)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Registration(Strict):
    """A suite and the claims at a commit."""

    commit: str = Field(pattern=r"^[0-9a-f]{40}$", description="commit that contains both")
    date: Day = Field(description="date of the commit")
    suite_sha256: Sha256 = Field(description="hash of the suite in full")
    claims_sha256: Sha256 = Field(description="hash of claims.yaml in full")
    note: str = Field(description="in words")
    seeds: dict[str, list[int]] = Field(
        default_factory=dict,
        description="seeds of each cell, and of each known density and length; empty: not recorded",
    )


class Addition(Registration):
    """A suite and the claims at the commit that had a variant before its runs, after the suite's own registration."""

    suite: str = Field(description="the suite's name")
    variant: str = Field(description="the variant that was added")


class Registrations(Strict):
    """The file."""

    suites: dict[str, Registration] = Field(description="by the suite's name")
    added: list[Addition] = Field(default=[], description="variants that were added to registered suites")

    def of(self, suite: str) -> Registration | None:
        """Return the entry of a suite, with the seeds of the variants that were added to it; ``None`` without an entry."""
        entry = self.suites.get(suite)
        if entry is None:
            return None
        added = {cell: seeds for each in self.added_to(suite) for cell, seeds in each.seeds.items()}
        return entry.model_copy(update={"seeds": entry.seeds | added})

    def added_to(self, suite: str) -> list[Addition]:
        """Return the variants that were added to a suite, in the file's order."""
        return [each for each in self.added if each.suite == suite]


def load_registrations(path: Path) -> Registrations:
    """Read and validate the registrations.

    Raises:
        ParamsError: one line for each mistake: file, key, the value found and the values allowed.
    """
    try:
        return read_valid(path, Registrations)
    except FileNotFoundError:
        raise ParamsError(f"{path}: missing; run from the top of a checkout") from None
