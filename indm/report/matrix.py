"""The matrix of verdicts: a row for each claim and place, a column for each kind of comparison; in Markdown, a page or a terminal.

The cells are made here once. A form of the text, such as :class:`InFile`, decides how a verdict and a number are written.
"""

import html
import math
from collections.abc import Iterable, Sequence
from typing import Protocol

from indm.report.answers import Answer, Cells, Compared, kinds_of, seeds_of, tally
from indm.report.differences import SIMPLE
from indm.report.export import in_digits
from indm.report.grades import BETTER, NOT_BETTER, UNDECIDED, WORSE
from indm.report.names import name

SYMBOLS = {BETTER: "✓", WORSE: "✗", NOT_BETTER: "−", UNDECIDED: "?"}
ABSENT = "–"
# Lines do not break at this space.
HARD = "\u00a0"


class Form(Protocol):
    """How a document in Markdown writes what has a look of its own on a page."""

    def graded(self, verdict: str) -> str:
        """Write a verdict in words."""

    def number(self, text: str, value: float) -> str:
        """Write a rounded number, whose unrounded value a page has, too."""

    def together(self, text: str) -> str:
        """Write a text in which lines do not break."""

    def error(self, text: str) -> str:
        """Write the error behind a number."""


class InFile:
    """The form of a file."""

    def graded(self, verdict: str) -> str:
        """Write its words."""
        return name(verdict)

    def number(self, text: str, value: float) -> str:
        """Write the text."""
        return text

    def together(self, text: str) -> str:
        """Write a space in front of an interval at which lines do not break."""
        return text.replace(" [", f"{HARD}[")

    def error(self, text: str) -> str:
        """Write the text."""
        return text


class OnPage:
    """The form of a page: HTML that Markdown lets through."""

    def graded(self, verdict: str) -> str:
        """Write the words behind their symbol, in the colour of the verdict."""
        symbol = f'<span class="symbol" aria-hidden="true">{SYMBOLS[verdict]}</span>'
        return f'<span class="grade grade-{verdict.replace(" ", "-")}">{symbol}{html.escape(name(verdict))}</span>'

    def number(self, text: str, value: float) -> str:
        """Write the text and, in an attribute, the value."""
        return f'<span data-value="{value!r}">{text}</span>'

    def together(self, text: str) -> str:
        """Write an element in which lines do not break."""
        return f'<span class="value">{text}</span>'

    def error(self, text: str) -> str:
        """Write the text in grey."""
        return f'<span class="error">{text}</span>'


def plain(text: str) -> str:
    """Escape what would be markup in a cell of a table in Markdown."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("*", "\\*")


def matrix(answers: Sequence[Answer], form: Form, controls: bool = False) -> str:
    """Write the matrix, with the rows of longer published suites below each claim.

    Arguments:
        answers: the claims, each at its places.
        form: how verdicts and numbers are written.
        controls: whether the columns are the further controls, in place of the main comparisons.
    """
    kinds = kinds_of(answers, controls)
    rows = []
    for it in answers:
        rows.append([plain(it.asked), plain(it.place), *cells_of(it.cells, kinds, form)])
        longer = {} if controls else it.evidence
        rows += [
            [f"*published: {suite}*", seeds_of(found), *cells_of(found, kinds, form)] for suite, found in longer.items()
        ]
    return table(["claim", "where", *kinds.values()], rows)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], numbers: bool = False) -> str:
    """Write a table in Markdown; the columns behind the first one are set to the right if they are numbers."""
    rule = "|---" + ("|--:" if numbers else "|---") * (len(headings) - 1) + "|"
    return "\n".join([_row(headings), rule, *map(_row, rows)])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cells_of(cells: Cells, kinds: Iterable[str], form: Form) -> list[str]:
    """Write the comparisons of a row, by their kinds."""
    return [cell(cells[kind], form) if kind in cells else ABSENT for kind in kinds]


def cell(ones: Sequence[Compared], form: Form) -> str:
    """Write a comparison: its verdict and effect with the interval, or the reason; several are counted by their verdicts."""
    return one_cell(ones[0], form) if len(ones) == 1 else counts(ones, form)


def one_cell(one: Compared, form: Form) -> str:
    """Write a comparison; the simple control by its name, and an open question with the seeds that would decide it."""
    if not one.measured:
        graded = f"{form.graded(one.verdict)}: " if one.planned else ""
        return graded + plain(one.reason)
    who = f"{one.against}: " if one.kind == SIMPLE else ""
    seeds = f" {form.together(f'{{{one.to_decide}}}')}" if one.verdict == UNDECIDED and one.to_decide else ""
    texts = (who + form.graded(one.verdict), interval(one, form) + seeds, one.ratio, one.failed)
    return ", ".join(filter(None, texts))


def interval(one: Compared, form: Form) -> str:
    """Write an effect with the ends of its interval, if it has one."""
    known = (end for end in (one.effect, one.low, one.high) if not math.isnan(end))
    effect, *ends = (form.number(in_digits(end, one.smallest).replace("-", "−"), end) for end in known)
    return form.together(effect + (f" [{', '.join(ends)}]" if ends else ""))


def counts(ones: Iterable[Compared], form: Form) -> str:
    """Count measured comparisons by their verdicts."""
    told = (form.together(f"{count} {form.graded(verdict)}") for verdict, count in tally(ones).items())
    return ", ".join(told) or "not measured"


def short(one: Compared | None = None) -> str:
    """Write a comparison for a terminal: verdict and effect, or the seeds that have both numbers; ``-`` for what was not run."""
    if one is None or not one.planned:
        return "-"
    if not one.measured:
        return f"{name(one.verdict)}, {one.seeds} of {one.planned} seeds"
    return f"{name(one.verdict)}, {one.effect:.3f}"
