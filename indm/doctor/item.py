"""A line of the doctor's page."""

from dataclasses import dataclass
from pathlib import Path

READY, DOWNLOAD, MISSING = "ready", "will download", "missing"
INSTALL = "pip install -e ."


@dataclass(frozen=True)
class Item:
    """A line of the page.

    Arguments:
        name: what is looked at.
        state: ``ready``, ``will download`` or ``missing``.
        detail: what was found.
        gap: of what is missing and needed: what was found, what was expected, and the remedy, on one line.
        warning: of what is there, and is less than a suite asks for: the same.
    """

    name: str
    state: str
    detail: str
    gap: str = ""
    warning: str = ""


def present(path: Path) -> str:
    return f"{path}, {path.stat().st_size / 1e6:,.1f} MB"
