"""README's answer: its table has the gains and multiples of the published tables, and its words are those of the verdicts."""

import re
from pathlib import Path

import pytest

from docs.answers import PHOTOGRAPHS
from docs.gains import COLUMNS, ROWS, Row, with_gains
from docs.report import is_finished
from indm.bench.suite.load import load_suite
from indm.report.differences import STEPS
from indm.report.grades import BETTER, WORSE
from indm.report.multiples import read_multiples
from indm.report.rows import read_rows, records
from tests.conftest import REPOSITORY

PUBLISHED = REPOSITORY / "docs/results"
README = (REPOSITORY / "README.md").read_text()
PROSE = re.sub(r"<!-- (\w+): .*?<!-- end of \1 -->|```.*?```", "", README, flags=re.DOTALL)
FIXED, MAPS, FLOW, OVER_COMPUTE = ROWS[0], ROWS[2], ROWS[3], ROWS[4]
# Of each column, the suite that trains INDM.
MAIN = {title: suites[0] for title, suites in COLUMNS.items()}


def cells() -> dict[str, list[str]]:
    block = README.split("<!-- gains:")[1].split("<!-- end of gains")[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in block.splitlines() if line[:2] == "| "]
    return {says.strip(): found for says, *found in rows}


def claim(suite: str, row: Row) -> dict[str, object]:
    table = read_rows(PUBLISHED / suite / "tables/claims.csv").query("objective == 'nll'").dropna(subset="effect")
    (found,) = records(table[(table["id"] == row.claim) & (table["comparison"] == row.comparison)])
    return found


@pytest.mark.parametrize("row", [MAPS, FLOW, OVER_COMPUTE], ids=lambda row: row.says)
def test_a_cell_has_the_gain_the_verdict_and_the_multiple_of_its_suite(row: Row) -> None:
    _, *found = cells()[row.says]
    for suite, cell in zip(MAIN.values(), found, strict=True):
        gain, words = cell.replace("−", "-").removesuffix("</sub>").split("<br><sub>")
        lead = claim(suite, row)
        assert (gain, words.split(";")[0].rstrip(" \\*")) == (f"{lead['effect']:.3f}", lead["verdict"])
        assert ("*" in words) == (lead["family"] != "primary")
        if row.comparison == STEPS:
            models = {one.arm: one for one in read_multiples(PUBLISHED / suite / "tables")}
            assert words.endswith(f"× {models[row.model].multiple.value:.2f}")


def test_the_fixed_filter_was_run_on_photographs_only_where_readme_has_no_number() -> None:
    """On failure: it was run on other data, so that README's answer may have to say what came out."""
    _, *found = cells()[FIXED.says]
    for suites, cell in zip(COLUMNS.values(), found, strict=True):
        published = {suite for suite in suites if is_finished(PUBLISHED, suite)}
        assert (cell == "not run<br><sub>run on photographs only</sub>") == (not published & PHOTOGRAPHS)


def test_the_answer_in_bold_is_that_of_the_verdicts() -> None:
    """The learned map is better everywhere, and ahead of the flow; no map is better than the flow at equal compute."""
    for suite in MAIN.values():
        assert (claim(suite, MAPS)["verdict"], claim(suite, OVER_COMPUTE)["verdict"]) == (BETTER, WORSE)
        assert float(claim(suite, MAPS)["effect"]) > float(claim(suite, FLOW)["effect"])  # type: ignore[arg-type]
        if suite in PHOTOGRAPHS:
            assert claim(suite, FIXED)["verdict"] == BETTER


def passes(suite: str) -> float:
    """Passes over the training images of a suite's trainings of equal steps."""
    train, counts = load_suite(REPOSITORY / f"params/{suite}.yaml").train, {"cifar10-maps": 45_000}
    counts |= {"celeba64-6000": 4_560, "fashion-full": 55_000}
    return (train.steps or 0) * train.batch_size / counts[suite]


def test_the_numbers_in_the_text_are_those_of_the_suites() -> None:
    """The passes over the training images; the smallest effect that counts, and the release of Python, are words of rules."""
    found = re.findall(r"\b\d+\.\d+\b", PROSE.split("## How much")[1].split("## Check your")[0])
    assert [number for number in found if number != "0.01"] == [f"{passes(suite):.1f}" for suite in MAIN.values()]


def test_the_page_is_unchanged_without_results_and_refused_without_a_place(tmp_path: Path) -> None:
    assert with_gains("a page", tmp_path) == "a page"
    assert with_gains(README, PUBLISHED) == README
