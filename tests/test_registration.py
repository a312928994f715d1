"""Registration: what a commit said before the run, and what the page says of it."""

import io
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from indm.bench.cli import main
from indm.bench.register import write_registrations
from indm.bench.stages.claims import run as grade_claims
from indm.bench.stages.report import contents
from indm.bench.suite.borne_out import contradictions
from indm.bench.suite.claims import load_claims
from indm.bench.suite.expand import expand_suite, suite_files
from indm.bench.suite.load import claims_sha256, load_suite, suite_sha256
from indm.bench.suite.registrations import changed_seeds, planned_seeds
from indm.errors import ParamsError
from indm.report.claims import GradingParams
from indm.report.differences import COMPARISONS, compare
from indm.report.numbers import IMAGE_COLUMNS
from indm.report.page.registration import describe_registration
from indm.report.page.render import render
from indm.report.registrations import Addition, Registration, Registrations, load_registrations
from indm.report.rows import records
from indm.report.verdicts import claims_table, without_verdicts
from indm.store import provenance
from indm.store.layout import Layout
from indm.store.provenance import descends
from indm.strict_yaml import parse_yaml, yaml_text
from tests.conftest import REPOSITORY
from tests.made_up import CONTENTS
from tests.test_claims import GRADING, NO_IMAGES, claims, planted

# It has no control whose FLOPs are counted, which takes seconds.
SUITE = "params/digits-search.yaml"
FILE = Path("params/registrations.yaml")
ENTRY = Registration(
    commit="a" * 40, date="2026-01-02", suite_sha256="b" * 64, claims_sha256="c" * 64, note="Five seeds."
)


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=author", "-c", "user.email=author@example.org"]
    return subprocess.run(["git", *identity, *arguments], capture_output=True, text=True, check=True).stdout.strip()


def commit() -> str:
    git("add", "--all")
    git("commit", "--quiet", "--message", "A commit")
    return git("rev-parse", "HEAD")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A checkout of ``params/`` alone; its commit."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(REPOSITORY / "params", tmp_path / "params")
    FILE.write_text("suites: {}\n")
    git("init", "--quiet")
    return commit()


def register(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["register", "--suite", SUITE, *arguments])


def edit(name: str, old: str, new: str) -> None:
    path = Path("params") / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_an_entry_names_the_commit_and_what_it_says(checkout: str) -> None:
    done = register("--note", "Five seeds.")
    date = git("show", "--no-patch", "--format=%cs")
    assert (done.exit_code, done.output) == (
        0,
        f"{SUITE}: registered in commit {checkout} of {date}; commit registrations.yaml now\n",
    )
    assert load_registrations(FILE).suites == {"digits-search": entry_of(checkout)}
    # The file with the entry is no suite.
    assert FILE not in suite_files(Path("params"))
    # Whoever does it again, in a later commit, changes nothing, and neither does another note.
    before = FILE.read_text()
    commit()
    assert f"registered in commit {checkout}" in register().output
    done = register("--note", "Eight seeds.")
    assert (done.exit_code, "found the note 'Eight seeds.', expected the registered note" in done.output) == (1, True)
    assert FILE.read_text() == before


def test_a_note_that_is_no_text_is_refused(checkout: str) -> None:
    """As a shell passes bytes that are no UTF-8."""
    before = FILE.read_text()
    done = register("--note", "gr\udcf6sser")
    assert done.exit_code == 1
    assert done.output == (
        "indm register: --note: found 'gr\\udcf6sser', expected a text in UTF-8, as registrations.yaml is\n"
    )
    assert FILE.read_text() == before


def test_a_comment_is_no_change(checkout: str) -> None:
    register()
    for name in ("claims.yaml", "digits-search.yaml"):
        with (Path("params") / name).open("a") as file:
            file.write("# A comment.\n")
    commit()
    assert f"registered in commit {checkout}" in register().output


# Of the suite, of what it builds on, and of the claims.
@pytest.mark.parametrize("name", ["digits-search.yaml", "digits.yaml", "claims.yaml"])
def test_what_is_not_committed_is_not_registered(checkout: str, name: str) -> None:
    with (Path("params") / name).open("a") as file:
        file.write("# edited\n")
    done = register()
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert f"params/{name}: found uncommitted changes, expected the content of HEAD" in done.output
    assert FILE.read_text() == "suites: {}\n"


def test_what_could_not_run_is_not_registered(checkout: str) -> None:
    """Of images that its dataset does not have."""
    edit("digits-search.yaml", "nll: {time_draws", "nll: {images: 9999, time_draws")
    commit()
    done = register()
    assert done.exit_code == 1
    assert "key nll.images: found 9999" in done.output
    assert load_registrations(FILE).suites == {}


def test_another_state_of_what_is_registered_is_refused(checkout: str) -> None:
    register()
    before = FILE.read_text()
    edit("claims.yaml", "effect: 0.01", "effect: 0.02")
    commit()
    done = register()
    assert done.exit_code == 1
    assert f"found suite digits-search registered at commit {checkout[:12]}, expected no change" in done.output
    assert FILE.read_text() == before


def test_without_git_there_is_no_registration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(REPOSITORY / "params", tmp_path / "params")
    done = register()
    assert done.exit_code == 1
    assert done.output.startswith("indm register: params: expected a git checkout with a commit")
    assert done.output.count("\n") == 1
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git: cannot be run" in register().output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("suites: {digits: {commit: abc}}\n", "key suites.digits.commit: found 'abc'; allowed: String should match"),
        (
            yaml_text({"suites": {"digits": ENTRY.model_dump() | {"date": "1999-99-99"}}}),
            "key suites.digits.date: found '1999-99-99'; allowed: a day, such as 2026-01-31",
        ),
        ("[]\n", "found list, expected a mapping of the keys suites"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "registrations.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError) as error:
        load_registrations(path)
    assert f"{path}: {message}" in str(error.value)
    with pytest.raises(ParamsError, match="missing"):
        load_registrations(tmp_path / "none.yaml")


@pytest.fixture
def history(checkout: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Three commits in a row, the second the registered one."""
    monkeypatch.setattr(provenance, "CHECKOUT", Path.cwd())
    names = {"before": checkout}
    for name in ("registered", "after"):
        Path(name).write_text(name)
        names[name] = commit()
    return names


def test_whether_a_commit_comes_after_another(history: dict[str, str]) -> None:
    before, registered, after = history.values()
    assert [descends(name, registered) for name in (before, registered, after)] == [False, True, True]
    assert descends("f" * 40, registered) is None
    assert descends(registered, "f" * 40) is None
    assert descends("", registered) is None


def test_the_page_says_whether_it_was_before_the_run(history: dict[str, str]) -> None:
    found = entry_of(history["registered"])
    right = f"Registered in commit {history['registered']} on {found.date}, "
    wrong = (
        f"Not registered: params/registrations.yaml names commit {history['registered']} of {found.date}, but it is "
    )
    of_before = f"not before the run, which has stages of commit {history['before'][:12]}. Five seeds."
    for commits, text in (
        ((history["registered"], history["after"]), f"{right}before the run: unchanged since. Five seeds."),
        ((history["before"], history["after"]), wrong + of_before),
        ((history["after"], None), f"{wrong}unknown whether it is before the run ("),
        ((), f"{right}and no stage has run: unchanged since. Five seeds."),
    ):
        said = describe_registration("digits-search", found, found.suite_sha256, found.claims_sha256, commits)
        assert said.startswith(text)


def entry_of(commit: str) -> Registration:
    """The entry that `register` would write of the suite."""
    return Registration(
        commit=commit,
        date=git("show", "--no-patch", "--format=%cs", commit),
        suite_sha256=suite_sha256(load_suite(Path(SUITE))),
        claims_sha256=claims_sha256(load_claims(Path("params/claims.yaml"))),
        note="Five seeds.",
        seeds=planned_seeds(load_suite(Path(SUITE))),
    )


@pytest.mark.parametrize(
    ("suite", "change", "words"),
    [
        ("digits-search", {"date": "2020-01-02"}, "that commit is dated "),
        ("digits-search", {"commit": "a" * 40}, "git does not have this commit"),
        ("another", {}, "it has no params/another.yaml"),
    ],
)
def test_an_entry_that_its_commit_does_not_bear_out_is_no_registration(
    history: dict[str, str], suite: str, change: dict[str, str], words: str
) -> None:
    right = entry_of(history["registered"])
    found = right.model_copy(update=change)
    text = describe_registration(suite, found, right.suite_sha256, right.claims_sha256, [history["after"]])
    start = f"Not registered: params/registrations.yaml names commit {found.commit} of {found.date}, but "
    assert text.startswith(start)
    assert words in text


@pytest.mark.parametrize(
    ("edited", "words"),
    [
        (["suite"], ": changed since: the suite (SHA-256 "),
        (["claims"], ": changed since: the claims (SHA-256 "),
        (["suite", "claims"], " and the claims (SHA-256 "),
    ],
)
def test_the_page_says_what_has_changed(history: dict[str, str], edited: list[str], words: str) -> None:
    found = entry_of(history["registered"])
    edits = {"suite": ("digits-search.yaml", "trials: 10", "trials: 11"), "claims": ("claims.yaml", "0.01,", "0.02,")}
    for name in edited:
        path, old, new = Path("params") / edits[name][0], *edits[name][1:]
        path.write_text(path.read_text().replace(old, new))
    now = entry_of(history["registered"])
    text = describe_registration("digits-search", found, now.suite_sha256, now.claims_sha256, [history["after"]])
    assert text.startswith(
        f"Registered in commit {history['registered']} on {found.date}, before the run: changed since"
    )
    assert words in text
    assert f"… now); git diff {history['registered'][:12]} -- params shows how" in text


def test_the_page_names_the_claims_that_have_changed(history: dict[str, str]) -> None:
    found = entry_of(history["registered"])
    edit("claims.yaml", "id: smaller-gap-known", "id: renamed")
    edit("claims.yaml", "Is INDM's likelihood (NELBO) better?", "Is it?")
    now = entry_of(history["registered"])
    text = describe_registration("digits-search", found, now.suite_sha256, now.claims_sha256, [history["after"]])
    names = "added: renamed; removed: smaller-gap-known; edited: better-nelbo; the others are as they were. Five seeds."
    assert text.endswith(f"Claims {names}")


def test_the_page_tells_claims_that_gained_a_dataset_from_edited_ones(history: dict[str, str]) -> None:
    found = entry_of(history["registered"])
    edit("claims.yaml", "where: {datasets: [celeba64], objectives", "where: {datasets: [celeba64, digits], objectives")
    now = entry_of(history["registered"])
    text = describe_registration("digits-search", found, now.suite_sha256, now.claims_sha256, [history["after"]])
    assert "edited" not in text
    assert "Claims asked of other datasets, too, but otherwise the same: fid-of-celeba; " in text


PAGES = sorted((REPOSITORY / "docs/results").glob("*/provenance.json"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.parent.name)
def test_published_pages_say_whether_suite_and_claims_have_changed(path: Path) -> None:
    """On failure: make generate."""
    name = path.parent.name
    entry = load_registrations(REPOSITORY / FILE).suites[name]
    page = (path.parent / "README.md").read_text()
    (row,) = (line for line in page.splitlines() if line.startswith("| registration | "))
    own = row.partition(" Added later: ")[0]
    for what, then, now in (
        ("the suite", entry.suite_sha256, suite_sha256(load_suite(REPOSITORY / f"params/{name}.yaml"))),
        ("the claims", entry.claims_sha256, claims_sha256(load_claims(REPOSITORY / "params/claims.yaml"))),
    ):
        assert (f"{what} (SHA-256 {then[:12]}… then, {now[:12]}… now)" in own) == (then != now)


def addition_of(commit: str) -> Addition:
    return Addition(**entry_of(commit).model_dump() | {"suite": "digits-search", "variant": "learned-curve"})


def test_a_variant_that_was_added_has_a_registration_of_its_own(history: dict[str, str]) -> None:
    """The other stages of its suite ran before it."""
    found, added = entry_of(history["before"]), addition_of(history["registered"])
    hashes = (found.suite_sha256, found.claims_sha256)
    commits = [history["before"], history["after"]]
    first, _, text = describe_registration("digits-search", found, *hashes, commits, added=[added]).partition(" Added ")
    assert first.startswith(f"Registered in commit {history['before']}")
    words = (
        f"later: learned-curve, registered in commit {history['registered']} on {added.date}, before the runs of commit"
    )
    assert text == f"{words} {history['after'][:12]}: unchanged since. Five seeds."
    text = describe_registration("digits-search", found, hashes[0], "0" * 64, commits, added=[added]).partition(
        " Added "
    )[2]
    assert ": changed since: the claims (SHA-256 " in text
    for wrong, ran in ((added, commits[:1]), (added.model_copy(update={"commit": "a" * 40}), commits)):
        text = describe_registration("digits-search", found, *hashes, ran, added=[wrong]).partition(" Added ")[2]
        assert text.startswith(
            f"without a registration: learned-curve (named: commit {wrong.commit} on {added.date}, but "
        )


def test_registering_a_suite_leaves_additions_as_they_are(checkout: str) -> None:
    added = addition_of(checkout)
    FILE.write_text(yaml_text({"suites": {}, "added": [added.model_dump()]}))
    commit()
    assert register().exit_code == 0
    registrations = load_registrations(FILE)
    assert registrations.added_to("digits-search") == registrations.added == [added]
    assert [*registrations.suites] == ["digits-search"]
    assert registrations.added_to("digits") == []


def registration_on(html: str) -> str:
    """Return the part of a page to which its link on the registration leads."""
    begin = html.index('<div id="registration">')
    return html[begin : html.index("</div>", begin)]


def test_the_page_shows_it(history: dict[str, str], tmp_path: Path) -> None:
    right = entry_of(history["registered"]).model_copy(update={"note": "<b>Five</b> & 'six'."})
    hashes = {"sha256": right.suite_sha256, "claims_sha256": right.claims_sha256}
    shown = replace(CONTENTS, suite="digits-search", registration=right, **hashes)  # type: ignore[arg-type]
    html = render(shown, tmp_path, tmp_path)
    assert f"Registered in commit {right.commit} on {right.date}, " in registration_on(html)
    assert ": unchanged since. &lt;b&gt;Five&lt;/b&gt; &amp; 'six'." in registration_on(html)
    assert ">Suite and claims are registered<" in html
    for found in (None, right.model_copy(update={"commit": "a" * 40})):
        html = render(replace(shown, registration=found), tmp_path, tmp_path)
        assert "Not registered: " in registration_on(html)
        assert ">Neither suite nor claims are registered<" in html
        assert "<b>Five" not in html


def test_the_stage_reads_the_entry_of_its_suite(checkout: str) -> None:
    suite = load_suite(Path(SUITE))
    assert contents(suite).registration is None
    register()
    found = contents(suite)
    assert found.registration is not None
    assert found.registration.commit == checkout
    assert (found.registration.suite_sha256, found.registration.claims_sha256) == (found.sha256, found.claims_sha256)


# Seeds that have changed since.


def test_seeds_that_were_struck_count_as_missing_and_no_verdict_rests_on_what_is_left(checkout: str) -> None:
    """INDM is better by the seeds that were left to DDPM++, but 24 were registered."""
    suite = Path("params/digits-seeds.yaml")
    shutil.copy(REPOSITORY / FILE, FILE)
    variants = {"": 24, "same-compute": 8, "learned-affine": 6}
    means = {("indm", ""): 0.2, **{("ddpmpp", variant): 0.3 for variant in variants}}
    values = planted(means, seeds=24, noise=0.001, shared=0.01)
    values = values[values["seed"] < values["variant"].map(variants)].assign(seed=values["seed"] + 201)
    before = of_gap(values, suite)
    assert before["verdict"].tolist() == ["better", "better", "better"]
    assert not before["reason"].str.contains("registration").any()

    left, content = list(range(201, 210)), parse_yaml(suite.read_text())
    content["runs"]["digits-vp-ddpmpp-nll"]["seeds"] = left
    suite.write_text(yaml_text(content))
    is_struck = (values["model"] == "ddpmpp") & (values["variant"] == "") & ~values["seed"].isin(left)
    after = of_gap(values[~is_struck], suite)
    struck = "changed since registration: 15 of 24 seeds of digits-vp-ddpmpp-nll struck; "
    assert after["reason"].str.startswith(struck).all()
    # The other models have all of their seeds.
    assert after["verdict"].tolist() == ["undecided", "better", "better"]
    assert after["planned"].tolist() == [24, 8, 6]
    assert after["failed_against"].tolist() == [15, 0, 0]
    assert after["n"].tolist() == [9, 8, 6]


def of_gap(values: pd.DataFrame, suite: Path) -> pd.DataFrame:
    """Grade the gap at the suite's claims, from a tidy table alone."""
    layout = Layout(Path("results"), suite.stem)
    layout.tables.mkdir(parents=True, exist_ok=True)
    published = REPOSITORY / "docs/results/digits-seeds/tables"
    for name in ("fid", "nll"):
        shutil.copy(published / f"{name}.csv", layout.tables)
    values = values.assign(suite=suite.stem)
    values.to_csv(layout.tables / "values.csv", index=False)
    # Tables have rows, here of a stage that no gap is of.
    images = values.head(1).assign(stage="curve", image=0, nelbo=2.0).reindex(columns=IMAGE_COLUMNS)
    images.to_csv(layout.tables / "images.csv", index=False)
    grade_claims(load_suite(suite), layout)
    rows = pd.read_csv(layout.tables / "claims.csv", keep_default_na=False, na_values={"n": [""]})
    return rows[(rows["id"] == "smaller-gap") & rows["comparison"].isin(COMPARISONS)]


@pytest.mark.parametrize(
    ("registered", "counts", "verdict"),
    [
        # Both models, as registered; another model's registration does not matter.
        ({"indm-nll": range(8), "ddpmpp-nll": range(8)}, (8, 0, 0), "better"),
        ({"ddpmpp-scale-9-nll": range(20)}, (8, 0, 0), "better"),
        # Unequal arms by registration.
        ({"indm-nll": range(30), "ddpmpp-nll": range(8)}, (8, 0, 0), "better"),
        # Struck from both, added to both, and exchanged.
        ({"indm-nll": range(10), "ddpmpp-nll": range(10)}, (10, 2, 2), "undecided"),
        ({"indm-nll": range(5), "ddpmpp-nll": range(5)}, (8, 0, 0), "undecided"),
        ({"indm-nll": range(2, 10), "ddpmpp-nll": range(2, 10)}, (10, 2, 2), "undecided"),
    ],
)
def test_a_verdict_rests_on_registered_seeds(
    registered: dict[str, range], counts: tuple[int, ...], verdict: str
) -> None:
    of_cells = {f"digits-vp-{cell}": [*seeds] for cell, seeds in registered.items()}
    row = first_row({("indm", ""): 2.0, ("ddpmpp", ""): 2.1}, of_cells)
    assert (row["planned"], row["failed_treatment"], row["failed_against"]) == counts
    assert row["verdict"] == verdict


def test_a_model_that_was_struck_has_failed(checkout: str) -> None:
    both = {"digits-vp-indm-nll": [*range(8)], "digits-vp-ddpmpp-nll": [*range(8)]}
    row = first_row({("indm", ""): 2.0, ("ddpmpp", "scale-9"): 2.1}, both)
    assert (row["planned"], row["n"], row["failed_against"], row["verdict"]) == (8, 0, 8, "undecided")


def first_row(means: dict[tuple[str, str], float], registered: dict[str, list[int]]) -> dict[str, Any]:
    """Grade INDM at equal steps on eight planted seeds."""
    values, grading = planted(means, seeds=8, noise=0.001), GradingParams.model_validate(GRADING)
    found = compare(values, NO_IMAGES, claims(), grading, registered=registered)
    return records(claims_table(found, "s", GRADING["rows"]))[0]


def test_known_densities_have_the_seeds_of_their_jobs(checkout: str) -> None:
    """A model that a length does not train has not lost its seeds."""
    suite = load_suite(Path("params/densities.yaml"))
    seeds = planned_seeds(suite)
    assert seeds["moons-short"] == sorted(
        seed for job in suite.toy2d.datasets.values() if job.label == "moons-short" for seed in job.seeds
    )
    values = planted({("indm", ""): 2.0, ("ddpmpp", ""): 2.1}, seeds=8, noise=0.001)
    values = values.assign(dataset="moons-short", sde="", objective="", stage="toy2d", metric="gap")
    asked = claims(metric={"stage": "toy2d", "name": "gap"}, where={})
    grading = GradingParams.model_validate(GRADING | {"toy2d": {"simple": "standardised", "scale": None}})
    found = compare(values, NO_IMAGES, asked, grading, registered={"moons-short": [*range(10)]})
    rows = records(claims_table(found, "s", GRADING["rows"]))
    assert [(row["comparison"], row["planned"], row["failed_against"]) for row in rows] == [
        ("equal steps", 10, 2),
        ("equal compute", 0, 0),
        ("simple control", 0, 0),
    ]


def test_changed_seeds_are_told_before_the_run_and_on_the_page(history: dict[str, str]) -> None:
    """Also where an entry, of an earlier version, lacks its seeds, and so cannot say which have changed."""
    register()
    suite = load_suite(Path(SUITE))
    entry = load_registrations(FILE).suites["digits-search"]
    assert changed_seeds(entry, suite) == changed_seeds(None, suite) == contents(suite).changed_seeds == ""
    name, run = next(iter(suite.runs.items()))
    other = suite.model_copy(update={"runs": {**suite.runs, name: run.model_copy(update={"seed": 7})}})
    assert changed_seeds(entry, other) == f"1 of 1 seeds of {run.cell} struck, 1 added to {run.cell}"
    without = entry.model_copy(update={"seeds": {}})
    assert changed_seeds(without, suite) == ""
    assert changed_seeds(without, other) == "the suite, whose seeds the registration does not record"
    said = describe_registration("digits-search", entry, entry.suite_sha256, entry.claims_sha256, (), "1 struck")
    assert "changed since: its seeds (1 struck)" in said

    write_registrations(
        FILE, Registrations(suites={"digits-search": entry.model_copy(update={"seeds": {run.cell: [9]}})})
    )
    done = CliRunner().invoke(main, ["validate", SUITE])
    assert (done.exit_code, f"1 of 1 seeds of {run.cell} struck" in done.stderr) == (0, True)
    shown = replace(CONTENTS, changed_seeds=contents(suite).changed_seeds)
    assert f"1 of 1 seeds of {run.cell} struck" in render(shown, Path("none"), Path("none"))


def test_entries_have_the_seeds_of_their_commits(tmp_path: Path) -> None:
    """Of this repository, as far as git has its commits."""
    for suite, entry in load_registrations(REPOSITORY / FILE).suites.items():
        packed = subprocess.run(
            ["git", "-C", REPOSITORY, "archive", entry.commit, "params"], capture_output=True, check=False
        )
        if packed.returncode:
            pytest.skip("a checkout without the registered commits")
        folder = tmp_path / suite
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            archive.extractall(folder, filter="data")
        content = expand_suite(folder / f"params/{suite}.yaml").content
        found: dict[str, list[int]] = {}
        for name, run in content["runs"].items():
            found.setdefault(name.removesuffix(f"-s{run['seed']}"), []).append(run["seed"])
        for job in content["toy2d"]["datasets"].values():
            if "length" in job:
                found.setdefault(f"{job['density']}-{job['length']}", []).extend(job["seeds"])
        assert {cell: sorted(seeds) for cell, seeds in found.items()} == entry.seeds, suite


# What the commit of a registration bears out.


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"suite_sha256": "d" * 64}, "the SHA-256 of the suite at that commit is "),
        ({"claims_sha256": "d" * 64}, "the SHA-256 of the claims at that commit is "),
        ({"seeds": {"digits-vp-indm-nll": [1, 2, 3]}}, "it has other seeds of digits-vp-indm-nll"),
        ({"seeds": {}}, None),
        ({"note": "Forecast: 0.1, better."}, "its forecast does not stand in commit"),
    ],
)
def test_what_the_commit_of_a_registration_contradicts_is_said(
    change: dict[str, Any], words: str | None, history: dict[str, str]
) -> None:
    """As hashes that were edited by hand after the results, with which the page said that nothing had changed since."""
    right = entry_of(history["registered"])
    entry = right.model_copy(update=change)
    found = contradictions(Registrations(suites={"digits-search": entry}), "digits-search")
    assert (words is None) == (found == {})
    hashes = entry.suite_sha256, entry.claims_sha256
    text = describe_registration("digits-search", entry, *hashes, [history["after"]], contradicted=found)
    if words is None:
        assert text.startswith("Registered in commit ")
    else:
        assert found[""].startswith(words)
        assert text.startswith(f"Not registered: params/registrations.yaml names commit {history['registered']}")
        assert words in text


def test_a_suite_that_was_edited_after_its_commit_has_not_its_hash(history: dict[str, str]) -> None:
    """The hashes of the present suite, which somebody wrote beside the commit of another one."""
    path = Path(SUITE)
    path.write_text(path.read_text().replace("trials: 10", "trials: 11"))
    commit()
    entry = entry_of(history["registered"])
    assert contradictions(Registrations(suites={"digits-search": entry}), "digits-search")
    now = entry_of(git("rev-parse", "HEAD"))
    assert contradictions(Registrations(suites={"digits-search": now}), "digits-search") == {}


def test_a_commit_is_not_another_one_that_replaces_it(history: dict[str, str]) -> None:
    """`git replace` shows the suite that was edited after its results in the place of the registered one."""
    path = Path(SUITE)
    path.write_text(path.read_text().replace("trials: 10", "trials: 11"))
    git("replace", history["registered"], git("commit-tree", "-p", history["before"], "-m", "x", written_tree()))
    entry = entry_of(git("rev-parse", "HEAD")).model_copy(update={"commit": history["registered"]})
    found = contradictions(Registrations(suites={"digits-search": entry}), "digits-search")
    assert found[""].startswith("the SHA-256 of the suite at that commit is ")


def written_tree() -> str:
    git("add", "--all")
    return git("write-tree")


def test_an_addition_is_contradicted_by_its_variant(history: dict[str, str]) -> None:
    added = addition_of(history["registered"]).model_copy(update={"claims_sha256": "d" * 64})
    registrations = Registrations(suites={"digits-search": entry_of(history["before"])}, added=[added])
    found = contradictions(registrations, "digits-search")
    assert [*found] == ["learned-curve"]
    entry = registrations.suites["digits-search"]
    hashes = entry.suite_sha256, entry.claims_sha256
    commits = [history["before"], history["after"]]
    text = describe_registration("digits-search", entry, *hashes, commits, added=[added], contradicted=found)
    assert "Added without a registration: learned-curve (named: commit" in text


def test_a_commit_outside_the_history_registers_nothing(history: dict[str, str]) -> None:
    git("checkout", "--quiet", "-b", "aside", history["before"])
    Path("aside").write_text("aside")
    aside = commit()
    git("checkout", "--quiet", "-")
    entry = entry_of(aside)
    found = contradictions(Registrations(suites={"digits-search": entry}), "digits-search")
    assert found == {"": "it is not in the history of the commit that is checked out"}


def test_a_forecast_stands_in_git_before_the_runs(history: dict[str, str]) -> None:
    entry = entry_of(history["registered"]).model_copy(update={"note": "Forecast: 0.1, better."})
    write_registrations(FILE, Registrations(suites={"digits-search": entry}))
    first = commit()
    registrations = load_registrations(FILE)
    assert contradictions(registrations, "digits-search") == {}
    hashes = entry.suite_sha256, entry.claims_sha256
    later = describe_registration("digits-search", entry, *hashes, [first])
    assert later.startswith("Registered in commit ")
    # It ran after the commit of the registration, but before the forecast was in git.
    early = describe_registration("digits-search", entry, *hashes, [history["after"]])
    assert f"its forecast was committed after the run, which has stages of commit {history['after'][:12]}" in early
    better = entry.model_copy(update={"note": "Forecast: 0.2, better."})
    write_registrations(FILE, Registrations(suites={"digits-search": better}))
    commit()
    found = contradictions(load_registrations(FILE), "digits-search")
    assert found == {"": f"its forecast does not stand in commit {first[:12]}, which first had this entry"}


def test_no_verdict_rests_on_a_registration_that_is_contradicted(checkout: str) -> None:
    graded = pd.DataFrame(
        {"verdict": ["better", "undecided"], "reason": ["by 0.1", "few seeds"], "repeatability": [0.9, None]}
    )
    assert without_verdicts(graded, []) is graded
    found = without_verdicts(graded, ["the SHA-256 of the suite at that commit is aa…, and not bb…"])
    assert found["verdict"].tolist() == ["undecided", "undecided"]
    assert found["repeatability"].isna().all()
    why = "because the commit of the registration contradicts it: the SHA-256 of the suite"
    assert found["reason"].str.contains(why, regex=False).all()


def test_all_registrations_are_borne_out_by_their_commits() -> None:
    """Those whose schema was another one by the code of their commits."""
    registrations = load_registrations(REPOSITORY / FILE)
    if any(provenance.commit_date(entry.commit) is None for entry in registrations.suites.values()):
        pytest.skip("a checkout without the registered commits")
    found = {suite: contradictions(registrations, suite) for suite in registrations.suites}
    assert not any(found.values())


def test_an_edited_hash_of_a_real_registration_is_found() -> None:
    """One that only the code of its commit can make again."""
    registrations = load_registrations(REPOSITORY / FILE)
    entry = registrations.suites["digits-seeds"]
    if provenance.commit_date(entry.commit) is None:
        pytest.skip("a checkout without the registered commits")
    edited = entry.model_copy(update={"suite_sha256": "d" * 64})
    found = contradictions(Registrations(suites={"digits-seeds": edited}), "digits-seeds")
    assert found == {
        "": f"the SHA-256 of the suite at that commit is {entry.suite_sha256[:12]}…, and not dddddddddddd…"
    }
