"""What is published of a suite: which files, how much of them, and what README.md says of them."""

import errno
import gzip
import importlib
import json
import os
import platform
import re
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result

from docs.answers import (
    DATASETS,
    KNOWN,
    LENGTHS,
    PANELS,
    SUITES,
    draw_answers,
    weights,
    with_answers,
    with_densities,
    with_means,
)
from indm.bench.cli import main
from indm.bench.kept import publish as module
from indm.bench.kept.page import read_folder, renewed, replace_block
from indm.bench.models.spec import model_spec
from indm.bench.pipeline.input_check import InputCheck
from indm.bench.pipeline.jobs import Job
from indm.bench.pipeline.stages import STAGES
from indm.bench.register import write_registrations
from indm.bench.suite.load import load_suite, suite_sha256
from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.errors import ArtifactError
from indm.library import load_run
from indm.report.answers import EVIDENCE, answers_of
from indm.report.catalogue import COMPRESSED, PUBLISHED
from indm.report.differences import COMPARISONS, COMPUTE, SIMPLE, STEPS
from indm.report.figures import plot_figures
from indm.report.matrix import InFile, OnPage, matrix
from indm.report.numbers import VALUE_COLUMNS
from indm.report.registrations import Registration, Registrations
from indm.report.rows import read_rows
from indm.store.files import CHECKPOINT_FORMAT, file_sha256, write_json, write_table, write_weights
from indm.store.layout import PICTURES
from indm.store.provenance import provenance
from indm.store.sums import check_sums
from indm.store.weights import read_published
from tests.conftest import REPOSITORY
from tests.finished import EXECUTION, do

SMOKE = load_suite(REPOSITORY / "params/smoke.yaml")
RUN = next(name for name, run in SMOKE.runs.items() if run.model == "indm")
TARGET = Path("docs/results/smoke")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite whose jobs have all ended, one with the weights of a model."""
    root = tmp_path_factory.mktemp("made")
    shutil.copytree(REPOSITORY / "params", root / "params")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name, stage in STAGES.items():
            for subject in stage.subjects(SMOKE):
                do(SMOKE, root, Job(name, subject))
                if (name, subject) == ("train", RUN):
                    train(root)
    return root


def train(root: Path, scale: float = 2.0) -> ImplicitNonlinearDiffusion:
    """Write a checkpoint whose averaged weights are the raw ones times ``scale``; return the averaged model."""
    torch.manual_seed(1)
    model = ImplicitNonlinearDiffusion(model_spec(SMOKE, RUN, [1, 8, 8]))
    raw = model.state_dict()
    averaged = {name: tensor * scale if tensor.is_floating_point() else tensor for name, tensor in raw.items()}
    weights = {f"raw.{name}": tensor for name, tensor in raw.items()}
    weights |= {f"ema.{name}": tensor for name, tensor in averaged.items()}
    path = root / f"results/smoke/runs/{RUN}/checkpoint.safetensors"
    write_weights(path, weights, {"run": RUN, "step": 20, "model": model.spec}, CHECKPOINT_FORMAT)
    checks = InputCheck(SMOKE, root / "results", root / "reports")
    checks.record(Job("train", RUN), checks.check(Job("train", RUN)))
    model.load_state_dict(averaged)
    return model


@pytest.fixture
def checkout(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def keeping(checkout: Path) -> Path:
    """A checkout whose suite keeps the weights of its plain models; of them, one alone has weights."""
    with (checkout / "params/smoke.yaml").open("a") as file:
        file.write('kept_weights: {variants: [""], seeds: 1}\n')
    return checkout


def publish(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["publish", "--suite", "params/smoke.yaml", *arguments])


def refused(*arguments: str) -> str:
    """Return the only line of a publishing that stops."""
    done = publish(*arguments)
    assert (done.exit_code, done.output.count("\n")) == (1, 1), done.output
    return done.output.removeprefix("indm publish: ")


def keep(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["keep", "--suite", "params/smoke.yaml", *arguments])


def files() -> dict[str, bytes]:
    return {str(path.relative_to(TARGET)): path.read_bytes() for path in TARGET.rglob("*") if path.is_file()}


def test_the_folder_has_tables_figures_samples_and_provenance(checkout: Path) -> None:
    assert keep().exit_code == 0
    done = publish()
    assert done.exit_code == 0, done.output
    found = {name for name in files() if not name.startswith("kept/")}
    tables = {f"tables/{name}.csv" for name in PUBLISHED}
    compressed = {f"tables/{name}.csv.gz" for name in COMPRESSED}
    pictures = {f"{kind}/{run}.png" for kind in PICTURES for run in SMOKE.runs}
    alone = {"figures/figure.svg", "provenance.json", "README.md", "SHA256SUMS"}
    assert found == tables | compressed | pictures | alone
    for name in compressed:
        assert gzip.decompress((TARGET / name).read_bytes()) == (checkout / "results/smoke" / name[:-3]).read_bytes()
    for name in tables:
        assert (TARGET / name).read_bytes() == (checkout / "results/smoke" / name).read_bytes()
    (execution,) = json.loads((TARGET / "provenance.json").read_text())["executions"]
    jobs = {
        name: len(stage.subjects(SMOKE)) for name, stage in STAGES.items() if stage.subject and stage.subjects(SMOKE)
    }
    assert execution["jobs"] == jobs
    assert execution["seconds"] == pytest.approx(1.5 * sum(jobs.values()))
    assert {key: execution[key] for key in module.ALIKE} == {key: EXECUTION[key] for key in module.ALIKE}
    check_sums(TARGET)
    assert {line.partition("  ")[2] for line in (TARGET / "SHA256SUMS").read_text().splitlines()} > {"provenance.json"}
    # A second time, nothing changes.
    before = files()
    publish()
    assert files() == before


def test_keeping_later_results_keeps_the_checksums_of_a_published_folder_right(checkout: Path) -> None:
    keep()
    publish()
    path = TARGET / f"kept/runs/{RUN}.tar.gz"
    before = (TARGET / "SHA256SUMS").read_text()
    assert f"{file_sha256(path)}  kept/runs/{RUN}.tar.gz\n" in before
    do(SMOKE, checkout, Job("nll", RUN), "another content of")
    # What is refused is not listed as if it had been kept.
    assert keep().exit_code == 1
    assert (TARGET / "SHA256SUMS").read_text() == before
    keep("--replace")
    assert f"{file_sha256(path)}  kept/runs/{RUN}.tar.gz\n" in (TARGET / "SHA256SUMS").read_text()
    check_sums(TARGET)
    path.unlink()
    shutil.rmtree(f"results/smoke/runs/{RUN}")
    keep()
    check_sums(TARGET)


def test_one_seed_of_each_cell_has_its_samples_published() -> None:
    suite = load_suite(REPOSITORY / "params/digits.yaml")
    first: dict[str, str] = {}
    for name in suite.runs:
        first.setdefault(name.rpartition("-s")[0], name)
    assert suite.first_runs(1) == list(first.values())
    assert len(first) < len(suite.runs)
    assert {int(name[-1]) for name in suite.first_runs(2)} == {4, 5}
    assert sorted(suite.first_runs(4)) == sorted(suite.runs)


def test_the_page_says_what_was_run_and_lists_the_files(checkout: Path) -> None:
    publish()
    page = (TARGET / "README.md").read_text()
    for words in ("params/smoke.yaml", "Not registered: ", EXECUTION["commit"], "made-up, 2 CPUs, Linux; threads: 1"):
        assert str(words) in page
    links = [link for link in re.findall(r"\]\(([^)]+)\)", page) if not link.startswith("../")]
    for link in links:
        assert (TARGET / link).exists(), link
    tables = {f"tables/{name}.csv" for name in PUBLISHED} | {f"tables/{name}.csv.gz" for name in COMPRESSED}
    assert set(links) >= {*tables, *(f"{kind}/" for kind in PICTURES), "figures/", "provenance.json"}


@pytest.mark.parametrize("name", ["tables/claims.csv", "SHA256SUMS"])
def test_pages_are_not_made_from_tables_that_were_edited(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or have no checksums."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "workflow"))
    folder = tmp_path / "docs/results/digits"
    shutil.copytree(REPOSITORY / "docs/results/digits", folder)
    for page in ("README.md", "docs/library.md", "docs/results/README.md"):
        shutil.copy(REPOSITORY / page, tmp_path / page)
    if name == "SHA256SUMS":
        (folder / name).unlink()
    else:
        (folder / name).write_text((folder / name).read_text().replace("exploratory", "primary"))
    with pytest.raises(ArtifactError, match=f"^{folder / name}: "):
        importlib.import_module("generate").readme_text(tmp_path)


def test_a_note_stays_text_of_its_cell(checkout: Path) -> None:
    entry = Registration(
        commit="0" * 40, date="2026-01-31", suite_sha256="1" * 64, claims_sha256="2" * 64, note="a | b\n<b>c"
    )
    write_registrations(Path("params/registrations.yaml"), Registrations(suites={"smoke": entry}))
    # They read the registrations.
    for stage in ("claims", "figure", "report"):
        do(SMOKE, checkout, Job(stage, ""))
    publish()
    (row,) = (line for line in (TARGET / "README.md").read_text().splitlines() if line.startswith("| registration |"))
    assert row.endswith(" a \\| b &lt;b&gt;c |")


def test_text_by_hand_stays(checkout: Path) -> None:
    publish()
    path = TARGET / "README.md"
    path.write_text(f"By hand, above.\n{path.read_text().replace('Not registered', 'Edited')}By hand, below.\n")
    publish()
    page = path.read_text()
    assert page.startswith("By hand, above.\n")
    assert page.endswith("By hand, below.\n")
    assert "Edited" not in page
    path.write_text("No markers.\n")
    (TARGET / "tables/claims.csv").write_text("of an earlier run")
    assert refused().startswith(f"{path}: found 0 blocks <!-- results: ... -->")
    assert path.read_text() == "No markers.\n"
    assert (TARGET / "tables/claims.csv").read_text() == "of an earlier run"


def test_a_record_with_something_else_in_the_place_of_a_value_is_refused(checkout: Path) -> None:
    path = Path(f"results/smoke/runs/{RUN}/provenance/train.json")
    record = json.loads(path.read_text())
    wrong: dict[str, list[Any]] = {
        "seconds": ["abc", None, float("nan"), -1.5, True, 10**400],
        "versions": [{}, {"python": "3.11", "torch": 2}, None],
        "commit": [5, "--output=a", ""],
        "machine": [5, "a\nb"],
    }
    wrong |= {"uncommitted_changes": ["no"], "threads": [None], "device": [None]}
    for key, value in ((key, value) for key, values in wrong.items() for value in values):
        path.write_text(json.dumps(record | {key: value}))
        assert refused().startswith(f"{path}: key {key}: found {value!r}, expected ")
    path.write_text(json.dumps({key: value for key, value in record.items() if key != "commit"}))
    assert refused().startswith(f"{path}: found no commit, expected all keys that stage train writes; ")
    assert not TARGET.exists()


def test_nothing_says_in_which_folder_of_which_machine_it_was(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for function in ("node", "release", "version"):
        monkeypatch.setattr(platform, function, lambda: "secret")
    monkeypatch.setattr(socket, "gethostname", lambda: "secret")
    found = provenance(1.5, threads=1)
    for path in checkout.glob("results/smoke/**/provenance/*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | found))
    assert publish("--weights", RUN).exit_code == 0
    assert f"{found['machine']}; threads: 1" in (TARGET / "README.md").read_text()
    for name, content in files().items():
        for secret in (str(checkout), str(Path.home()), str(REPOSITORY), "secret"):
            assert secret.encode() not in content, name


def test_results_that_are_not_what_they_seem_are_not_published(checkout: Path) -> None:
    path = checkout / "results/smoke/tables/claims.csv"
    path.write_text("edited")
    assert refused().startswith("results/smoke/tables/claims.csv: found SHA-256 ")
    assert not TARGET.exists()


def test_what_is_published_no_more_is_removed(checkout: Path) -> None:
    publish()
    for name in ("tables/old.csv", "figures/old.svg", "samples/old.png"):
        (TARGET / name).write_text("old")
    (TARGET / "tables/claims.csv").write_text("old")
    (TARGET / "notes.md").write_text("by hand")
    publish()
    assert not [name for name in files() if "old" in name]
    assert (TARGET / "tables/claims.csv").read_text() == "content of results/smoke/tables/claims.csv"
    assert (TARGET / "notes.md").exists()


@pytest.mark.parametrize("content", [None, "{}", '{"suite": "digits"}'])
def test_a_folder_that_this_suites_publishing_did_not_write_is_left_alone(checkout: Path, content: str | None) -> None:
    (TARGET / "samples").mkdir(parents=True)
    (TARGET / "samples/mine.png").write_text("mine")
    if content:
        (TARGET / "provenance.json").write_text(content)
    found = json.loads(content or "{}").get("suite")
    assert refused().startswith(f"{TARGET}/provenance.json: found suite {found!r}, expected 'smoke', since")
    assert (TARGET / "samples/mine.png").exists()


def test_published_weights_are_the_averaged_ones_in_single_precision(checkout: Path) -> None:
    expected = train(checkout)
    done = publish("--weights", RUN)
    assert done.exit_code == 0, done.output
    tensors, spec = read_published(TARGET / f"weights/{RUN}.safetensors")
    model = ImplicitNonlinearDiffusion(spec["model"])
    model.load_state_dict(tensors)
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=0, atol=0)
    assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {torch.float32}
    assert (spec["run"], spec["step"]) == (RUN, 20)
    assert f"[{RUN}](weights/{RUN}.safetensors)" in (TARGET / "README.md").read_text()


def test_weights_stay_as_long_as_they_are_of_the_same_training(checkout: Path) -> None:
    publish("--weights", RUN)
    path = TARGET / f"weights/{RUN}.safetensors"
    before = path.read_bytes()
    (checkout / f"results/smoke/runs/{RUN}/checkpoint.safetensors").unlink()
    publish()
    assert path.read_bytes() == before
    # Trained anew.
    train(checkout, scale=3.0)
    for name, stage in STAGES.items():
        if name not in ("prepare", "reference", "train", "toy2d"):
            for subject in stage.subjects(SMOKE):
                do(SMOKE, checkout, Job(name, subject))
    assert publish().exit_code == 0
    assert not path.exists()


KEPT = TARGET / f"kept/weights/{RUN}.safetensors"


def test_the_weights_that_a_suite_names_are_kept_in_the_published_format(keeping: Path) -> None:
    done = keep()
    assert done.exit_code == 0, done.output
    named = {name for name in SMOKE.runs if f"skipped weights/{name}: " in done.output} | {RUN}
    assert named == {name for name, run in SMOKE.runs.items() if not run.variant}
    assert [path.name for path in KEPT.parent.iterdir()] == [KEPT.name]
    expected, run = train(keeping).state_dict(), load_run(KEPT)
    assert run.name == RUN
    for name, tensor in run.model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)
    # What is published is the same file, of the same suite, whatever that keeps.
    assert publish("--weights", RUN).exit_code == 0
    assert (TARGET / f"weights/{RUN}.safetensors").read_bytes() == KEPT.read_bytes()
    assert json.loads((TARGET / "provenance.json").read_text())["suite_sha256"] == suite_sha256(SMOKE)
    # They stay where no checkpoint is, and are no results.
    shutil.rmtree("results")
    # In place of numbers, made-up tables hold their own names.
    shutil.rmtree(TARGET / "tables")
    assert CliRunner().invoke(main, ["restore", "--suite", "params/smoke.yaml"]).exit_code == 0
    assert not list(Path("results").rglob("weights"))
    assert f"weights/{RUN}:" not in keep().output


@pytest.mark.parametrize("lost", ["checkpoint.safetensors", "manifest/nll.json"])
def test_weights_are_kept_of_finished_runs_whose_checkpoint_is_here(keeping: Path, lost: str) -> None:
    (keeping / f"results/smoke/runs/{RUN}" / lost).unlink()
    done = keep()
    assert done.exit_code == 0
    assert not KEPT.exists()
    place = "weights" if lost.startswith("checkpoint") else "runs"
    assert f"skipped {place}/{RUN}: results/smoke/runs/{RUN}/{lost}: missing" in done.output


def test_kept_weights_are_replaced_only_if_asked_for(keeping: Path) -> None:
    keep()
    before = KEPT.read_bytes()
    KEPT.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    assert "changed since it was published; take it from git" in keep().output
    assert keep("--replace").exit_code == 0
    assert KEPT.read_bytes() == before
    train(keeping, scale=3.0)
    for name, stage in STAGES.items():
        if stage.subject == "run" and name != "train" and RUN in stage.subjects(SMOKE):
            do(SMOKE, keeping, Job(name, RUN))
    archive = TARGET / f"kept/runs/{RUN}.tar.gz"
    archive.unlink()
    done = keep()
    assert done.exit_code == 1
    assert f"refused weights/{RUN}: {KEPT}: found other weights than in the results folder; overwrite" in done.output
    assert (KEPT.read_bytes(), archive.exists()) == (before, True)
    checkpoint = keeping / f"results/smoke/runs/{RUN}/checkpoint.safetensors"
    content = checkpoint.read_bytes()
    checkpoint.unlink()
    done = keep("--replace")
    assert done.exit_code == 1
    assert f"refused weights/{RUN}: results/smoke/runs/{RUN}/checkpoint.safetensors: missing" in done.output
    checkpoint.write_bytes(content)
    assert keep("--replace").exit_code == 0
    assert KEPT.read_bytes() != before


@pytest.mark.parametrize("name", ["README.md", "tables/values.csv"])
def test_where_a_file_cannot_be_written_none_is(checkout: Path, name: str) -> None:
    (TARGET / name / "something").mkdir(parents=True)
    write_json(TARGET / "provenance.json", {"suite": "smoke"})
    before = files()
    assert f"found a folder at {TARGET / name}, expected a file; move it" in refused()
    assert files() == before


def stop_after(count: int, error: BaseException, patch: pytest.MonkeyPatch) -> None:
    """Have the next publishing stop with an error after so many files."""
    left, plain = iter(range(count)), module.atomic_write

    def write(path: Path) -> Any:
        if next(left, None) is None:
            raise error
        return plain(path)

    patch.setattr(module, "atomic_write", write)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_publishing_that_was_killed_is_finished_by_publishing_again(
    count: int, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time leaves the bytes of a publishing that was not stopped."""
    with monkeypatch.context() as patch:
        stop_after(count, KeyboardInterrupt(), patch)
        assert publish().exit_code != 0
    assert len(files()) == count
    assert publish().exit_code == 0
    again = files()
    shutil.rmtree(TARGET)
    assert publish().exit_code == 0
    assert again == files()


def test_on_a_full_disk_publishing_is_one_line_and_no_file_is_half_written(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert "cannot be written: No space left on device; free disk space" in refused()
    assert files() == {}


def test_weights_that_changed_since_they_were_published_are_not_published_again(checkout: Path) -> None:
    publish("--weights", RUN)
    path = TARGET / f"weights/{RUN}.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "changed since it was published; take it from git" in refused()
    path.write_bytes(content[:100])
    assert "take it from git" in refused()
    assert path.read_bytes() == content[:100]


def test_other_results_are_not_published_beside_those_that_are_kept(checkout: Path) -> None:
    """What is restored is what is published."""
    assert keep().exit_code == 0
    assert publish().exit_code == 0
    before = files()
    do(SMOKE, checkout, Job("nll", RUN), "another content of")
    for name in ("table", "compute", "claims", "figure", "report"):
        do(SMOKE, checkout, Job(name, ""))
    assert f"kept/runs/{RUN}.tar.gz: found other results of runs/{RUN} than the present results" in refused()
    assert files() == before
    assert keep("--replace").exit_code == 0
    assert publish().exit_code == 0
    stray = TARGET / "kept/runs/gone-s0.tar.gz"
    shutil.copy(TARGET / f"kept/runs/{RUN}.tar.gz", stray)
    assert f"{stray}: found an archive that does not belong to suite smoke; remove it" in refused()


def test_weights_of_no_run_or_of_another_training_are_refused(checkout: Path) -> None:
    assert "--weights: found no run 'nosuch'; runs of smoke: " in refused("--weights", "nosuch")
    path = checkout / f"results/smoke/runs/{RUN}/checkpoint.safetensors"
    path.write_bytes(b"another")
    assert f"runs/{RUN}/checkpoint.safetensors: found SHA-256 " in refused("--weights", RUN)
    path.unlink()
    assert "checkpoint.safetensors: missing" in refused("--weights", RUN)
    assert not TARGET.exists()


@pytest.mark.parametrize(("limit", "what"), [("MOST", "files"), ("MOST_WEIGHTS", "weights")])
def test_too_much_for_git_is_refused_with_the_largest(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, limit: str, what: str
) -> None:
    monkeypatch.setattr(module, limit, 1000)
    line = refused("--weights", RUN)
    assert line.startswith(f"{what}: found ")
    assert f"the largest: weights/{RUN}.safetensors (" in line
    assert not TARGET.exists()


def test_a_block_has_its_markers_once() -> None:
    text = "a\n<!-- x: of -->\nold\n<!-- end of x -->\nb\n"
    assert replace_block(text, "x", "new \\1\n", "file") == "a\n<!-- x: of -->\n\nnew \\1\n\n<!-- end of x -->\nb\n"
    once = replace_block(text, "x", "new", "file")
    assert replace_block(once, "x", "new", "file") == once
    for odd in (text + text, text.replace("end of x", "end of y"), ""):
        with pytest.raises(ArtifactError, match="expected one; put the two lines where"):
            replace_block(odd, "x", "new", "file")


def made_up_claims() -> pd.DataFrame:
    """Made-up comparisons of two claims, at two objectives and against a fixed number."""
    same: dict[str, Any] = {
        "dataset": "digits",
        "sde": "vp",
        "unit": "nats",
        "smallest_effect": 0.01,
        "to_decide": "30",
    }
    same |= {"reason": "not run", "planned": 0, "n": 3, "failed_treatment": 0, "failed_against": 0, "protocol": ""}
    same |= {"family": "primary", "treatment": "indm", "statement": "", "source": "", "repeatability": 0.9}
    ends = {"effect": 0.02, "low": 0.01, "high": 0.034}
    rows: list[tuple[Any, ...]] = [
        ("a", "nll", "equal steps", "ddpmpp", "better", ends),
        ("a", "nll", "equal compute", "ddpmpp same-compute", "undecided", {}),
        ("a", "nll", "simple control", "ddpmpp learned-filter", "undecided", ends),
        ("a", "nll", "control", "ddpmpp learned-scale", "better", ends),
        ("a", "fid", "equal steps", "ddpmpp", "not better", ends),
        ("b", "fid", "fixed number", "1.85", "worse", ends),
        ("b", "fid", "equal steps", "ddpmpp", "undecided", {"reason": "0 sound of 8 seeds", "planned": 8}),
    ]
    names = ("id", "objective", "comparison", "against", "verdict")
    return pd.DataFrame(
        [same | dict(zip(names, row[:-1], strict=True)) | {"question": row[0].upper()} | row[-1] for row in rows]
    )


def verdicts(claims: pd.DataFrame) -> str:
    return matrix(answers_of(claims), InFile())


def test_a_claim_has_a_row_for_each_place_and_a_column_for_each_comparison() -> None:
    text = verdicts(made_up_claims())
    # No line ends within a value.
    assert "0.020\u00a0[0.010, 0.034]" in text
    value = "0.020 [0.010, 0.034]"
    assert text.replace("\u00a0", " ").splitlines() == [
        "| claim | where | equal steps | equal compute | simple control | fixed number |",
        "|---|---|---|---|---|---|",
        f"| A (nats, 0.01 counts) | digits, VP, nll | better, {value} | not run | learned filter: undecided, {value} {{30}} | – |",
        f"| A (nats, 0.01 counts) | digits, VP, fid | no gain, {value} | – | – | – |",
        f"| B (nats, 0.01 counts) | digits, VP, fid | undecided: 0 sound of 8 seeds | – | – | worse, {value} |",
    ]


def test_a_gain_in_fid_that_is_excluded_has_the_ratio_that_was_found() -> None:
    """INDM's FID is twice the other one's where the log ratio is -log 2."""
    row = made_up_claims()[:1].assign(unit="log ratio", smallest_effect=0.1, verdict="not better", effect=-np.log(2.0))
    (line,) = verdicts(row.assign(low=-0.9, high=0.05)).splitlines()[2:]
    assert line.endswith(", FID 2.00 times as high |")
    assert "times as high" not in verdicts(row.assign(low=-0.9, high=-0.5, verdict="worse"))
    assert "times as high" not in verdicts(row.assign(low=-0.9, high=0.05, unit="nats"))


def test_readme_is_made_from_the_published_files_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in git, where it has the commits of the results; the words outside of the block are a person's."""
    monkeypatch.chdir(REPOSITORY)
    folder = REPOSITORY / "docs/results/digits"
    published = read_folder(load_suite(REPOSITORY / "params/digits.yaml"), folder, pd.DataFrame(columns=[*EVIDENCE]))
    page = (folder / "README.md").read_text()
    assert renewed(published).partition("<!-- end of results -->")[2] == page.partition("<!-- end of results -->")[2]
    unknown = [execution | {"commit": "0" * 40} for execution in published.executions]
    assert renewed(replace(published, executions=unknown)) == page


def test_the_page_and_the_file_have_the_same_cells() -> None:
    """The page adds marks of verdicts and numbers, and takes nothing away."""
    answers = answers_of(made_up_claims())
    markup = re.sub(r'<span class="symbol".*?</span>', "", matrix(answers, OnPage()))
    text = re.sub(r"<[^>]+>", "", markup)
    assert text == matrix(answers, InFile()).replace("\u00a0", " ")


def test_primary_claims_of_the_suites_of_a_dataset_share_a_table(tmp_path: Path) -> None:
    page = "<!-- answers: of -->\n<!-- end of answers -->\n"
    assert with_answers(page, tmp_path, "cifar10") == page
    families = np.where(made_up_claims()["id"] == "a", "primary", "exploratory")
    for suite in (*DATASETS["cifar10"], *DATASETS["digits"]):
        write_table(tmp_path / suite / "tables/claims.csv", made_up_claims().assign(family=families))
    lines = [
        line.strip("| ").split(" | ") for line in with_answers(page, tmp_path, "cifar10").splitlines() if "|" in line
    ]
    assert lines[0] == ["suite", "claim", "objective", *COMPARISONS]
    suites = [f"[{SUITES[suite]}]({suite}/README.md)" for suite in DATASETS["cifar10"]]
    assert [line[:3] for line in lines[2:]] == [[suite, "A", each] for suite in suites for each in ("nll", "fid")]
    value = "0.020\u00a0[0.010, 0.034]"
    assert lines[2][3:] == [f"better, {value}", "not run", f"learned filter: undecided, {value} {{30}}"]
    assert lines[3][3:] == [f"no gain, {value}", "–", "–"]


def test_known_densities_are_counted_by_claim_length_and_verdict(tmp_path: Path) -> None:
    page = "<!-- densities: of -->\n<!-- end of densities -->\n"
    assert with_densities(page, tmp_path) == page
    words = {"a-short": "better", "b-short": "better", "c-short": "not better", "a-long": "undecided", "b-long": ""}
    like, bound, nll = made_up_claims().iloc[0].to_dict(), "better-nelbo-known", "better-nll-known"
    rows = [
        like
        | {"id": bound, "dataset": name, "sde": "", "objective": "", "verdict": word, "comparison": comparison}
        # Not run.
        | ({} if word and comparison != SIMPLE else {"effect": np.nan})
        for name, word in words.items()
        for comparison in COMPARISONS
    ]
    rows += [row | {"id": claim} for row in rows[:3] for claim in (nll, "another")]
    write_table(tmp_path / "densities/tables/claims.csv", pd.DataFrame(rows))
    assert with_densities(page, tmp_path).splitlines()[4:8] == [
        f"| {KNOWN[bound]}, short | 2 better, 1 no gain | 2 better, 1 no gain | not measured |",
        f"| {KNOWN[bound]}, long | 1 undecided | 1 undecided | not measured |",
        f"| {KNOWN[nll]}, short | 1 better | 1 better | not measured |",
        "",
    ]


def test_a_mean_has_the_verdict_of_its_comparison(tmp_path: Path) -> None:
    page = "<!-- means: of -->\n<!-- end of means -->\n"
    assert with_means(page, tmp_path) == page
    words = {
        "better-nelbo": ("nll", "better", "undecided", "worse"),
        "lower-fid": ("fid", "undecided", "not better", "undecided"),
    }
    against = {STEPS: "ddpmpp", COMPUTE: "ddpmpp same-compute", SIMPLE: "ddpmpp fixed-filter"}
    claims = [
        {"id": claim, "objective": objective, "comparison": comparison, "verdict": verdict, "smallest_effect": 0.1}
        | {"unit": "bits/dim" if objective == "nll" else "log ratio", "against": against[comparison]}
        | {"effect": np.nan if (objective, comparison) == ("fid", SIMPLE) else 0.5}
        | {"family": "exploratory" if comparison == SIMPLE else "primary"}
        for claim, (objective, *verdicts) in words.items()
        for comparison, verdict in zip(COMPARISONS, verdicts, strict=True)
    ]
    cells = [("ddpmpp", "", 3.0), ("indm", "", 2.0), ("ddpmpp", "same-compute", 1.0), ("ddpmpp", "fixed-filter", 4.0)]
    numbers = [{"model": model, "variant": variant, "fid": mean, "fid_se": 0.5} for model, variant, mean in cells]
    likelihoods = pd.DataFrame(numbers).rename(columns={"fid": "nelbo", "fid_se": "nelbo_se"})
    likelihoods = likelihoods.assign(
        decoder=["learned", "fixed", "learned", "learned"], nelbo_fixed=9.0, nelbo_fixed_se=0.25
    )
    compute = pd.DataFrame(cells, columns=["model", "variant", "train_flops_per_step"]).replace(2.0, 7.5)
    for suite in SUITES:
        folder = tmp_path / suite / "tables"
        write_table(folder / "claims.csv", pd.DataFrame(claims))
        write_table(folder / "nll.csv", likelihoods.assign(objective="nll"))
        write_table(folder / "fid.csv", pd.DataFrame(numbers).assign(objective="fid"))
        both = [compute.assign(objective=objective) for objective in ("nll", "fid")]
        write_table(folder / "compute.csv", pd.concat(both))
    rows = [line for line in with_means(page, tmp_path).splitlines() if "±" in line]
    nelbo, fid = (line.split(" | ", 1)[1] for line in rows[-2:])
    assert nelbo == (
        "3.000 ± 0.500 | 4.000 ± 0.500<br><sub>INDM: worse \\*</sub> | not run | 9.000 ± 0.250<br><sub>better</sub>"
        " | 1.000 ± 0.500<br><sub>INDM: undecided</sub> | × 2.5 |"
    )
    assert fid == (
        "3.00 ± 0.50 | 4.00 ± 0.50 | not run | 2.00 ± 0.50<br><sub>undecided</sub>"
        " | 1.00 ± 0.50<br><sub>INDM: no gain, FID 0.61 times as high</sub> | × 2.5 |"
    )


def test_weights_have_the_numbers_of_their_own_run(tmp_path: Path) -> None:
    made = [("train", "score_parameters", 1200), ("train", "flow_parameters", 34), ("nll", "nll", 2.5)]
    made.append(("fid", "fid", 0.25))
    rows = [(f"runs/{run}/{file}.json", name, value + run) for run in (0, 1) for file, name, value in made]
    table = pd.DataFrame(rows, columns=["source", "metric", "value"]).assign(se=0.125, suite="mine")
    table = table.reindex(columns=VALUE_COLUMNS)
    for name in ("mine/tables/values.csv", "mine/weights/1.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    table.to_csv(tmp_path / "mine/tables/values.csv", index=False)
    name = "[`1`](results/mine/weights/1.safetensors) | [`mine`](results/mine/README.md)"
    assert weights(tmp_path).splitlines()[2:] == [f"| {name} | 1,236 | 3.500 ± 0.125 | 1.250 ± 0.125 |"]
    table[:4].to_csv(tmp_path / "mine/tables/values.csv", index=False)
    with pytest.raises(ArtifactError, match="score_parameters, flow_parameters, nll, fid"):
        weights(tmp_path)


def test_the_worked_verdict_has_the_numbers_of_its_row() -> None:
    table = read_rows(REPOSITORY / "docs/results/digits-seeds/tables/claims.csv")
    row = table.query("id == 'better-nelbo' and objective == 'nll' and comparison == 'equal steps'").iloc[0]
    text = " ".join((REPOSITORY / "docs/claims.md").read_text().replace("−", "-").split())
    assert f"[{row['low']:.3f}, {row['high']:.3f}]" in text
    assert f"{row['effect']:.3f} bits/dim" in text


def shapes(svg: str) -> tuple[str, Any]:
    """The text of a drawing without its numbers, and its numbers: another processor may round the last digit otherwise."""
    number = re.compile(r"-?\d+\.\d+")
    # Names of shapes are hashes of them.
    return number.sub("", re.sub(r"[#\"][a-z][0-9a-f]{10}\b", "", svg)), np.array(number.findall(svg), dtype=float)


# They have most kinds of figures; the others take a minute.
FIGURES_OF = {"cifar10-1000", "digits-search"}
DRAWN = sorted(path.parent.name for path in (REPOSITORY / "docs/results").glob("*/figures"))


@pytest.mark.parametrize(
    "suite", [pytest.param(name, marks=[] if name in FIGURES_OF else pytest.mark.long) for name in DRAWN]
)
def test_published_figures_are_drawn_from_the_published_tables(suite: str) -> None:
    """On failure: draw them again, indm.report.figures.plot_figures, and say so beside them."""
    folder = REPOSITORY / "docs/results" / suite
    for name, svg in plot_figures(folder / "tables").items():
        published, drawn = shapes((folder / f"figures/{name}.svg").read_text()), shapes(svg.decode())
        assert published[0] == drawn[0], name
        np.testing.assert_allclose(drawn[1], published[1], atol=0.01, err_msg=name)


def test_readme_s_figures_are_the_same_from_run_to_run_and_have_no_clip_paths() -> None:
    """The names of clip paths are hashes of floats, which differ between processors."""
    published = REPOSITORY / "docs/results"
    drawn = draw_answers(published)
    assert drawn == draw_answers(published)
    for name, svg in drawn.items():
        assert b"clipPath" not in svg, name
        assert shapes((REPOSITORY / f"docs/pictures/{name}.svg").read_text())[0] == shapes(svg.decode())[0], name


# The suites without which there are no figures.
NEEDED = [suite for suites in PANELS.values() for suite in suites]


def test_both_lengths_share_a_figure_once_the_longer_suite_is_published(tmp_path: Path) -> None:
    short, longer = LENGTHS
    published = REPOSITORY / "docs/results"
    for suite, source in {**{suite: suite for suite in NEEDED}, longer: short}.items():
        (tmp_path / suite).symlink_to(published / source)
    drawn = draw_answers(tmp_path)
    assert [*drawn] == ["compute", "lengths", "cifar10", "gains"]
    assert b"clipPath" not in drawn["lengths"]


@pytest.mark.parametrize("missing", NEEDED)
def test_readme_has_no_figures_where_a_suite_is_not_published(missing: str, tmp_path: Path) -> None:
    for suite in {*NEEDED} - {missing}:
        (tmp_path / suite / "tables").mkdir(parents=True)
    assert draw_answers(tmp_path) == {}


LONGEST = ("cifar10-3000", "fashion-full", "fashion-long")


def step_times() -> list[float]:
    """Time of a step of INDM in those of DDPM++, by the table of docs/scaling.md."""
    text = (REPOSITORY / "docs/scaling.md").read_text()
    row = r"^\| (?:CIFAR-10|Fashion-MNIST) \| .* \(5ef1992e\) \| [\d.]+ \| ([\d.]+) \|"
    return [float(time) for time in re.findall(row, text, flags=re.MULTILINE)]


def costs(suite: str) -> list[float]:
    """FLOPs of a step of INDM in those of DDPM++, with the nll objective; size of the network in millions."""
    table = read_rows(REPOSITORY / f"docs/results/{suite}/tables/compute.csv").query(
        "objective == 'nll' and variant == ''"
    )
    flow, plain = (table[table["model"] == model].iloc[0] for model in ("indm", "ddpmpp"))
    ratio = float(flow["train_flops_per_step"] / plain["train_flops_per_step"])
    return [ratio, plain["score_parameters"] / 1e6]
