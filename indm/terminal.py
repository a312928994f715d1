"""Output in a terminal: tables at most a hundred columns wide, lists of commands, and one line for each mistake."""

import io
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NoReturn

import click

from indm.errors import IndmError, memory_errors

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH = 100
# Exit code of a command that could not do its work; as with diff, 1 means that there are differences.
FAILED = {"compare": 2}
# How much a word must look like a command to be taken for its misspelling, from 0 to 1.
SIMILAR = 0.75


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


class WordOption(click.Option):
    """An option that may also be a bare word of the command; if needed, one of them is required.

    Arguments:
        word: the name of the argument that is the bare word.
        needed: whether one of them is required.
    """

    def __init__(self, *arguments: Any, word: str, needed: bool = False, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.word, self.needed = word, needed

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        """Take the bare word if there is no option."""
        name, word = str(self.name), opts.get(self.word)
        # Releases of click differ in what stands for an absent word.
        given = {name: word} if isinstance(word, str) else {}
        if given and name in opts:
            raise click.UsageError(f"found {word!r} and {self.opts[-1]}, expected one of them", ctx)
        if self.needed and not given and name not in opts:
            raise click.UsageError(f"Missing argument {self.metavar!r}.", ctx)
        return super().handle_parse_result(ctx, {**opts, **given}, args)


class Commands(click.Group):
    """The subcommands, by the titles of their sections; an error that a user can meet is reported on one line.

    Arguments:
        sections: the names of the listed commands, by section.
        leads: what to type in place of words that are no commands.
    """

    def __init__(
        self,
        *arguments: Any,
        sections: Mapping[str, Sequence[str]],
        leads: Mapping[str, str],
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.sections, self.leads = sections, leads

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; lead on from a word that is none, but never to a command that only looks like it a little."""
        word = args[0]
        if word not in self.commands and word[:1].isalnum():
            close = get_close_matches(word, [*self.commands, *self.leads], n=1, cutoff=SIMILAR)
            lead = "".join(f"; did you mean indm {self.leads.get(name, name)}?" for name in close)
            ctx.fail(f"No such command {word!r}{lead}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List them by section."""
        width = max(len(name) for listed in self.sections.values() for name in listed)
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
