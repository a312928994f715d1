"""The suites of a folder with what the headers of their files say, for ``indm suites`` and the page of all suites."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from indm.bench.suite.expand import NOWHERE, suite_files
from indm.errors import ParamsError

if TYPE_CHECKING:
    from rich.table import Table


def header(path: Path, word: str) -> str:
    """Return the text of a comment at the top of a suite's file, such as ``# Purpose: a first look``; empty without it."""
    found = re.search(rf"^# {word}: (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return found[1] if found else ""


def state(suite: str, published: Path, out: Path) -> str:
    """Return whether a suite has tables among the published results, and in the results folder."""
    places = {"published": published, "run here": out}
    found = [word for word, folder in places.items() if any((folder / suite / "tables").glob("*.csv"))]
    return ", ".join(found) or "not run"


def suites_table(params: Path, published: Path, out: Path) -> "Table":
    """Return a table of the suites in a folder: state, purpose and cost.

    Raises:
        ParamsError: if the folder has none.
    """
    # Imported here, because the pages of suites need the headers only.
    from rich.table import Table

    if not (files := suite_files(params)):
        raise ParamsError(NOWHERE.format(folder=params))
    table = Table("suite", "state", "purpose, and cost", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for path in files:
        asked = f"{header(path, 'Purpose')} ({header(path, 'Cost')})"
        table.add_row(path.stem, state(path.stem, published, out), asked)
    return table
