"""A section of the document on the page: Markdown becomes HTML whose tables can be read on a phone and by a screen reader."""

from collections.abc import Iterator, Sequence
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.token import Token

# A paragraph or a cell: its start, its text and its end.
PARAGRAPH = 3


def to_html(text: str, name: str = "", look: str = "") -> str:
    """Render a section whose tables follow a paragraph, which becomes their caption; the first cell of a row is its heading.

    Arguments:
        text: the section, in Markdown.
        name: the identifier of its table; further ones are numbered.
        look: the class of its tables.
    """
    return str(_markdown().render(text, {"name": name, "look": look}))


@cache
def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": True}).enable("table")
    markdown.core.ruler.push("tables", _set_tables)
    return markdown


def _set_tables(state: StateCore) -> None:
    name, places = state.env["name"], list(_places(state.tokens))
    # From the last one on, because a table grows.
    for number, (start, end) in reversed([*enumerate(places, 1)]):
        identifier = name if number == 1 else f"{name}-{number}"
        state.tokens[start:end] = _set_table(state.tokens[start:end], identifier, state.env["look"])


def _places(tokens: Sequence[Token]) -> Iterator[tuple[int, int]]:
    """Yield where each table starts, with the paragraph above it, and where it ends."""
    for at, token in enumerate(tokens):
        if token.type == "table_open":
            end = next(i for i in range(at, len(tokens)) if tokens[i].type == "table_close")
            yield at - PARAGRAPH, end + 1


def _set_table(tokens: list[Token], identifier: str, look: str) -> list[Token]:
    """Put a table with its caption, the paragraph in front of it, into a region that scrolls."""
    _, caption, _, opening, *rest = tokens
    opening.attrs = {"id": f"table-{identifier}", "class": look}
    region = f'<div class="scroll" role="region" tabindex="0" aria-labelledby="caption-{identifier}">\n'
    start = Token("caption_open", "caption", 1, attrs={"id": f"caption-{identifier}"})
    _name_cells(rest)
    return [_html(region), opening, start, caption, Token("caption_close", "caption", -1), *rest, _html("</div>\n")]


def _name_cells(tokens: list[Token]) -> None:
    """Give each cell its scope, or for a phone the heading of its column, and set numbers to the right."""
    starts = [at for at, token in enumerate(tokens) if token.type in ("th_open", "td_open")]
    headings = [tokens[at + 1].content for at in starts if tokens[at].type == "th_open"]
    for index, at in enumerate(starts):
        opening, _, closing = tokens[at : at + PARAGRAPH]
        row, column = divmod(index, len(headings))
        is_number = opening.attrs.pop("style", "") == "text-align:right"
        opening.attrs |= {"class": "number"} if is_number else {}
        if row == 0:
            opening.attrs["scope"] = "col"
        elif column == 0:
            opening.tag = closing.tag = "th"
            opening.attrs["scope"] = "row"
        else:
            opening.attrs["data-heading"] = headings[column]


def _html(content: str) -> Token:
    return Token("html_block", "", 0, content=content)
