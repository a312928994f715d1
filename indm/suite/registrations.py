"""The schema of ``params/registrations.yaml``: which commit said what a suite would do, and how it would be judged, beforehand."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from indm.errors import ParamsError
from indm.suite.strict_yaml import Strict, read_valid

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Registration(Strict):
    """What a suite and the claims said at a commit."""

    commit: str = Field(pattern=r"^[0-9a-f]{40}$", description="the commit that has both")
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description="of the commit")
    suite_sha256: Sha256 = Field(description="of all that the suite says")
    claims_sha256: Sha256 = Field(description="of all that claims.yaml says")
    note: str = Field(description="in words")


class Registrations(Strict):
    """The file."""

    suites: dict[str, Registration] = Field(description="by the suite's name")


def load_registrations(path: Path) -> Registrations:
    """Read and validate the registrations.

    Raises:
        ParamsError: one line for each mistake: file, key, what was found and what is allowed.
    """
    try:
        return read_valid(path, Registrations)
    except FileNotFoundError:
        raise ParamsError(f"{path}: missing; run from the top of a checkout") from None
