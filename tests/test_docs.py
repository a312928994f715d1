"""The documentation: links lead somewhere, `make docs` stops at the first warning of the site."""

import importlib
import re
import subprocess
from pathlib import Path

from tests.conftest import REPOSITORY

# Not lines of prose: code, equations, blocks that are generated, and one-line comments.
NOT_PROSE = r"^ *```.*?^ *```$|^\$\$$.*?^\$\$$|^<!-- (\w+): .*?^<!-- end of \1 -->$|^<!--[^\n]*-->$"


def tracked(*patterns: str) -> list[Path]:
    found = subprocess.run(["git", "ls-files", *patterns], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return [REPOSITORY / name for name in found.stdout.splitlines()]


def documents() -> list[Path]:
    return tracked("*.md")


def prose(text: str) -> list[str]:
    """Return the lines of a document that are no code, no table and not generated."""
    lines = re.sub(NOT_PROSE, "", text, flags=re.DOTALL | re.MULTILINE).splitlines()
    return [line for line in lines if not line.lstrip().startswith("|") and not line.startswith("    ")]


def test_links_lead_to_files_and_headings() -> None:
    for path in documents():
        text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
        links = [link.partition("#") for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
        assert [file for file, _, _ in links if not (path.parent / file).exists()] == [], path
        for file, _, heading in (link for link in links if link[2] and ":" not in link[0]):
            assert heading in headings(path.parent / file if file else path), f"{path}: {file}#{heading}"


IMPORT = re.compile(r"^[ +]?from (indm[\w.]*) import ([\w, ]+)$", re.MULTILINE)


def test_what_documents_import_is_there() -> None:
    for path in tracked("docs/*.md", "docs/extending/*.md"):
        text = path.read_text()
        for module, names in IMPORT.findall(text):
            # Some pages have the reader write a module.
            if f"{module.replace('.', '/')}.py" not in text:
                missing = [name for name in names.split(", ") if not hasattr(importlib.import_module(module), name)]
                assert not missing, (path, module)


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


def test_lines_of_prose_have_at_most_120_characters() -> None:
    """But for results, which are published as they were written."""
    pages = [path for path in documents() if not path.is_relative_to(REPOSITORY / "docs/results")]
    assert [(path, line) for path in pages for line in prose(path.read_text()) if len(line) > 120] == []


def test_the_site_takes_no_line_of_prose_for_a_comment() -> None:
    commented = [(path, line) for path in documents() for line in prose(path.read_text()) if re.match(r"\s*%", line)]
    assert commented == []


def test_code_tables_and_generated_blocks_are_no_prose() -> None:
    text = "a\n```sh\ncode\n```\n| table |\n<!-- answers: written -->\nb\n<!-- end of answers -->\n$$\nx\n$$\nc"
    assert [line for line in prose(text) if line] == ["a", "c"]
    # A comment ends on its line.
    assert [line for line in prose("<!-- one -->\na\n<!-- two -->\nb") if line] == ["a", "b"]


def test_pages_of_results_have_the_same_headings() -> None:
    for page in (REPOSITORY / "docs/results").glob("*/README.md"):
        found = re.findall(r"^## (.*)", page.read_text(), flags=re.MULTILINE)
        assert found == ["Question", "Results", "Limitations", "Reproduce"], page
