"""The pages of all results and of datasets: their sentences have rows, and their tables and links have all suites.

A failure of a verdict means that a table has changed: read the sentence that is named, and write it anew.
"""

import re

import pandas as pd
import pytest
from scipy import stats

from docs.answers import DATASETS, KNOWN, OBJECTIVES, SUITES
from indm.bench.suite.claims import load_claims
from indm.bench.suite.load import load_suite
from indm.report.grades import BETTER
from indm.report.rows import read_rows
from tests.conftest import REPOSITORY

PUBLISHED, PARAMS = REPOSITORY / "docs/results", REPOSITORY / "params"
PAGES = {path.stem: path.read_text() for path in sorted(PUBLISHED.glob("*.md"))}


def prose(page: str) -> str:
    """A page without what is made from tables."""
    return re.sub(r"<!-- (\w+): .*?<!-- end of \1 -->", "", PAGES[page], flags=re.DOTALL)


PROSE, FRONT = "\n".join(map(prose, PAGES)), prose("README")


def main_claims(suite: str) -> set[tuple[str, str]]:
    """The main claims of a suite with a number, and their objectives."""
    claims = read_rows(PUBLISHED / suite / "tables/claims.csv").query("family == 'primary'").dropna(subset="effect")
    return {*zip(claims["id"], claims["objective"], strict=True)}


def rows(page: str, block: str) -> list[str]:
    (found,) = re.findall(rf"<!-- {block}: [^\n]*-->\n(.*?)<!-- end of {block} -->", PAGES[page], flags=re.DOTALL)
    return [line for line in found.splitlines() if line.startswith("|")][2:]


def test_the_ladder_has_each_suite_with_each_of_its_objectives() -> None:
    for suite in SUITES:
        asked = {objective for claim, objective in main_claims(suite) if claim == "better-nelbo"}
        assert {*OBJECTIVES.get(suite, ("nll",))} == asked
        for objective in asked:
            assert any(row.startswith(f"| {SUITES[suite]}, `{objective}` |") for row in rows("README", "means"))


def test_every_main_comparison_has_a_row_on_the_page_of_its_dataset() -> None:
    assert sorted(suite for suites in DATASETS.values() for suite in suites) == sorted(SUITES)
    for page, suites in DATASETS.items():
        assert len(rows(page, "answers")) == sum(len(main_claims(suite)) for suite in suites)


def test_the_front_page_links_every_dataset_and_they_link_every_published_suite_but_searches() -> None:
    published = {path.parent.name for path in PUBLISHED.glob("*/README.md")}
    assert {*re.findall(r"\]\(([\w-]+)\.md\)", FRONT)} == {*PAGES} - {"README"}
    assert {*re.findall(r"\]\(([\w-]+)/README\.md\)", PROSE)} == published


def test_suites_that_would_change_the_answer_are_there_and_not_published() -> None:
    """On failure: the suite has been published, so that the page may have to say what it changed."""
    named = {name for name in re.findall(r"`([\w-]+)`", PROSE) if (PARAMS / f"{name}.yaml").is_file()}
    assert named
    assert not [name for name in named if (PUBLISHED / name / "tables").is_dir()]


def test_numbers_are_in_the_tables_only() -> None:
    """Except for the smallest effects that count, and how leads change with the length of training."""
    smallest = {it.id: f"{it.smallest.effect:g}" for it in load_claims(PARAMS / "claims.yaml").claims}
    assert not re.findall(r"\b\d+\.\d+\b", FRONT)
    text = re.sub(r"^[|!].*$|FID of 1\.75", "", PROSE, flags=re.MULTILINE)
    assert {*re.findall(r"\b\d+\.\d+\b", text)} == {smallest[claim] for claim in ("lower-fid", "better-nelbo", *KNOWN)}


def test_no_main_comparison_of_fid_is_decided_for_the_flow() -> None:
    for suite in SUITES:
        claims = read_rows(PUBLISHED / suite / "tables/claims.csv").query("family == 'primary' and id == 'lower-fid'")
        assert BETTER not in set(claims["verdict"])


def test_the_curve_and_filter_are_ahead_of_the_flow_at_all_searched_rates() -> None:
    tuning = read_rows(PUBLISHED / "cifar10-search/tables/tuning.csv")
    bounds = tuning[tuning["steps"] == 1000].pivot(index="trial", columns=["model", "variant"], values="target")
    assert len(bounds) == 6
    assert (bounds["ddpmpp", "learned-curve-filter"] < bounds["indm", ""]).all()


def test_densities_have_the_number_and_the_lengths_that_the_text_states() -> None:
    suite = load_suite(PARAMS / "densities.yaml")
    kinds = {name.rpartition("-")[0] for name in suite.toy2d.datasets}
    assert len(kinds) == 11
    assert {
        len({seed for it in suite.toy2d.datasets.values() if it.density == kind for seed in it.seeds}) for kind in kinds
    } == {24}
    assert "eleven [densities]" in PROSE
    assert "with 24 seeds" in PROSE
    lengths = [f"{length.steps:,}" for length in suite.toy2d.lengths.values()]
    assert re.findall(r"after ([\d,]+) steps \(short\) and ([\d,]+)", PROSE) == [tuple(lengths)]


LENGTHS = {
    "INDM over DDPM++, equal steps": ("better-nelbo", "equal steps"),
    "INDM over DDPM++, equal compute": ("better-nelbo", "equal compute"),
    "INDM over learned curve and filter": ("better-nelbo", "simple control"),
    "learned curve and filter over DDPM++": ("better-nelbo-maps", "equal steps"),
}


def leads(suite: str, claim: str, comparison: str) -> "pd.Series[float]":
    table = read_rows(PUBLISHED / suite / "tables/differences.csv")
    return table[(table["id"] == claim) & (table["comparison"] == comparison)]["difference"]


@pytest.mark.parametrize("lead", LENGTHS)
def test_changes_from_length_to_length_are_those_of_the_seeds(lead: str) -> None:
    short, longer = (leads(suite, *LENGTHS[lead]) for suite in ("cifar10-1000", "cifar10-3000"))
    interval = stats.ttest_ind(longer, short, equal_var=False).confidence_interval()
    change, low, high = (f"{it:.3f}".replace("-", "−") for it in (longer.mean() - short.mean(), *interval))
    ends = " | ".join(f"{it.mean():.3f}".replace("-", "−") for it in (short, longer))
    assert f"| {lead} | {ends} | {change} [{low}, {high}] |" in PAGES["cifar10"]
