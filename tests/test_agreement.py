"""Comparing results with published ones: what counts as the same, and what is named."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from indm.cli import main
from indm.report.agreement import FAR, agreement
from indm.store.files import file_sha256
from indm.store.layout import Layout
from indm.store.manifest import Manifest, write_manifest

PUBLISHED = Path(__file__).parents[1] / "docs/results/digits"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PUBLISHED, tmp_path / "published/digits"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Results that are those published."""
    shutil.copytree(PUBLISHED / "tables", tmp_path / "results/digits/tables")
    provenance = tmp_path / "results/digits/runs/some/provenance/train.json"
    provenance.parent.mkdir(parents=True)
    provenance.write_text(json.dumps({"machine": "a laptop"}))
    sign(tmp_path / "results")
    return tmp_path / "results"


def sign(out: Path) -> None:
    """Write the manifest of the tables as they are."""
    outputs = {
        f"results/digits/tables/{path.name}": file_sha256(path) for path in (out / "digits/tables").glob("*.csv")
    }
    write_manifest(out / "digits/tables/manifest/table.json", Manifest("table", "digits", "", {}, {}, outputs))


def compare(published: Path, out: Path) -> Result:
    return CliRunner().invoke(main, ["compare", str(published), "--out", str(out)])


def edit(path: Path, change: Callable[[pd.DataFrame], None]) -> None:
    table = pd.read_csv(path)
    change(table)
    table.to_csv(path, index=False)


def test_the_same_results_agree_to_the_last_digit(published: Path, out: Path) -> None:
    done = compare(published, out)
    assert done.exit_code == 0, done.output
    found = agreement(published, Layout(out, "digits"))
    total, verdicts = len(found.numbers), len(found.verdicts)
    assert total > 300
    assert verdicts == len(pd.read_csv(PUBLISHED / "tables/claims.csv"))
    machine = json.loads((PUBLISHED / "provenance.json").read_text())["executions"][0]["machine"]
    assert done.output.splitlines() == [
        f"published: {machine}",
        "here: a laptop",
        f"verdicts: {verdicts} of {verdicts} the same",
        f"numbers: {total} of {total} within 3 standard errors, {total} the same to the last digit",
        "",
        "They agree.",
    ]


@pytest.mark.parametrize(("errors", "agrees"), [(0.9 * FAR, True), (1.1 * FAR, False), (-1.1 * FAR, False)])
def test_a_number_changed_by_hand_is_named_where_it_lies_too_far_off(
    published: Path, out: Path, errors: float, agrees: bool
) -> None:
    """Of the difference of two means over seeds, whose standard errors add as squares."""

    def change(table: pd.DataFrame) -> None:
        table["nll"] += errors * 2**0.5 * table["nll_se"] * (table.index == 2)

    row = pd.read_csv(PUBLISHED / "tables/nll.csv", keep_default_na=False).loc[2]
    edit(published / "tables/nll.csv", change)
    done = compare(published, out)
    assert done.exit_code == (not agrees)
    assert done.output.endswith("They agree.\n" if agrees else "They differ.\n")
    named = [line.split() for line in done.output.splitlines() if line.startswith("nll ")]
    cell = [value for value in (row["dataset"], row["sde"], row["model"], row["variant"], row["objective"]) if value]
    assert [line[: len(cell) + 2] for line in named] == ([] if agrees else [["nll", *cell, "nll"]])
    assert f"{len(named)}" == ("0" if agrees else "1")


def test_another_verdict_counts_unless_another_draw_may_change_it(published: Path, out: Path) -> None:
    path = published / "tables/claims.csv"
    edit(path, lambda table: table.__setitem__("grade", table["grade"].replace("shown", "ruled out")))
    done = compare(published, out)
    assert done.exit_code == 1
    assert re.search(r"^likelihood-weighting digits vp nll +ruled out +shown +False$", done.output, flags=re.MULTILINE)
    edit(path, lambda table: table.__setitem__("repeatability", 0.5))
    done = compare(published, out)
    assert done.exit_code == 0
    assert re.search(r"^likelihood-weighting digits vp nll +ruled out +shown +True$", done.output, flags=re.MULTILINE)
    assert done.output.endswith("They agree.\n")


def test_rows_on_one_side_and_other_settings_are_named(published: Path, out: Path) -> None:
    edit(published / "tables/toy2d.csv", lambda table: table.drop(index=0, inplace=True))
    edit(out / "digits/tables/fid.csv", lambda table: table.__setitem__("num_samples", table["num_samples"] + 1))
    sign(out)
    found = agreement(published, Layout(out, "digits"))
    assert not found.agrees
    far = found.far_numbers
    assert set(far["table"]) == {"toy2d", "fid"}
    assert far[far["table"] == "toy2d"]["published"].isna().all()
    assert set(far[far["table"] == "fid"]["number"]) == {"num_samples"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda published, _: (published / "tables/nll.csv").unlink(), "nll.csv: cannot be read as a table"),
        (lambda published, _: (published / "provenance.json").unlink(), "provenance.json: "),
        (lambda _, out: (out / "digits/tables/nll.csv").unlink(), "nll.csv: missing; make it with: snakemake"),
        (
            lambda published, _: edit(published / "tables/nll.csv", lambda table: table.__setitem__("suite", "smoke")),
            "/tables: found results of suite smoke, expected digits",
        ),
        (
            lambda _, out: edit(out / "digits/tables/nll.csv", lambda table: table.__setitem__("nll", 1.0)),
            "nll.csv not as their stages wrote them",
        ),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    published: Path, out: Path, spoil: Callable[[Path, Path], object], message: str
) -> None:
    spoil(published, out)
    done = compare(published, out)
    assert done.exit_code == 2
    assert done.output.startswith("indm compare: ")
    assert message in done.output
    assert done.output.count("\n") == 1
