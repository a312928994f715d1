"""Parts of a report in Markdown."""


def table(heading: str, rows: list[str]) -> list[str]:
    """Return the lines of a table from its heading and its rows, each with bars between and around the cells."""
    return [heading, "|---" * (heading.count("|") - 1) + "|", *rows]
