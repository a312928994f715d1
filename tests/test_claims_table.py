"""The table of the paper's claims: its counts are those of the published verdicts, and nothing that has a verdict is left out."""

import csv
import re
from pathlib import Path

import pandas as pd
import pytest

from docs.answers import DENSITIES, SUITES
from docs.claims_table import ROWS, Row, claims_table, with_claims
from indm.report.differences import COMPUTE, STEPS
from indm.report.names import name
from indm.store.files import write_table
from tests.conftest import REPOSITORY
from tests.test_publish import made_up_claims

PUBLISHED = REPOSITORY / "docs/results"
PAGE = (PUBLISHED / "README.md").read_text()
BLOCK = re.search(r"<!-- claims: .*?-->\n(.*?)<!-- end of claims -->", PAGE, flags=re.DOTALL)


def cells() -> dict[str, list[str]]:
    """The cells of the published table, by the first one of their row."""
    assert BLOCK
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in BLOCK[1].splitlines() if "|" in line]
    return {first: rest for first, *rest in rows[2:]}


def verdicts(row: Row, comparison: str) -> list[str]:
    """Read the verdicts of measured effects by nothing but the CSV files."""
    found = []
    for suite in row.suites:
        with (PUBLISHED / suite / "tables/claims.csv").open() as file:
            found += [it for it in csv.DictReader(file) if (it["id"], it["comparison"]) == (row.claim, comparison)]
    return [it["verdict"] for it in found if it["effect"]]


@pytest.mark.parametrize("row", ROWS, ids=[row.says for row in ROWS])
@pytest.mark.parametrize(("place", "comparison"), [(0, STEPS), (1, COMPUTE)])
def test_counts_are_those_of_the_published_verdicts(row: Row, place: int, comparison: str) -> None:
    cell, found = cells()[row.says][place].removesuffix(r" \*"), verdicts(row, comparison)
    told = [re.fullmatch(r"(.+?) in (\d+)(?: of (\d+))?", part) for part in cell.split(", ") if found]
    assert {it[1]: int(it[2]) for it in told if it} == {name(word): found.count(word) for word in {*found}}
    assert [it[3] for it in told if it][:1] == [str(len(found))] * bool(found)


def test_every_claim_of_the_paper_on_images_and_densities_has_a_row() -> None:
    """Main claims about INDM that have a number in a suite that is counted."""
    claims = pd.concat(pd.read_csv(PUBLISHED / suite / "tables/claims.csv") for suite in (*SUITES, DENSITIES))
    ours = claims[(claims["family"] == "primary") & (claims["treatment"] == "indm") & claims["effect"].notna()]
    assert {*ours["id"]} <= {row.claim for row in ROWS}


def test_exploratory_counts_are_marked_and_what_has_no_number_is_not_counted(tmp_path: Path) -> None:
    like = made_up_claims().iloc[0].to_dict()
    words = {"one": "better", "two": "better", "three": "not better", "four": "undecided"}
    rows = [
        like | {"id": claim, "objective": place, "comparison": STEPS, "verdict": word, "family": family}
        for claim, family in (("main", "primary"), ("other", "exploratory"))
        for place, word in words.items()
    ]
    rows[3] |= {"effect": float("nan")}
    write_table(tmp_path / "mine/tables/claims.csv", pd.DataFrame(rows))
    found = claims_table(tmp_path, [Row(claim, claim, ("mine",), "much") for claim in ("main", "other")]).splitlines()
    assert found[2:] == [
        "| main | better in 2 of 3, no gain in 1 | – | much |",
        r"| other | better in 2 of 4, no gain in 1, undecided in 1 \* | – | much |",
    ]


def test_without_all_of_its_suites_the_table_stays(tmp_path: Path) -> None:
    assert with_claims("a page", tmp_path, "a place") == "a page"
