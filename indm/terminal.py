"""Output in a terminal: tables at most a hundred columns wide, lists of commands, and one line for each mistake."""

import io
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

import click

from indm.errors import IndmError, memory_errors

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH = 100
# Exit code of a command that could not do its work; as with diff, 1 means that there are differences.
FAILED = {"compare": 2}


def console() -> "Console":
    """Return the console, which prints text from files as it is, without rich's markup."""
    from rich.console import Console

    found = Console(markup=False, highlight=False, emoji=False)
    # A file or a pipe does not have a width.
    if not found.is_terminal or found.width > WIDTH:
        found.width = WIDTH
    return found


def grid(headings: Iterable[str]) -> "Table":
    """Return a table without lines: its first column is text, folded if it is too long, and the other columns are numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left", overflow="fold", no_wrap=index > 0)
    return table


def printable(text: str) -> str:
    """Escape unprintable characters, so that text from a file cannot move the cursor or leave its line."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


class SuiteOption(click.Option):
    """A suite with ``-s``, which may also be the first bare word of the command; if needed, one of them is required."""

    def __init__(self, *arguments: Any, needed: bool = False, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.needed = needed

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        """Take the bare word, which is the argument ``suite``, if there is no option."""
        name, word = str(self.name), opts.get("suite")
        # Releases of click differ in what stands for an absent word.
        given = {name: word} if isinstance(word, str) else {}
        if given and name in opts:
            raise click.UsageError(f"found two suites, {word} and --suite, expected one", ctx)
        if self.needed and not given and name not in opts:
            raise click.UsageError("Missing argument 'SUITE'.", ctx)
        return super().handle_parse_result(ctx, {**opts, **given}, args)


class Commands(click.Group):
    """The subcommands, by the titles of their sections; an error that a user can meet is reported on one line."""

    def __init__(self, *arguments: Any, sections: Mapping[str, Sequence[str]], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.sections = sections

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List them by section."""
        width = max(map(len, self.commands))
        for section, listed in self.sections.items():
            with formatter.section(section):
                limit = formatter.width - width - 6
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit)) for name in listed])

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run a command line."""
        for stream in (sys.stdout, sys.stderr):
            # If the locale lacks a character, such as ±, its code is printed instead.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            return super().main(*arguments, **options)
        except OSError as error:
            # Raised by the output of a command's help, for example.
            sys.exit(f"indm: {_unwritten(error)}")

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; one line for each mistake that it reports."""
        try:
            with memory_errors():
                return super().invoke(ctx)
        except IndmError as error:
            _exit(ctx, str(error), error.exit_code)
        except BrokenPipeError:
            # The reader has closed the pipe: click ends silently.
            raise
        except OSError as error:
            _exit(ctx, _unwritten(error), 1)


def _unwritten(error: OSError) -> str:
    """Describe a file that cannot be read or written; stages report errors of their files themselves."""
    if error.filename is None:
        # What is left in the buffer would fail once more when Python ends.
        with suppress(io.UnsupportedOperation):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return f"the output cannot be written: {error.strerror}"
    return f"{error.filename}: {error.strerror}; expected a path that can be read and written"


def _exit(ctx: click.Context, message: str, code: int) -> NoReturn:
    """End a command with its name before each line of the message."""
    name = ctx.invoked_subcommand or ""
    click.echo("\n".join(f"indm {name}: {printable(line)}" for line in message.splitlines()), err=True)
    sys.exit(FAILED.get(name, code))
