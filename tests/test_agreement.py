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

from indm.bench.cli import main
from indm.report.agreement import FURTHER, agreement
from indm.report.catalogue import CELL, CLAIM, COMPRESSED, PUBLISHED
from indm.report.chance import BEYOND, BOUND, FAR, MISSING, NONE, OTHER, counts, distances
from indm.report.comparable import COLUMNS_LEFT_OUT, KEYS, TABLES_LEFT_OUT, WITH_IMAGE_ERRORS, entries
from indm.report.rows import read_rows
from indm.store.files import file_sha256
from indm.store.layout import Layout
from indm.store.manifest import Manifest, write_manifest

DIGITS = Path(__file__).parents[1] / "docs/results/digits"
WITH_FLOWS = "cifar10-1000"
# Of the long tables, tests compare one of so many numbers.
OF_SEEDS, THINNED = ("values", "differences", "claims"), 4


@pytest.fixture(scope="module")
def thinned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published results, with fewer rows: a folder of suites."""
    to = tmp_path_factory.mktemp("thinned")
    for suite in ("digits", WITH_FLOWS):
        folder = copied(DIGITS.parent / suite, to / suite)
        for name in OF_SEEDS:
            table = pd.read_csv(folder / f"tables/{name}.csv", dtype=str, keep_default_na=False)
            groups = table.groupby([key for key in KEYS[name] if key != "seed"], sort=False)
            table[groups.ngroup() % THINNED == 0].to_csv(folder / f"tables/{name}.csv", index=False)
    return to


@pytest.fixture
def published(thinned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return copied(thinned / "digits", tmp_path / "published/digits")


@pytest.fixture
def out(thinned: Path, tmp_path: Path) -> Path:
    """Results that are those published."""
    return finished(thinned, tmp_path / "results", "digits")


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder / "tables", to / "tables")
    shutil.copy(folder / "provenance.json", to)
    return to


def finished(source: Path, out: Path, suite: str) -> Path:
    """Make results that are those of a suite in a folder."""
    folder = source / suite
    shutil.copytree(folder / "tables", out / suite / "tables")
    sha256 = json.loads((folder / "provenance.json").read_text())["suite_sha256"]
    record(out / suite / "runs/some/provenance/train.json", suite_sha256=sha256)
    record(out / suite / "tables/provenance/table.json", suite_sha256=sha256)
    sign(out, suite)
    return out


def record(path: Path, **changed: str) -> None:
    """Write what a job leaves of itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": "a laptop"} | changed))


def sign(out: Path, suite: str = "digits") -> None:
    """Write the manifest of the tables as they are."""
    tables = out / suite / "tables"
    outputs = {f"results/{suite}/tables/{path.name}": file_sha256(path) for path in tables.glob("*.csv")}
    write_manifest(tables / "manifest/table.json", Manifest("table", suite, "", {}, {}, outputs))


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
        for name in KEYS:
            path = folder / f"tables/{name}.csv"
            path.write_text(path.read_text().splitlines()[0] + "\n")
    sign(out)


def test_the_same_results_agree_to_the_last_digit(published: Path, out: Path) -> None:
    done = compare(published, out)
    assert done.exit_code == 0, done.output
    found = agreement(published, Layout(out, "digits"))
    total, verdicts = len(found.numbers), len(found.verdicts)
    assert total > 300
    assert verdicts == len(pd.read_csv(published / "tables/claims.csv"))
    executions = json.loads((DIGITS / "provenance.json").read_text())["executions"]
    machine = "; ".join(dict.fromkeys(execution["machine"] for execution in executions))
    lines = done.output.splitlines()
    assert lines[:4] == [
        f"published: {machine}",
        "here: a laptop",
        f"verdicts: {verdicts} of {verdicts} the same",
        f"numbers: {total} of {total} agree, those without an error within 25%",
    ]
    assert lines[-1] == "They agree."
    # A line for each table, as the list of what was compared; and each of the others with a reason.
    assert [line.split()[0] for line in lines[6 : 6 + len(KEYS)]] == list(KEYS)
    assert all(f"  {name}: {why}" in lines for name, why in TABLES_LEFT_OUT.items())


def own(out: Path, name: str, change: Callable[[pd.DataFrame], pd.DataFrame], suite: str = "digits") -> None:
    """Change a table here, as if its stage had written it."""
    edit(out / suite / f"tables/{name}.csv", change)
    sign(out, suite)


def moved(table: pd.DataFrame, share: float, draw: np.random.Generator) -> pd.DataFrame:
    """Move all numbers of a row together by a share of the distance between two draws of seeds or images."""
    table, noise = table.copy(), 2**0.5 * share * draw.standard_normal(len(table))
    for column in [key for key in table if f"{key}_se" in table or f"{key}_image_se" in table]:
        absent = pd.Series(np.nan, table.index)
        over_seeds, over_images = (table.get(f"{column}{end}", absent) for end in ("_se", "_image_se"))
        table[column] += noise * over_seeds.fillna(over_images).fillna(0.0)
    return table


def moved_seeds(
    table: pd.DataFrame, keys: list[str], number: str, share: float, draw: np.random.Generator
) -> pd.DataFrame:
    """Move the numbers of single seeds by a share of their spread or, with too few seeds, of their error over images."""
    groups = table.groupby(keys, dropna=False)[number]
    over_images = table.get("se", pd.Series(0.0, table.index)).fillna(0.0)
    spread = groups.transform("std").where(groups.transform("size") >= 3, over_images)
    return table.assign(**{number: table[number] + 2**0.5 * share * spread * draw.standard_normal(len(table))})


def rerun(out: Path, share: float) -> None:
    """Turn results into those of another run: medians, and an ablation of one seed, which have no error, move as well."""
    draw = np.random.default_rng(1)
    for name in ("fid", "nll", "discretization", "learning_curve", "toy2d", "protocol"):
        own(out, name, lambda table: moved(table, share, draw))
    tails = ["nll_median", "nll_trimmed", "nll_fixed_median", "nll_fixed_trimmed"]
    own(out, "nll", lambda table: table.assign(**{key: table[key] + 0.01 * share for key in tails}))
    own(
        out, "ablation", lambda table: table.assign(nelbo=table["nelbo"] - 0.01 * share, fid=table["fid"] + 0.1 * share)
    )
    values, differences = [*CELL, "stage", "metric", "sampler", "x"], [*CLAIM]
    own(out, "values", lambda table: moved_seeds(table, values, "value", share, draw))
    own(out, "differences", lambda table: moved_seeds(table, differences, "difference", share, draw))


@pytest.mark.parametrize("share", [1e-6, 0.1, 1.0])
def test_a_rerun_that_moves_within_its_errors_agrees(published: Path, out: Path, share: float) -> None:
    """By rounding, by what training makes of it on another processor, and by as much as other seeds."""
    rerun(out, share)
    done = compare(published, out)
    assert done.exit_code == 0, done.output
    numbers = agreement(published, Layout(out, "digits")).numbers
    assert (numbers["published"] != numbers["here"]).sum() > 300


def swapped(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(decoder=table["decoder"].map({"fixed": "learned", "learned": "fixed"}))


def times(column: str, factor: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Multiply a column, but not its error."""
    return lambda table: table.assign(**{column: factor * table[column]})


FAULTS: dict[str, tuple[str, str, Callable[[pd.DataFrame], pd.DataFrame]]] = {
    "decoders swapped": ("digits", "nll", swapped),
    "half of the values removed": ("digits", "values", lambda table: table[: len(table) // 2]),
    "a seed of the values removed": ("digits", "values", lambda table: table[table["seed"] != 4]),
    "values": ("digits", "values", times("value", 1.5)),
    "differences": ("digits", "differences", times("difference", -1)),
    "effects": ("digits", "claims", times("effect", -1)),
    "ablation": ("digits", "ablation", times("nelbo", 1.1)),
    "protocol": ("digits", "protocol", times("fid", 3)),
    "sizes of networks": ("digits", "compute", times("score_parameters", 2)),
    "FLOPs": ("digits", "compute", times("train_flops_per_step", 1.0001)),
    "known densities": ("digits", "toy2d", times("nelbo_excess", -1)),
    "sign of a flow's log-determinant": (WITH_FLOWS, "flow", times("log_det", -1)),
    "gains of a flow": (WITH_FLOWS, "flow", times("gain_1", 2)),
}


@pytest.mark.parametrize(("suite", "name", "change"), FAULTS.values(), ids=FAULTS)
def test_a_fault_in_any_table_is_a_difference(
    thinned: Path, tmp_path: Path, suite: str, name: str, change: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    published = copied(thinned / suite, tmp_path / "published" / suite)
    out = finished(thinned, tmp_path / "results", suite)
    own(out, name, change, suite)
    found = agreement(published, Layout(out, suite))
    assert not found.agrees
    assert set(found.far_numbers["table"]) == {name}


def test_an_edited_published_table_is_refused(tmp_path: Path) -> None:
    """Even if chance would explain the edit."""
    published = copied(DIGITS, tmp_path / "published/digits")
    out = finished(DIGITS.parent, tmp_path / "results", "digits")
    shutil.copytree(DIGITS / "weights", published / "weights")
    shutil.copy(DIGITS / "SHA256SUMS", published)
    assert compare(published, out).exit_code == 0
    edit(published / "tables/nll.csv", times("nll", 1.0001))
    done = compare(published, out)
    assert done.exit_code == 2
    assert "tables/nll.csv: found SHA-256" in done.output


def test_every_published_table_is_compared_or_left_out_with_a_reason() -> None:
    assert {*PUBLISHED, *COMPRESSED} == {*KEYS, *TABLES_LEFT_OUT}


@pytest.mark.parametrize("name", KEYS)
def test_every_column_is_compared_or_left_out_with_a_reason(name: str) -> None:
    """In results with flows, and at least three seeds of each model."""
    folder = DIGITS.parent / WITH_FLOWS / "tables"
    tables = {table: read_rows(folder / f"{table}.csv") for table in (name, *WITH_IMAGE_ERRORS)}
    found = entries(tables)
    known = {"suite", *KEYS[name], *found["number"][found["table"] == name], *(FURTHER.get(name, []))}
    known.update(*COLUMNS_LEFT_OUT.get(name, {}).values())
    filled = {column for column in map(str, tables[name]) if tables[name][column].replace("", np.nan).notna().any()}
    assert {column for column in filled - known if not column.endswith("_se")} == set()


def pairs(published: list[object], here: list[object], error: float = 1.0, freedom: float = np.inf) -> pd.DataFrame:
    """Pair entries of equal errors."""
    sides = {"published": published, "here": here}
    columns = {f"value_{side}": pd.Series(values, dtype=object) for side, values in sides.items()}
    errors = {f"{key}_{side}": value for side in sides for key, value in (("error", error), ("freedom", freedom))}
    return pd.DataFrame(columns).assign(**errors)


@pytest.mark.parametrize(
    ("published", "here", "error", "freedom", "why"),
    [
        (1.0, 1.0 + 2.9 * 2**0.5, 1.0, 7, NONE),
        (1.0, 1.0 + 4 * 2**0.5, 1.0, 7, "by chance"),
        (1.0, 1.0 + 40 * 2**0.5, 1.0, 7, BEYOND),
        # Two seeds' error of a third: far less surprising than four errors over images.
        (1.0, 1.0 + 5 * 2**0.5, 1.0, 2, "by chance"),
        (1.0, 1.0 + 5 * 2**0.5, 1.0, np.inf, BEYOND),
        (0.0, 2e-7, 1e-12, 7, NONE),
        (3.0, 3.00001, 0.0, 7, NONE),
        (3.0, 3.1, 0.0, 7, BEYOND),
        (1.0, 1.0 + 0.9 * BOUND, np.nan, np.inf, NONE),
        (1.0, -1.0, np.nan, np.inf, OTHER),
        (1.0, np.inf, np.nan, np.inf, OTHER),
        (np.inf, np.inf, 1.0, np.inf, BEYOND),
        (128, 129, 0.0, np.inf, OTHER),
        ("fixed", "learned", 0.0, np.inf, OTHER),
        (1.0, np.nan, 1.0, np.inf, MISSING),
    ],
)
def test_numbers_are_judged_by_what_is_known_of_them(
    published: object, here: object, error: float, freedom: float, why: str
) -> None:
    """Among five hundred numbers, of which some are far apart by chance."""
    equal = [0.0] * 499
    assert distances(pairs([published, *equal], [here, *equal], error, freedom))["why"][0] == why


def test_as_many_far_numbers_are_expected_as_chance_makes() -> None:
    draw = np.random.default_rng(0)
    count, seeds = 20_000, 4
    sides = [draw.standard_normal((count, seeds)) for _ in range(2)]
    table = pairs([*sides[0].mean(1)], [*sides[1].mean(1)], freedom=seeds - 1)
    for name, side in zip(("published", "here"), sides, strict=True):
        table[f"error_{name}"] = side.std(1, ddof=1) / seeds**0.5
    found = distances(table)
    # A minimum limits our own error, which makes a few more numbers far.
    assert (found["errors"] > FAR).sum() == pytest.approx(found["expected"].sum(), rel=0.3)
    assert (found["why"] != BEYOND).all()


@pytest.mark.parametrize(("seeds", "most"), [(3, 0.08), (6, 0.02)])
def test_other_seeds_seldom_make_a_number_differ(seeds: int, most: float) -> None:
    """Of pairs of honest runs, each with thirty numbers; with three seeds, the limit of our own error costs some."""
    draw = np.random.default_rng(1)
    differ = 0
    for _ in range(400):
        sides = draw.standard_normal((2, 30, seeds))
        table = pairs([*sides[0].mean(1)], [*sides[1].mean(1)], freedom=seeds - 1)
        for name, side in zip(("published", "here"), sides, strict=True):
            table[f"error_{name}"] = side.std(1, ddof=1) / seeds**0.5
        differ += bool((distances(table)["why"] == BEYOND).any())
    assert differ / 400 < most


@pytest.mark.parametrize(("models", "too_many"), [(1, False), (8, True)])
def test_too_many_far_numbers_are_a_difference(models: int, too_many: bool) -> None:
    """Numbers of one model depend on each other, so they count once."""
    here = [4 * 2**0.5] * 8 + [0.0] * 92
    found = distances(pairs([0.0] * 100, [*here], freedom=30))
    numbers = found.assign(table="nll", model=[place % models for place in range(100)], published=0.0, here=here)
    (row,) = counts(numbers, ["nll"]).to_dict("records")
    assert (row["far"], row["too_many"]) == (8, too_many)
    assert set(found["why"]) == {NONE, "by chance"}


@pytest.mark.parametrize(
    ("errors", "named", "agrees"),
    [(0.9 * FAR, False, True), (1.1 * FAR, True, True), (9.0, True, False), (-9.0, True, False)],
)
def test_a_number_changed_by_hand_is_named_where_it_lies_far_off(
    published: Path, out: Path, errors: float, named: bool, agrees: bool
) -> None:
    """In errors of the difference, which add as squares: over images, because there is one seed."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(nll=table["nll"] + errors * 2**0.5 * table["nll_image_se"] * (table.index == 0))

    row = pd.read_csv(DIGITS / "tables/nll.csv", keep_default_na=False).loc[0]
    edit(published / "tables/nll.csv", change)
    done = compare(published, out)
    assert done.exit_code == (not agrees)
    assert done.output.endswith("They agree.\n" if agrees else "They differ.\n")
    lines = [line.split() for line in done.output.splitlines() if line.startswith("nll  ")]
    cell = [value for value in (row["dataset"], row["sde"], row["model"], row["variant"], row["objective"]) if value]
    assert [line[: len(cell) + 2] for line in lines[1:]] == ([["nll", *cell, "nll"]] if named else [])


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
    assert "toy2d" not in set(found.numbers["table"])
    assert found.counts.set_index("table")["numbers"]["toy2d"] == 0


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
    sha256 = json.loads((DIGITS / "provenance.json").read_text())["suite_sha256"]
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
    (out / "digits/tables/tuning.csv").unlink()
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
