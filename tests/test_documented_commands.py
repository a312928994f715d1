"""The commands in the documents exist: those of indm with their options, those of make, and the suites and runs they name."""

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import click
import pytest

from indm.bench.cli import main
from indm.bench.pipeline.stages import STAGES, command_name
from indm.bench.suite.load import load_suite
from indm.report.catalogue import SHOWN
from indm.shipped import DEFAULT_SUITE
from tests.conftest import REPOSITORY
from tests.test_docs import documents

BLOCK = re.compile(r"^```(?:sh|console)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:\$ )?(?:\.venv/bin/)?(?:python -m )?(indm|make|snakemake) (.*)")
TARGETS = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))
SUITES = {path.stem for path in (REPOSITORY / "params/expanded").glob("*.json")}
# What has not been an option always: the history of versions says what each had.
DOCUMENTS = [path for path in documents() if path.name != "CHANGELOG.md"]


def commands(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the commands of a document, of its blocks and of its text: the program and its arguments."""
    text = path.read_text()
    lines = [line for block in BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`([^`\n]+)`", FENCED.sub("", text))
    for line in lines:
        for part in re.split(r"&&|;|\||>", line.partition("  #")[0]):
            if found := COMMAND.fullmatch(part.strip()):
                yield found[1], shlex.split(found[2])


def is_placeholder(word: str) -> bool:
    """Whether a reader is to put a word of his own."""
    return word.isupper() or word in ("…", "...", "mine") or word.startswith(("<", "$"))


def made_by_the_reader(path: Path) -> set[str]:
    """The suites that a page of docs/extending has the reader write."""
    return set(re.findall(r"^```yaml params/([\w-]+)\.yaml$", path.read_text(), flags=re.MULTILINE))


def test_commands_of_documents_exist() -> None:
    for path in DOCUMENTS:
        check_page(path)


def check_page(path: Path) -> None:
    suites = SUITES | made_by_the_reader(path)
    stages = re.findall(r'^\+    "(\w+)": Stage\(', path.read_text(), flags=re.MULTILINE)
    for program, arguments in commands(path):
        named = [word.partition("=")[2] for word in arguments if word.lower().startswith("suite=")]
        for suite in named:
            assert suite in suites or is_placeholder(suite), arguments
        if program == "make":
            assert arguments[0] in TARGETS, arguments
        elif program == "indm" and not arguments[0].startswith("-") and arguments[0] not in stages:
            check(arguments, suites)


def check(arguments: list[str], suites: set[str]) -> None:
    """Check a command of indm: its name, its options, and the suite and the run that it names."""
    name, *rest = arguments
    if is_placeholder(name):
        return
    command = main.get_command(click.Context(main), name.rstrip(":"))
    assert command is not None, arguments
    if name.endswith(":"):  # an error that begins with the command's name
        return
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert {word for word in rest if word.startswith("--")} <= known, arguments
    given = dict(pairwise(rest))
    suite = Path(given.get("--suite") or suite_word(command, rest)).stem
    assert suite in suites or is_placeholder(suite), arguments
    run = given.get("--run")
    if run is not None and not is_placeholder(run):
        assert run in load_suite(REPOSITORY / f"params/{suite}.yaml").runs, arguments


def suite_word(command: click.Command, words: list[str]) -> str:
    """Return the suite that is a command's first word; where the first word is something else, the default suite."""
    takes = {parameter.name for parameter in command.params if isinstance(parameter, click.Argument)}
    first = words[0] if words and not words[0].startswith("-") else DEFAULT_SUITE
    others = {*SHOWN, *map(command_name, STAGES)} if "words" in takes else set()
    return first if takes & {"suite", "words"} and first not in others else DEFAULT_SUITE


def test_a_mistyped_command_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    mistyped = ["indm shwo", "indm show --sweet digits", "indm show --suite digit", "indm show digit", "make tabel"]
    mistyped.append("make table SUITE=digit")
    for wrong in mistyped:
        page.write_text(f"Run `{wrong}`.\n")
        with pytest.raises(AssertionError, match=wrong.split()[1]):
            check_page(page)
    page.write_text(
        "```sh\npython -m indm train --suite params/digits.yaml --run digits-vp-indm-nll-s99   # no such seed\n```\n"
    )
    with pytest.raises(AssertionError, match="nll-s99"):
        check_page(page)
