"""How tables are set in a terminal: at most a hundred columns wide, with colours where it has them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH = 100


def console() -> "Console":
    """Return where to print; what comes from files is never taken for rich's markup."""
    from rich.console import Console

    found = Console(markup=False, highlight=False, emoji=False)
    # A file or a pipe has no width of its own.
    if not found.is_terminal or found.width > WIDTH:
        found.width = WIDTH
    return found


def grid(headings: Iterable[str]) -> "Table":
    """Begin a table without lines: its first column is text, which is folded where it is too long, the others are numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left", overflow="fold", no_wrap=index > 0)
    return table


def printable(text: str) -> str:
    """Write the codes of signs that have no shape: a text from a file moves no cursor, and stays on its line."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
