"""Acceptance by evidence: what counts as moved, what is refused, and what is recorded."""

import json
import math
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from indm.bench.cli import main
from indm.bench.kept import accept as module
from indm.bench.kept.accepted import Changes
from indm.bench.kept.evidence import Evidence, compare, judge
from indm.bench.kept.keep import REFUSED, WRITTEN, Outcome
from indm.bench.pipeline.input_check import InputCheck
from indm.bench.pipeline.stamps import Difference
from indm.bench.suite.load import load_suite
from indm.errors import ArtifactError
from indm.strict_yaml import parse_yaml
from tests.conftest import REPOSITORY

BEFORE, AFTER = "a" * 40, "b" * 40
SMOKE = REPOSITORY / "params/smoke.yaml"
FILES = {
    "tables/nll.csv": "model,nelbo,nelbo_se,step\nindm,2.0,0.1,400\n",
    "tables/compute.csv": "ms_per_step\n12\n",
    "runs/r/nll.json": json.dumps({"numbers": {"nll": 2.5, "kind": "ode"}, "list": [1.0, 2.0]}),
    "runs/r/samples.npy": "bytes",
    "runs/r/provenance/nll.json": json.dumps({"date": "today"}),
}


def folder(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def moved(tmp_path: Path, **changes: str) -> tuple[int, dict[str, float]]:
    """Compare the files with others, of which some are changed; a file that is empty is left out."""
    after = {name: text for name, text in (FILES | changes).items() if text}
    return compare(folder(tmp_path / "before", FILES), folder(tmp_path / "after", after))


def test_records_and_times_are_not_compared(tmp_path: Path) -> None:
    changes = {"runs/r/provenance/nll.json": "{}", "tables/compute.csv": "ms_per_step\n13\n"}
    assert moved(tmp_path, **changes) == (3, {})


@pytest.mark.parametrize(
    ("name", "old", "new", "distance"),
    [
        ("tables/nll.csv", "2.0,", "2.01,", 0.1),
        ("tables/nll.csv", ",400", ",404", 4 / 404),
        # The largest of a row, which is not its last.
        ("tables/nll.csv", "2.0,0.1,400", "2.01,0.1,404", 0.1),
        ("tables/nll.csv", "indm", "ddpmpp", math.inf),
        ("tables/nll.csv", "2.0,", "nan,", math.inf),
        ("tables/nll.csv", "step", "steps", math.inf),
        ("tables/nll.csv", "0\n", "0\nindm,2.0,0.1,800\n", math.inf),
        ("runs/r/nll.json", "2.5", "2.5025", 0.0025 / 2.5025),
        ("runs/r/nll.json", "2.0]", "2.2]", 1 / 11),
        ("runs/r/nll.json", "ode", "sde", math.inf),
        ("runs/r/nll.json", '"list"', '"other"', math.inf),
        ("runs/r/samples.npy", "bytes", "others", math.inf),
        ("runs/r/samples.npy", "bytes", "", math.inf),
    ],
)
def test_a_distance_is_in_standard_errors_or_relative_and_infinite_for_all_else(
    tmp_path: Path, name: str, old: str, new: str, distance: float
) -> None:
    (found,) = moved(tmp_path, **{name: FILES[name].replace(old, new)})[1].items()
    assert found == (name, pytest.approx(distance))


def judged(tmp_path: Path, bound: float | None, **changes: str) -> Evidence:
    moved(tmp_path, **changes)
    return judge("smoke", (BEFORE, AFTER), (tmp_path / "before", tmp_path / "after"), bound)


def test_the_same_bytes_are_evidence(tmp_path: Path) -> None:
    assert judged(tmp_path, None) == Evidence(suite="smoke", before=BEFORE, after=AFTER, files=3, same=3)


def test_numbers_within_the_bound_are_evidence_and_beyond_are_not(tmp_path: Path) -> None:
    changes = {"tables/nll.csv": FILES["tables/nll.csv"].replace("2.0,", "2.01,")}
    found = judged(tmp_path, 0.11, **changes)
    assert (found.same, found.moved, found.largest) == (2, ["tables/nll.csv"], pytest.approx(0.1))
    assert "no number of the others is further away than 0.1, of 0.11 allowed" in found.sentence()
    for bound in (None, 0.09):
        with pytest.raises(ArtifactError, match=r"1 of 3 files that differ too far, first tables/nll\.csv by 0\.1"):
            judged(tmp_path, bound, **changes)


def test_no_results_are_no_evidence(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="found no results"):
        judge("smoke", (BEFORE, AFTER), (folder(tmp_path, {}), tmp_path), None)


def test_evidence_is_recorded_with_the_modules_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "accepted.yaml"
    evidence = Evidence(suite="smoke", before=BEFORE, after=AFTER, files=3, same=3)
    change = Difference("indm.flows.block", "1" * 10, "2" * 10)
    assert Changes(path, "no number moves", evidence).open([change]) == []
    assert Changes(path).open([change]) == []
    (entry,) = parse_yaml(path.read_text())["accepted"]
    assert entry["evidence"] == {"suite": "smoke", "before": BEFORE, "after": AFTER, "files": 3, "same": 3, "moved": []}
    assert Changes(path).acceptances([change])[0]["evidence"] == entry["evidence"]
    # Without evidence, an entry of its own, which says nothing of it.
    Changes(path, "no number moves").open([Difference("indm.flows.build", "1" * 10, "2" * 10)])
    assert [("evidence" in entry) for entry in parse_yaml(path.read_text())["accepted"]] == [True, False]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with two commits and one published suite with kept results."""
    root = folder(tmp_path / "checkout", {"params/smoke.yaml": "suite: smoke\n", "docs/results/smoke/kept/x": "x"})
    for command in (
        ["init", "--quiet"],
        ["config", "user.name", "reader"],
        ["config", "user.email", "reader@example.org"],
        ["add", "--all"],
        ["commit", "--quiet", "--message", "One"],
        ["commit", "--quiet", "--allow-empty", "--message", "Two"],
    ):
        subprocess.run(["git", *command], cwd=root, check=True)
    monkeypatch.chdir(root)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return root


@pytest.fixture
def runs(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Call the command where runs write what they are told, and archives come back or are refused."""

    def call(
        *options: str,
        after: dict[str, str] = FILES,
        refused_before: int = 0,
        state: str = WRITTEN,
        unseen: tuple[str, ...] = (),
    ) -> Result:
        sides = {"before": FILES, "after": after}
        monkeypatch.setattr(module, "run_at", lambda _commit, _suite, _here, place: folder(place, sides[place.name]))
        done = subprocess.CompletedProcess([], refused_before, "", "indm restore: runs/r: refused\n")
        monkeypatch.setattr(module, "in_checkout", lambda *_: done)
        monkeypatch.setattr(module, "load_suite", lambda _: None)
        monkeypatch.setattr(module, "InputCheck", lambda *_: None)

        def restored(_checks: None, root: Path, replace: bool, accept: str, evidence: Evidence) -> Outcome:
            assert not replace
            Changes(root.parent / "accepted.yaml", accept, evidence).open([Difference("indm.x", "1" * 10, "2" * 10)])
            return Outcome({"runs/r": (state, "" if state == WRITTEN else "other numbers")})

        monkeypatch.setattr(module, "restore", restored)
        monkeypatch.setattr(module, "_unseen", lambda *_: unseen)
        return CliRunner().invoke(main, ["accept", "--before", "HEAD~1", *options])

    return call


def test_a_change_that_moves_nothing_is_accepted_for_every_suite(checkout: Path, runs: Callable[..., Result]) -> None:
    done = runs()
    assert done.exit_code == 0, done.output
    assert "3 of 3 files of results have the same bytes" in done.output
    assert not list(checkout.parent.glob("indm-accept-*"))
    (entry,) = parse_yaml((checkout / "docs/results/smoke/accepted.yaml").read_text())["accepted"]
    commits = subprocess.run(["git", "log", "--format=%H"], cwd=checkout, capture_output=True, text=True, check=True)
    assert [entry["evidence"]["after"], entry["evidence"]["before"]] == commits.stdout.split()


@pytest.mark.parametrize(
    ("options", "told", "words"),
    [
        (
            (),
            {"after": FILES | {"runs/r/samples.npy": "others"}},
            "files that differ too far, first runs/r/samples.npy",
        ),
        ((), {"refused_before": 1}, "refuses its results, too"),
        ((), {"state": REFUSED}, "other numbers"),
        ((), {"unseen": ("changed indm/x.py",)}, "found changed indm/x.py, which no job of suite smoke imports"),
        (("--bound", "0.1"), {}, "--why: found nothing"),
        (("--before", "nosuch"), {}, "--before: found 'nosuch', expected a commit"),
    ],
)
def test_what_is_no_evidence_is_one_line_and_exit_1(
    checkout: Path, runs: Callable[..., Result], options: tuple[str, ...], told: dict[str, object], words: str
) -> None:
    done = runs(*options, **told)
    assert done.exit_code == 1
    assert words in done.output.splitlines()[-1]
    assert (checkout / "docs/results/smoke/accepted.yaml").exists() == ("state" in told)


def test_changes_that_the_suite_does_not_import_are_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    files = ("flows/registered/resflow", "data/registered/cifar10", "nobody")
    changed = {f"changed indm/{name}.py": {"runs/r"} for name in files} | {"gone indm/old.py": {"runs/r"}}
    monkeypatch.setattr(module, "restore", lambda *_, **__: Outcome({}, changed))
    monkeypatch.chdir(REPOSITORY)
    expected = ["changed indm/data/registered/cifar10.py", "changed indm/nobody.py"]
    assert module._unseen(InputCheck(load_suite(SMOKE), Path(), Path()), Path(), "smoke") == expected


def test_uncommitted_changes_are_no_evidence(checkout: Path, runs: Callable[..., Result]) -> None:
    (checkout / "params/smoke.yaml").write_text("suite: other\n")
    done = runs()
    assert done.exit_code == 1
    assert "changes that are not committed: params/smoke.yaml" in done.output
