"""The documentation: links lead somewhere, and prose is plain. `make docs` stops at the first warning of the site."""

import functools
import importlib
import re
import subprocess
import tokenize
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

# How often the pages may have what reads as translated: rewrite a sentence rather than raise a number.
BUDGETS = {
    r"\b(that|those)\s+of\b": 5,
    r"\bas\s+many\s+\w+\b(?!\s+as\b)": 2,
    r"\b(is|are|was|were)\s+of\b": 0,
    r"\b(is|are)\s+(no|none)\b": 0,
    r"\bof\s+(its|their)\s+own\b": 0,
    r"[.:]\s+(?-i:So)\b": 0,
    r"(?<!the\s)\bobjective\s+(nll|fid)\b": 1,
    r"\b(beside|whence|alike|for\s+want\s+of)\b": 2,
    r"\bwhat\b": 7,
    r"\b(nobody|nothing|none)\b": 10,
}
# The same for docstrings, comments and messages of the package.
IN_CODE = {
    r"\b(that|those)\s+of\b": 2,
    r"\bas\s+many\s+\w+\b(?!\s+as\b)": 0,
    r"\b(is|are|was|were)\s+of\b": 1,
    r"(?<!there\s)\b(is|are)\s+(no|none)\b": 4,
    r"\bof\s+(its|their)\s+own\b": 0,
    r"(\.\s+|\"|# )(?-i:So|Of|What)\b": 0,
    r"(?<!the\s)\bobjective\s+(nll|fid)\b": 0,
    r"\b(beside|whence|alike|for\s+want\s+of)\b": 1,
    r"\bwhat\b": 5,
    r"\b(nobody|nothing|none)\b": 43,
    r"\barms?\b": 1,
    r"\b(says?|said|knows?|tells?|told)\b": 3,
}
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/*.md", "results/README.md", "reports/README.md")
# Not lines of prose: code, equations, blocks that are generated, and one-line comments.
NOT_PROSE = r"^ *```.*?^ *```$|^\$\$$.*?^\$\$$|^<!-- (\w+): .*?^<!-- end of \1 -->$|^<!--[^\n]*-->$"

NOT_WORDS = r"^ *```.*?^ *```$|`[^`\n]+`|(?<=\])\([^)\s]+\)"


def tracked(*patterns: str) -> list[Path]:
    found = subprocess.run(["git", "ls-files", *patterns], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return [REPOSITORY / name for name in found.stdout.splitlines()]


def documents() -> list[Path]:
    return tracked("*.md")


def prose(text: str) -> list[str]:
    """Return the lines of a document that are no code, no table and not generated."""
    lines = re.sub(NOT_PROSE, "", text, flags=re.DOTALL | re.MULTILINE).splitlines()
    return [line for line in lines if not line.lstrip().startswith("|") and not line.startswith("    ")]


def places(pattern: str, text: str) -> list[int]:
    """Return the lines on which a pattern begins in a document, outside of code and of the targets of links."""
    kept = re.sub(NOT_WORDS, lambda code: "\n" * code[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE)
    return [kept.count("\n", 0, found.start()) + 1 for found in re.finditer(pattern, kept, re.IGNORECASE)]


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_to_files_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if not (path.parent / link.partition("#")[0]).exists()] == []


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_to_headings_lead_to_one(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for file, heading in re.findall(r"\]\(([^)\s#:]*)#([^)\s]+)\)", text):
        assert heading in headings(path.parent / file if file else path), f"{file}#{heading}"


IMPORT = re.compile(r"^[ +]?from (indm[\w.]*) import ([\w, ]+)$", re.MULTILINE)


@pytest.mark.parametrize("path", tracked("docs/*.md", "docs/extending/*.md"), ids=lambda path: path.stem)
def test_what_documents_import_is_there(path: Path) -> None:
    text = path.read_text()
    for module, names in IMPORT.findall(text):
        # Some pages have the reader write a module.
        if f"{module.replace('.', '/')}.py" not in text:
            missing = [name for name in names.split(", ") if not hasattr(importlib.import_module(module), name)]
            assert not missing, module


def headings(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub names them."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_every_document_is_on_the_site() -> None:
    index = (REPOSITORY / "docs/index.md").read_text()
    pages = {
        path.relative_to(REPOSITORY / "docs").with_suffix("")
        for path in documents()
        if path.is_relative_to(REPOSITORY / "docs")
    }
    listed = {Path(line) for line in index.splitlines()}
    assert {page for page in pages if page.name != "index" and page not in listed} == set()


@pytest.mark.parametrize("pattern", BUDGETS)
def test_odd_patterns_stay_within_their_budgets(pattern: str) -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}:{line}"
        for path in tracked(*PAGES)
        for line in places(pattern, path.read_text())
    ]
    assert len(found) <= BUDGETS[pattern], (
        f"{pattern}: found {len(found)}, expected at most {BUDGETS[pattern]}; rewrite a sentence at {', '.join(found[:9])}"
    )


@functools.cache
def words_in_code() -> dict[str, str]:
    """Return the comments of the package's modules and their texts of several words, without values that are filled in."""
    found = {}
    for path in tracked("indm/*.py"):
        lines: list[str] = []
        with path.open("rb") as file:
            for token in tokenize.tokenize(file.readline):
                # From Python 3.12 on, an f-string comes in parts.
                if token.type == tokenize.COMMENT or (
                    tokenize.tok_name[token.type] in ("STRING", "FSTRING_MIDDLE") and token.string.count(" ") > 2
                ):
                    lines += ["" for _ in range(len(lines) + 1, token.start[0])] + token.string.splitlines()
        found[str(path.relative_to(REPOSITORY))] = re.sub(r"\{[^{}\n]*\}", "", "\n".join(lines))
    return found


@pytest.mark.parametrize("pattern", IN_CODE)
def test_odd_patterns_in_docstrings_comments_and_messages_stay_within_their_budgets(pattern: str) -> None:
    found = [f"{path}:{line}" for path, text in words_in_code().items() for line in places(pattern, text)]
    assert len(found) <= IN_CODE[pattern], (
        f"{pattern}: found {len(found)}, expected at most {IN_CODE[pattern]}; rewrite a sentence at {', '.join(found[:9])}"
    )


def test_odd_patterns_are_found_across_lines_and_not_in_code() -> None:
    text = "the NLL is that\n  of INDM.\nSo is\n```\nthat of\n. So\n```\nthose of, so. so: So"
    assert [places(pattern, text) for pattern in list(BUDGETS)[:6:5]] == [[1, 8], [2, 8]]


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_lines_of_prose_have_at_most_120_characters(path: Path) -> None:
    if path.is_relative_to(REPOSITORY / "docs/results"):
        pytest.skip("results are published as they were written")
    assert [line for line in prose(path.read_text()) if len(line) > 120] == []


def test_code_tables_and_generated_blocks_are_no_prose() -> None:
    text = "a\n```sh\ncode\n```\n| table |\n<!-- answers: written -->\nb\n<!-- end of answers -->\n$$\nx\n$$\nc"
    assert [line for line in prose(text) if line] == ["a", "c"]
    # A comment ends on its line.
    assert [line for line in prose("<!-- one -->\na\n<!-- two -->\nb") if line] == ["a", "b"]


@pytest.mark.parametrize(
    "page", sorted((REPOSITORY / "docs/results").glob("*/README.md")), ids=lambda page: page.parent.name
)
def test_pages_of_results_are_short_and_have_the_same_headings(page: Path) -> None:
    text = page.read_text()
    assert re.findall(r"^## (.*)", text, flags=re.MULTILINE) == ["Question", "Results", "Limitations", "Reproduce"]
    assert len(text.splitlines()) <= 80
