"""Comparing results with published ones: what counts as the same, and what is named."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from indm.cli import main
from indm.report.agreement import FAR, NUMBERS, agreement
from indm.store.files import file_sha256
from indm.store.layout import Layout
from indm.store.manifest import Manifest, write_manifest

PUBLISHED = Path(__file__).parents[1] / "docs/results/digits"


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = Path(shutil.copytree(PUBLISHED / "tables", tmp_path / "published/digits/tables")).parent
    shutil.copy(PUBLISHED / "provenance.json", folder)
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Results that are those published."""
    shutil.copytree(PUBLISHED / "tables", tmp_path / "results/digits/tables")
    record(tmp_path / "results/digits/runs/some/provenance/train.json")
    record(tmp_path / "results/digits/tables/provenance/table.json")
    sign(tmp_path / "results")
    return tmp_path / "results"


def record(path: Path, **changed: str) -> None:
    """Write what a job leaves of itself."""
    content = {
        "machine": "a laptop",
        "suite_sha256": json.loads((PUBLISHED / "provenance.json").read_text())["suite_sha256"],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | changed))


def sign(out: Path) -> None:
    """Write the manifest of the tables as they are."""
    outputs = {
        f"results/digits/tables/{path.name}": file_sha256(path) for path in (out / "digits/tables").glob("*.csv")
    }
    write_manifest(out / "digits/tables/manifest/table.json", Manifest("table", "digits", "", {}, {}, outputs))


def compare(published: Path, out: Path) -> Result:
    return CliRunner().invoke(main, ["compare", str(published), "--out", str(out)])


def edit(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    change(pd.read_csv(path)).to_csv(path, index=False)


def double_first_row(path: Path) -> None:
    header, first, *others = path.read_text().splitlines()
    path.write_text("\n".join([header, first, first, *others]))


def empty_all(published: Path, out: Path) -> None:
    """Leave the headers of the tables of numbers."""
    for folder in (published, out / "digits"):
        for name in NUMBERS:
            path = folder / f"tables/{name}.csv"
            path.write_text(path.read_text().splitlines()[0] + "\n")
    sign(out)


def test_the_same_results_agree_to_the_last_digit(published: Path, out: Path) -> None:
    done = compare(published, out)
    assert done.exit_code == 0, done.output
    found = agreement(published, Layout(out, "digits"))
    total, verdicts = len(found.numbers), len(found.verdicts)
    assert total > 300
    assert verdicts == len(pd.read_csv(PUBLISHED / "tables/claims.csv"))
    executions = json.loads((PUBLISHED / "provenance.json").read_text())["executions"]
    machine = "; ".join(dict.fromkeys(execution["machine"] for execution in executions))
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

    def change(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(nll=table["nll"] + errors * 2**0.5 * table["nll_se"].fillna(0) * (table.index == 2))

    row = pd.read_csv(PUBLISHED / "tables/nll.csv", keep_default_na=False).loc[2]
    edit(published / "tables/nll.csv", change)
    done = compare(published, out)
    assert done.exit_code == (not agrees)
    assert done.output.endswith("They agree.\n" if agrees else "They differ.\n")
    named = [line.split() for line in done.output.splitlines() if line.startswith("nll ")]
    cell = [value for value in (row["dataset"], row["sde"], row["model"], row["variant"], row["objective"]) if value]
    assert [line[: len(cell) + 2] for line in named] == ([] if agrees else [["nll", *cell, "nll"]])
    assert f"{len(named)}" == ("0" if agrees else "1")


def test_a_training_that_went_astray_does_not_hide_itself(published: Path, out: Path) -> None:
    """Of n seeds, one at a distance D moves the mean by D / n and its standard error by as much."""
    edit(out / "digits/tables/nll.csv", lambda table: table.assign(nll=table["nll"] + 1e6, nll_se=1e6))
    sign(out)
    found = agreement(published, Layout(out, "digits"))
    assert set(found.far_numbers["number"]) == {"nll"}
    edit(out / "digits/tables/nll.csv", lambda table: table.assign(nll=np.inf))
    sign(out)
    assert not agreement(published, Layout(out, "digits")).agrees


def test_tables_without_rows_are_no_difference(published: Path, out: Path) -> None:
    """As a suite without studies in two dimensions has."""
    for path in (published / "tables/toy2d.csv", out / "digits/tables/toy2d.csv"):
        path.write_text(path.read_text().splitlines()[0] + "\n")
    sign(out)
    found = agreement(published, Layout(out, "digits"))
    assert found.agrees
    assert set(found.numbers["table"]) == set(NUMBERS) - {"toy2d"}


def test_a_verdict_that_one_side_lacks_is_a_difference(published: Path, out: Path) -> None:
    path = published / "tables/claims.csv"
    edit(path, lambda table: table.assign(repeatability=0.5))
    edit(path, lambda table: table.drop(index=0))
    found = agreement(published, Layout(out, "digits"))
    (missing,) = found.other_verdicts.to_dict("records")
    assert (missing["published"], missing["repeatable"]) == ("-", True)
    assert not found.agrees


def test_tables_of_another_state_of_the_suite_are_said(published: Path, out: Path) -> None:
    """Whatever its file says by now: results do not change when it is edited."""
    sha256 = json.loads((PUBLISHED / "provenance.json").read_text())["suite_sha256"]
    record(out / "digits/tables/provenance/table.json", suite_sha256="b" * 64)
    done = compare(published, out)
    assert done.exit_code == 1
    assert f"suite: published {sha256}, here {'b' * 64}: their contents differ" in done.output.splitlines()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("published/digits/provenance.json", "the published provenance.json has no suite_sha256"),
        ("results/digits/tables/provenance/table.json", "provenance/table.json of the tables here has no suite_sha256"),
    ],
)
def test_a_suite_that_is_not_compared_is_said(published: Path, out: Path, name: str, words: str) -> None:
    path = published.parents[1] / name
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: content[key] for key in content if key != "suite_sha256"}))
    done = compare(published, out)
    assert done.exit_code == 0
    assert f"suite: not compared, because {words}" in done.output.splitlines()


def test_a_verdict_of_other_seeds_is_named(published: Path, out: Path) -> None:
    edit(published / "tables/claims.csv", lambda table: table.assign(n=table["n"].where(table.index != 0, 2)))
    done = compare(published, out)
    assert done.exit_code == 1
    assert re.search(r"^better-nelbo-known .* n: published 2, here 8$", done.output, flags=re.MULTILINE)


def test_a_machine_that_moves_the_cursor_stays_on_its_line(published: Path, out: Path) -> None:
    content = {"executions": [{"machine": "a laptop\x1b[2J\nThey agree."}]}
    (published / "provenance.json").write_text(json.dumps(content))
    assert compare(published, out).output.splitlines()[0] == "published: a laptop\\x1b[2J\\nThey agree."


@pytest.mark.parametrize(
    ("column", "value"), [("smallest_effect", 0.02), ("metric", "nll, nll"), ("unit", "nats"), ("protocol", "ddim")]
)
def test_a_claim_that_asks_otherwise_is_named(published: Path, out: Path, column: str, value: object) -> None:
    """Its verdict is the same, or may differ; and the answer to another question."""
    path = published / "tables/claims.csv"
    edit(path, lambda table: table.assign(repeatability=0.5))
    table = pd.read_csv(path)
    place = table["protocol"].first_valid_index()
    row = table.loc[place]
    edit(path, lambda table: table.assign(**{column: table[column].mask(table.index == place, value)}))
    done = compare(published, out)
    assert done.exit_code == 1
    named, *_ = [line for line in done.output.splitlines() if line.startswith(f"{row['id']} ")]
    text = f"{value:g}" if isinstance(value, float) else value
    assert re.search(rf" True +{re.escape(f'{column}: published {text}, here {row[column]}')}$", named)
    assert done.output.endswith("They differ.\n")


def test_a_table_that_is_not_compared_need_not_be_there(published: Path, out: Path) -> None:
    (out / "digits/tables/differences.csv").unlink()
    assert compare(published, out).exit_code == 0


def test_another_verdict_counts_unless_another_draw_may_change_it(published: Path, out: Path) -> None:
    path = published / "tables/claims.csv"
    table = pd.read_csv(path)
    row = table.index[table["repeatability"] >= 0.9][0]
    grade = table["verdict"][row]

    edit(path, lambda table: table.assign(verdict=table["verdict"].mask(table.index == row, "another grade")))
    done = compare(published, out)
    assert done.exit_code == 1
    assert re.search(rf"^{table['id'][row]} .* +another grade +{grade} +True$", done.output, flags=re.MULTILINE)
    edit(path, lambda table: table.assign(repeatability=0.5))
    done = compare(published, out)
    assert done.exit_code == 0
    assert re.search(rf"^{table['id'][row]} .* +another grade +{grade} +False$", done.output, flags=re.MULTILINE)
    assert done.output.endswith("They agree.\n")


def test_rows_on_one_side_and_other_settings_are_named(published: Path, out: Path) -> None:
    edit(published / "tables/toy2d.csv", lambda table: table.drop(index=0))
    edit(out / "digits/tables/fid.csv", lambda table: table.assign(num_samples=table["num_samples"] + 1))
    sign(out)
    found = agreement(published, Layout(out, "digits"))
    assert not found.agrees
    far = found.far_numbers
    assert set(far["table"]) == {"toy2d", "fid"}
    assert far[far["table"] == "toy2d"]["published"].isna().all()
    assert set(far[far["table"] == "fid"]["number"]) == {"num_samples"}


def edited(name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path, Path], None]:
    """Edit a published table."""
    return lambda published, _: edit(published / f"tables/{name}.csv", change)


def written(name: str, text: str) -> Callable[[Path, Path], object]:
    """Write another text in the place of a published file."""
    return lambda published, _: (published / name).write_text(text)


def of_row(value: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Put another standard error into one row."""
    return lambda table: table.assign(nll_se=table["nll_se"].mask(table.index == 2, value))


ROW = "tables/nll.csv: row 4, column nll_se: found {}, expected a finite number of at least 0; take it from git"
SPOILT: list[tuple[Callable[[Path, Path], object], str]] = [
    (lambda published, _: (published / "tables/nll.csv").unlink(), "nll.csv: cannot be read as a table"),
    (lambda published, _: (published / "provenance.json").unlink(), "digits: found no provenance.json with a tables/"),
    (lambda _, out: (out / "digits/tables/nll.csv").unlink(), "nll.csv: missing; "),
    (edited("nll", lambda table: table.assign(suite="smoke")), "nll.csv: found rows of suite smoke, expected digits"),
    (lambda _, out: edit(out / "digits/tables/nll.csv", of_row(1)), "nll.csv not as their st"),
    (edited("nll", lambda table: table.drop(columns="variant")), "nll.csv: found no column variant, expected it in "),
    (
        lambda published, _: double_first_row(published / "tables/claims.csv"),
        "claims.csv: row 3 repeats an earlier row",
    ),
    (written("provenance.json", '{"executions": [1]}'), "provenance.json: found no machine, expected one for each "),
    (edited("nll", lambda table: table.assign(nll_se="low")), "nll.csv: found text in the nll_se column, expected num"),
    *((edited("nll", of_row(value)), ROW.format(value)) for value in (np.inf, -1)),
    (written("tables/nll.csv", 100 * "\0"), "tables/nll.csv: found no column suite, dataset"),
    (empty_all, "/tables: found no number to compare, expected some in fid, nll"),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILT)
def test_what_cannot_be_compared_is_one_line(
    published: Path, out: Path, spoil: Callable[[Path, Path], object], message: str
) -> None:
    spoil(published, out)
    done = compare(published, out)
    assert done.exit_code == 2
    assert done.output.startswith("indm compare: ")
    assert message in done.output
    assert done.output.count("\n") == 1
