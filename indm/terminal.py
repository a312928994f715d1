"""Output in a terminal: tables at most a hundred columns wide, lists of commands, and one line for each mistake."""

import io
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource

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


class Command(click.Command):
    """A command that refuses an option with two values instead of ignoring the first one, and takes a suite in two ways."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, of which each option may be given once; a suite is an argument or an option."""
        *_, given = self.make_parser(ctx).parse_args(list(args))
        options = [option for option in given if isinstance(option, click.Option)]
        once = [option for option in options if not option.multiple and not option.is_flag]
        if twice := [option.opts[-1] for option in once if once.count(option) > 1]:
            raise click.UsageError(f"{twice[0]}: found {twice.count(twice[0])} values, expected one", ctx)
        rest = super().parse_args(ctx, args)
        for option in (option for option in self.params if isinstance(option, SuiteOption)):
            name, word = str(option.name), ctx.params.pop("suite", None)
            if word is not None and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(f"found two suites, {word} and --suite, expected one", ctx)
            ctx.params[name] = word or ctx.params[name]
            if option.needed and ctx.params[name] is None:
                raise click.UsageError("Missing argument 'SUITE'.", ctx)
        return rest


class Commands(click.Group):
    """The subcommands, by the titles of their sections; an error that a user can meet is reported on one line."""

    command_class = Command

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
