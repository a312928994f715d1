"""The documentation: links lead somewhere, and prose is plain. `make docs` stops at the first warning of the site."""

import importlib
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

# What readers took for translated, with what says the same.
DISCOURAGED = {
    "as many other seeds would come to another verdict": "rerunning with new seeds would change this verdict",
    "gone on with by another": "continued on another machine",
    "its bytes would be neither's": "its bytes would match neither",
    "the state of after step": "the state after step",
    "how to lay it by hand": "where to put it",
    "free space or rights": "free disk space or get write access",
    "at this work": "using this folder",
    "wait for it or end it": "wait until it has ended, or stop it",
    "row a cell": "row per cell",
}
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


def spoken(text: str) -> str:
    """Return a text on one line, its strings joined, without the marks of comments."""
    joined = re.sub(r"\"\s*\n\s*f?\"", "", text)
    return " ".join(re.sub(r"^\s*#+ ", "", joined, flags=re.MULTILINE).split())


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


@pytest.mark.parametrize("phrase", DISCOURAGED)
def test_odd_phrases_stand_nowhere(phrase: str) -> None:
    suffixes = {".md", ".py", ".smk", ".jinja", ".rst", ".sh", ".yaml"}
    files = [path for path in tracked("README.md", "docs", "indm", "workflow") if path.suffix in suffixes]
    found = [str(path.relative_to(REPOSITORY)) for path in files if phrase in spoken(path.read_text())]
    assert found == [], f"say: {DISCOURAGED[phrase]}"


def test_odd_phrases_are_found_across_lines_and_strings() -> None:
    phrase = "free space or rights"
    for text in ("free\n    space or rights", '"free space "\n    f"or rights"', "# free space\n# or rights"):
        assert phrase in spoken(text)


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
