"""The command line: subjects, errors on one line, exit codes, and a stage's files."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from textwrap import fill
from types import SimpleNamespace
from unittest.mock import Mock

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from indm.bench.cli import SECTIONS, main
from indm.bench.pipeline.stages import STAGES, command_name, gathering
from indm.bench.pipeline.stamps import job_stamp
from indm.bench.suite.load import expanded_path, expanded_text, load_suite, suite_sha256
from indm.report.catalogue import CATALOGUE, SHOWN
from indm.report.export import effect_with_ends
from indm.report.names import arm, written
from indm.report.rows import read_rows, records
from indm.report.show import LABEL, VIEWS
from indm.store.files import file_sha256
from indm.store.manifest import Manifest, read_manifest, write_manifest
from tests.conftest import REPOSITORY

SMOKE = str(REPOSITORY / "params" / "smoke.yaml")
RUN = "digits-vp-indm-nll-s0"
PUBLISHED = REPOSITORY / "docs/results/digits/tables"


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_every_stage_has_a_command_and_a_module() -> None:
    assert set(main.commands) >= set(map(command_name, STAGES))
    assert {path.stem for path in (REPOSITORY / "indm" / "bench" / "stages").glob("*.py")} == {
        *map(gathering, STAGES),
        "__init__",
        "import_checkpoint",
    }


def test_python_m_indm() -> None:
    done = subprocess.run([sys.executable, "-m", "indm", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("indm, version ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["train", SMOKE, "--run", "digits-vp"],
            f"no job of stage train for run 'digits-vp', expected one of: .*{RUN}",
        ),
        (
            ["toy2d", SMOKE, "--toy", "moonz"],
            "no job of stage toy2d for toy 'moonz', expected one of: moons-tiny, steep",
        ),
        (["train", "params/absent.yaml", "--run", RUN], "params/absent.yaml: no such suite"),
        (["train", SMOKE, "--run", RUN], "train.npy: missing; run the stage that writes it"),
        (["claims", SMOKE], "values.csv: missing; run the stage that writes it"),
        (["show", "digits"], "fid.csv: missing; .* indm run digits"),
    ],
)
def test_error_is_one_line_and_the_exit_code_is_not_zero(tmp_path: Path, arguments: list[str], words: str) -> None:
    command, suite, *options = arguments
    done = call(command, "--suite", suite, *options, "--out", str(tmp_path))
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert re.search(words, done.output), done.output
    assert list(tmp_path.iterdir()) == []


def test_mistake_in_a_suite_stops_every_stage_before_it_starts(tmp_path: Path) -> None:
    suite = tmp_path / "smoke.yaml"
    suite.write_text(Path(SMOKE).read_text().replace("steps: 20", "steps: -20"))
    done = call("train", "--suite", str(suite), "--run", RUN, "--out", str(tmp_path / "out"))
    assert done.exit_code == 1
    assert "suite smoke, key train.steps: found -20; allowed: integer, >= 1" in done.output
    assert not (tmp_path / "out").exists()


def test_prepare_writes_checked_files_and_provenance(tmp_path: Path) -> None:
    assert call("prepare", "--suite", SMOKE, "--dataset", "digits", "--out", str(tmp_path)).exit_code == 0
    folder = tmp_path / "smoke" / "data" / "digits"
    names = {"train.npy", "valid.npy", "test.npy", "labels.json", "dataset.json", "manifest", "provenance"}
    assert {path.name for path in folder.iterdir()} == names
    description = json.loads((folder / "dataset.json").read_text())
    assert description["counts"] == {"train": 1257, "valid": 180, "test": 360}
    assert description["levels"] == 17
    assert set(description["sha256"]) == {"train", "valid", "test"}
    record = json.loads((folder / "provenance" / "prepare.json").read_text())
    assert record["seconds"] > 0
    assert (record["suite"], record["device"], record["seed"]) == ("smoke", "cpu", 0)
    assert record["suite_sha256"] == suite_sha256(load_suite(Path(SMOKE)))
    assert record["code_stamp"] == job_stamp(load_suite(Path(SMOKE)), "prepare", "digits")


def test_a_stage_that_dvc_runs_on_what_was_edited_since_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = tmp_path / "params/smoke.yaml"
    stamp, expanded = tmp_path / "smoke/code/prepare/digits", expanded_path(suite)
    arguments = ("prepare", "--suite", str(suite), "--dataset", "digits", "--out", str(tmp_path))
    for path, text in ((suite, Path(SMOKE).read_text()), (stamp, "other\n"), (expanded, "{}\n")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    # Left behind by DVC, they do not concern another engine.
    assert call(*arguments).exit_code == 0
    monkeypatch.setenv("DVC_STAGE", "prepare@digits")
    for path, what, text in (
        (expanded, "suite smoke", expanded_text(load_suite(suite))),
        (stamp, "indm/", f"{job_stamp(load_suite(suite), 'prepare', 'digits')}\n"),
    ):
        done = call(*arguments)
        assert done.exit_code == 1
        assert done.output == f"indm prepare: {what} was edited after DVC had started; run it again\n"
        path.write_text(text)
    assert call(*arguments).exit_code == 0


def test_the_environment_is_set_before_numpy_and_torch_are_imported() -> None:
    """They read it when they are imported."""
    code = (
        "import sys, indm.process; from indm.bench.cli import main\n"
        "indm.process.set_environment = lambda threads: print(*(name in sys.modules for name in ('numpy', 'torch')), threads)\n"
        f"main(['claims', '--suite', {SMOKE!r}, '--out', 'nowhere'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False", "False", "1"]


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        (
            "claims.yaml",
            "family: primary",
            "family: main",
            "key claims.better-nelbo-known.family: found 'main'; allowed: ",
        ),
        ("published.csv", ",2.54,", ",nan,", "line 3, column value: found 'nan', expected a number in decimals"),
        ("registrations.yaml", "suites:", "suits:", "key suits: unknown key"),
    ],
)
def test_validate_reads_what_lies_beside_a_suite(tmp_path: Path, name: str, old: str, new: str, words: str) -> None:
    for file in ("smoke.yaml", "claims.yaml", "registrations.yaml", "published.csv"):
        shutil.copy(REPOSITORY / "params" / file, tmp_path)
    (tmp_path / name).write_text((tmp_path / name).read_text().replace(old, new, 1))
    done = call("validate", "--suite", str(tmp_path / "smoke.yaml"))
    assert done.exit_code == 1
    assert f"{name}: {words}" in done.output


def write_tables(out: Path, suite: str, fid: float) -> None:
    """Write the tables of a suite, those published with one FID, and copy them to where the suite made last has its copies."""
    tables = out / suite / "tables"
    tables.mkdir(parents=True)
    for name in SHOWN:
        path = PUBLISHED / f"{name}.csv"
        # A table that is newer than the published results has no rows.
        table = pd.read_csv(path).assign(suite=suite) if path.is_file() else pd.DataFrame(columns=["suite"])
        if name == "fid":
            table = table.assign(fid=fid, fid_se=0.5)
        (table.iloc[:0] if name == "protocol" else table).to_csv(tables / f"{name}.csv", index=False)
        shutil.copy(tables / f"{name}.csv", out / f"table_{name}.csv")
    write_manifest_of(out, suite)


def test_show_says_which_steps_do_not_fit_and_keeps_the_last(tmp_path: Path) -> None:
    write_tables(tmp_path, "digits", fid=1.0)
    path = tmp_path / "digits/tables/learning_curve.csv"
    table = pd.read_csv(path)
    first = table[table["step"] == table["step"].min()]
    steps = [1000 * number for number in range(1, 13)]
    pd.concat([first.assign(step=step) for step in steps]).to_csv(path, index=False)
    write_manifest_of(tmp_path, "digits")
    text = call("show", "learning_curve", "--out", str(tmp_path)).output
    (left_out,) = re.findall(r"^Left out to save width: ([^.]+)\.", text, flags=re.MULTILINE)
    missing = [int(word) for word in re.findall(r"\d+", left_out)]
    assert missing
    assert missing == steps[: len(missing)]
    assert all(f"step {step}" in text for step in steps[len(missing) :])


def write_manifest_of(out: Path, suite: str) -> None:
    tables = out / suite / "tables"
    outputs = {f"results/{suite}/tables/{path.name}": file_sha256(path) for path in tables.glob("*.csv")}
    write_manifest(tables / "manifest/table.json", Manifest("table", suite, "", {}, {}, outputs))


@pytest.mark.parametrize("arguments", [[], ["digits"], ["--suite", "params/digits.yaml"]])
def test_show_prints_every_table_of_one_suite(tmp_path: Path, arguments: list[str]) -> None:
    """Whatever lies at results/table_*.csv: there may be copies of several suites there."""
    write_tables(tmp_path, "digits", fid=1.0)
    write_tables(tmp_path, "smoke", fid=2.0)
    shutil.copy(tmp_path / "digits/tables/fid.csv", tmp_path / "table_fid.csv")
    done = call("show", "--all", "--out", str(tmp_path), *arguments)
    assert done.exit_code == 0
    # Published, digits has neither a search of hyper-parameters nor a description of flows.
    absent = {"protocol"} | {name for name in SHOWN if pd.read_csv(PUBLISHED / f"{name}.csv").empty}
    for name in SHOWN:
        assert (f"{name}: {CATALOGUE[name].title}\n" in done.output) == (name not in absent)
        assert (f"{name} (0 rows)" in done.output) == (name in absent)
    assert done.output.count("1.000 ± 0.500") == len(pd.read_csv(PUBLISHED / "fid.csv"))
    assert "2.000 ± 0.500" not in done.output
    shown = re.findall(r"^(\w+): ", call("show", "--out", str(tmp_path), *arguments).output, flags=re.MULTILINE)
    assert shown[:4] == ["nll", "fid", "toy2d", "claims"]
    assert "compute" not in shown


def test_show_has_the_verdict_of_each_primary_row_below_the_main_numbers(tmp_path: Path) -> None:
    write_tables(tmp_path, "digits", fid=1.0)
    text = call("show", "--out", str(tmp_path)).output.partition("claims: ")[2]
    rows = read_rows(tmp_path / "digits/tables/claims.csv").query("family == 'primary' and effect.notna()")
    found = re.findall(r"(better|worse|undecided|no gain), (-?\d+\.\d{3})(?= |$)", text, flags=re.MULTILINE)
    expected = [(written("verdict", row["verdict"]), f"{row['effect']:.3f}") for row in records(rows)]
    assert sorted(found) == sorted(expected)
    assert max(map(len, text.splitlines())) <= 100


def test_show_fits_a_terminal_marks_the_best_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    write_tables(tmp_path, "digits", fid=1.0)
    text = call("show", "--all", "--out", str(tmp_path)).output
    assert max(map(len, text.splitlines())) <= 100
    (nll,) = re.findall(r"^nll: .+?\n\n(?=ablation)", text, flags=re.MULTILINE | re.DOTALL)
    rows = nll.partition("digits, VP, nll")[2].splitlines()
    # The lowest NLL and NELBO of the group, with both decoders; a gap has no better side.
    (best,) = [line for line in rows if "★" in line]
    assert best.startswith(fill(arm("ddpmpp", "same-compute"), LABEL).partition("\n")[0])
    assert best.count("★") == 4
    without = int(pd.read_csv(PUBLISHED / "claims.csv")["effect"].isna().sum())
    assert f"Left out: {without} rows without a number here." in text


@pytest.mark.parametrize("name", VIEWS)
def test_rows_of_a_group_have_names_of_their_own(name: str) -> None:
    """A best number among rows that look the same would be of nobody knows which."""
    view, found = VIEWS[name], 0
    paths = sorted((REPOSITORY / "docs/results").glob(f"*/tables/{name}.csv"))
    for path in paths:
        table = read_rows(path)
        table = table.dropna(subset=view.dropped) if view.dropped else table
        keys = [*view.group, *view.label, *([view.across] if view.across else [])]
        if set(keys) <= set(table):
            found += 1
            assert not table.duplicated(keys).any(), path
    assert found or not paths


def test_show_of_claims_says_what_they_claim_and_nothing_of_other_tables(tmp_path: Path) -> None:
    write_tables(tmp_path, "digits", fid=1.0)
    text = call("show", "claims", "--out", str(tmp_path)).output
    row = records(read_rows(tmp_path / "digits/tables/claims.csv").query("id == 'better-nll' and n > 0"))[0]
    assert re.search(rf"equal steps, DDPM\+\+ +{row['verdict']} +{re.escape(effect_with_ends(row))}", text)
    assert "better-nll (exploratory): " in text
    assert "1.000 ± 0.500" not in text
    assert "fid, nll" in text
    assert "The suite has no such rows." in call("show", "protocol", "--out", str(tmp_path)).output


def test_a_suite_is_a_word_or_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    for arguments in (("digits-search",), ("--suite", "digits-search"), ("-s", "params/digits-search.yaml")):
        assert call("validate", *arguments).exit_code == 0
    assert "Missing argument 'SUITE'" in call("validate").output
    assert "found 'smoke' and --suite, expected one of them" in call("validate", "smoke", "--suite", "digits").output
    for suite in ("nope", "params/nope.yaml"):
        assert "params/nope.yaml: no such suite" in call("validate", "--suite", suite).output


def test_every_command_and_stage_takes_a_suite_as_its_first_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    for command in ("validate", "status", "doctor", "keep", "restore", "table"):
        found = call(command, "digts").output
        assert "params/digts.yaml: no such suite; did you mean digits? suites in params/: " in found
    for stage in ("train", "nll"):
        assert (
            f"params/digits.yaml: found no job of stage {stage} for run"
            in call(stage, "digits", "--run", "absent").output
        )
        assert call(stage, "digits", "absent").output == call(stage, "digits", "--run", "absent").output
        assert "Missing argument 'RUN'." in call(stage, "digits").output
    assert "did you mean digits?" in call("show", "digts").output


def test_why_takes_a_suite_a_stage_or_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(REPOSITORY)
    of_both = call("why", "digits-search", "tune", "--out", str(tmp_path)).output
    assert of_both == call("why", "tune", "-s", "digits-search", "--out", str(tmp_path)).output
    assert of_both.splitlines()[-1].startswith("tune ")
    assert "found 'digits tune nll'" in call("why", "digits", "tune", "nll").output


def make_folder(folder: Path) -> None:
    """Write what ``indm run`` looks for."""
    (folder / "Snakefile").touch()
    (folder / "params").mkdir()
    for suite in ("digits", "smoke"):
        (folder / f"params/{suite}.yaml").touch()


def test_run_calls_snakemake_and_prints_where_the_report_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "indm init" in call("run").output
    make_folder(tmp_path)
    codes, calls = [0, 1], []

    def started(command: list[str]) -> SimpleNamespace:
        calls.append(command)
        return SimpleNamespace(wait=lambda: codes[len(calls) - 1])

    monkeypatch.setattr(subprocess, "Popen", started)
    done = call("run", "smoke", "--cores", "3")
    assert (done.exit_code, done.output) == (0, f"file://{tmp_path}/reports/smoke/index.html\n")
    assert calls[0][1:] == ["-m", "indm.bench.watching.engine", "--cores", "3", "--config", "suite=smoke"]
    assert call("run").exit_code == 1


def test_ctrl_c_waits_for_snakemake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise its lock and unfinished files would be left behind."""
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path)
    wait = Mock(side_effect=[KeyboardInterrupt, 1])
    monkeypatch.setattr(subprocess, "Popen", lambda _: SimpleNamespace(wait=wait))
    done = call("run", "smoke")
    assert (done.exit_code, wait.call_count) == (1, 2)
    assert "file://" not in done.output


@pytest.mark.parametrize("name", ["mine/smoke.yaml", "mine/smoke", "smoke.yaml", "params/smoke"])
@pytest.mark.parametrize("command", ["run", "show"])
def test_a_suite_elsewhere_does_not_pass_for_the_one_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, name: str
) -> None:
    """Otherwise its name in params/ would be run, and the results of that one shown."""
    monkeypatch.chdir(tmp_path)
    Path("Snakefile").touch()
    for path in (Path("params/smoke.yaml"), Path("mine/smoke.yaml"), Path("smoke.yaml")):
        path.parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / "params/smoke.yaml", path)
    started: list[list[str]] = []

    def start(words: list[str]) -> SimpleNamespace:
        started.append(words)
        return SimpleNamespace(wait=lambda: 0)

    monkeypatch.setattr(subprocess, "Popen", start)
    done = call(command, "--suite", name)
    assert (done.exit_code, started) == (1, [])
    assert f"{name}: found a file that is no params/<suite>.yaml" in done.output
    assert command == "show" or call("run", "--suite", str(tmp_path / "params/smoke.yaml")).exit_code == 0


def test_help_lists_every_command_but_the_stages_which_have_a_list_of_their_own() -> None:
    listed, stages = [name for names in SECTIONS.values() for name in names], [*map(command_name, STAGES)]
    assert sorted([*listed, *stages]) == sorted(main.commands)
    text = call("--help").output
    places = [text.index(f"\n  {name} ") for name in listed]
    assert places == sorted(places)
    assert [line.split()[0] for line in call("stages").output.splitlines()] == stages


@pytest.mark.parametrize(
    ("word", "lead"),
    [
        ("chek", "; did you mean indm validate?"),
        ("list", "; did you mean indm suites?"),
        ("results", "; did you mean indm show?"),
        ("help", "; did you mean indm --help?"),
        ("reprot", "; did you mean indm report?"),
        ("flaw", "; did you mean indm flow?"),
        ("zebra", ""),
    ],
)
def test_a_word_that_is_no_command_leads_on_or_nowhere(word: str, lead: str) -> None:
    done = call(word)
    assert (done.exit_code, done.output.splitlines()[-1]) == (2, f"Error: No such command {word!r}{lead}")


def test_suites_are_listed_with_state_purpose_and_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    write_tables(tmp_path, "smoke", fid=2.0)
    text = " ".join(call("suites", "--out", str(tmp_path)).output.split())
    for path in (REPOSITORY / "params").glob("*-seeds.yaml"):
        assert f" {path.stem} " in text
    assert re.search(r" digits-seeds published the evidence on digits, .* core", text)
    assert re.search(r" smoke run here ", text)
    assert re.search(r" paper not run ", text)
    monkeypatch.chdir(tmp_path)
    assert "found no suites in params/; run from the top of a checkout" in call("suites").output


def test_run_of_a_suite_that_is_not_there_says_which_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(subprocess, "Popen", Mock(side_effect=AssertionError("no engine is started")))
    assert "params/digit.yaml: no such suite; did you mean digits?" in call("run", "digit").output


def test_published_results_are_compared_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    found = Mock(side_effect=MemoryError())
    monkeypatch.setattr("indm.report.agreement.agreement", found)
    for name in ("digits", "docs/results/digits"):
        call("compare", name)
        assert found.call_args.args[0] == Path("docs/results/digits")


def test_the_summary_of_a_command_is_a_sentence_that_fits_its_line() -> None:
    text = call("--help").output + call("stages").output
    for command in main.commands.values():
        summary = command.get_short_help_str(45)
        assert re.search(r"[^.]\.$", summary), summary
        assert f" {summary}\n" in text


def test_show_reads_published_tables_and_writes_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert "--published" in call("show", "digits-seeds", "--out", str(tmp_path)).output
    found = json.loads(call("show", "digits-seeds", "nll", "--published", "--json").output)
    table = read_rows(REPOSITORY / "docs/results/digits-seeds/tables/nll.csv")
    assert [row["nelbo"] for row in found["nll"]] == table["nelbo"].tolist()
    found = json.loads(call("show", "digits-seeds", "claims", "--published", "--json").output)
    assert any(row["low"] is None for row in found["claims"])
    monkeypatch.chdir(tmp_path)
    shutil.copytree(REPOSITORY / "docs/results/digits-seeds", "docs/results/digits-seeds")
    shutil.copytree(REPOSITORY / "params", "params")
    path = tmp_path / "docs/results/digits-seeds/tables/nll.csv"
    path.write_text(path.read_text().replace("1.9", "1.8"))
    assert "tables/nll.csv: found SHA-256" in call("show", "digits-seeds", "--published").output


def test_show_refuses_tables_of_another_suite(tmp_path: Path) -> None:
    write_tables(tmp_path, "digits", fid=1.0)
    write_tables(tmp_path, "smoke", fid=2.0)
    for name in ("fid", "claims"):
        shutil.copy(tmp_path / f"smoke/tables/{name}.csv", tmp_path / f"digits/tables/{name}.csv")
    done = call("show", "--out", str(tmp_path))
    assert done.exit_code == 1
    folder = tmp_path / "digits/tables"
    assert done.output == (
        f"indm show: {folder}/fid.csv: found rows of suite smoke, expected digits; make them again with: snakemake --cores all"
        " --config suite=digits --forcerun table compute claims\n"
    )


def test_show_refuses_tables_that_are_not_as_they_were_written(tmp_path: Path) -> None:
    write_tables(tmp_path, "digits", fid=1.0)
    path = tmp_path / "digits/tables/fid.csv"
    path.write_text(path.read_text().replace("1.0", "0.9"))
    done = call("show", "--out", str(tmp_path))
    assert done.exit_code == 1
    assert done.output.startswith(f"indm show: found {path} not as their stages wrote them; make them again with: ")
    path.write_text("no table")
    assert call("show", "--out", str(tmp_path)).output.startswith(f"indm show: {path}: ")


@pytest.mark.parametrize(("asked", "hinted"), [((), True), (("claims",), True), (("fid",), False)])
def test_show_says_that_claims_were_edited_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: tuple[str, ...], hinted: bool
) -> None:
    write_tables(tmp_path / "results", "digits", fid=1.0)
    monkeypatch.chdir(tmp_path)
    claims = Path("params/claims.yaml")
    claims.parent.mkdir()
    claims.write_text("as graded")
    manifest = Path("results/digits/tables/manifest/table.json")
    found, inputs = read_manifest(manifest), {str(claims): file_sha256(claims), "results/digits/tables/fid.csv": ""}
    of_claims = {name: sha256 for name, sha256 in found.outputs.items() if name.endswith("/claims.csv")}
    others = {name: sha256 for name, sha256 in found.outputs.items() if name not in of_claims}
    write_manifest(manifest, replace(found, outputs=others))
    write_manifest(manifest.with_name("claims.json"), replace(found, stage="claims", inputs=inputs, outputs=of_claims))
    assert "edited" not in call("show", *asked).output
    claims.write_text("as edited")
    done = call("show", *asked)
    assert done.exit_code == 0
    hint = "params/claims.yaml was edited after these tables were made; make them again with: snakemake --cores all"
    assert (hint in " ".join(done.output.split())) is hinted


VARIABLES = {
    "WORLD_SIZE=2": "found WORLD_SIZE=2 without RANK, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_PORT, MASTER_ADDR, expected all",
    "WORLD_SIZE=many": "found WORLD_SIZE=many, expected a whole number, as torchrun sets it; unset it",
}


@pytest.mark.parametrize("setting", VARIABLES)
def test_half_of_what_torchrun_says_is_one_line(setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*setting.split("="))
    done = call("prepare", "--suite", SMOKE, "--dataset", "digits", "--out", str(tmp_path))
    assert done.exit_code == 1
    assert done.output.startswith(f"indm prepare: environment: {VARIABLES[setting]}")
    assert done.output.count("\n") == 1


def test_a_rank_that_something_left_behind_means_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process alone is the first: without its manifest, its results would be none."""
    monkeypatch.setenv("RANK", "1")
    assert call("prepare", "--suite", SMOKE, "--dataset", "digits", "--out", str(tmp_path)).exit_code == 0
    assert (tmp_path / "smoke/data/digits/manifest/prepare.json").is_file()


RELEASED = ["import-checkpoint", "--suite", SMOKE, "--run", RUN, "--config", "config.json", "--score", "score.pth"]
OF_ALLOCATOR = RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 byte")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "found too little memory, expected enough for a batch and networks; lower"),
        (OF_ALLOCATOR, "found too little memory, expected enough for a batch and networks; lower"),
        (PermissionError(13, "Permission denied", "results/x"), "results/x: Permission denied; expected a path"),
    ],
)
def test_every_command_says_in_one_line_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    """Compare exits as diff does; what is no lack is an error of the program."""
    for place in ("indm.bench.pipeline.runner.run_stage", "indm.report.agreement.agreement"):
        monkeypatch.setattr(place, Mock(side_effect=error))
    trained = ["train", "--suite", SMOKE, "--run", RUN]
    for arguments, code in ((trained, 1), (RELEASED, 1), (["compare", "docs/results/digits"], 2)):
        done = call(*arguments)
        assert (done.exit_code, done.output.count("\n")) == (code, 1)
        assert done.output.startswith(f"indm {arguments[0]}: {words}")
    monkeypatch.setattr("indm.bench.pipeline.runner.run_stage", Mock(side_effect=RuntimeError("another")))
    assert isinstance(call(*trained).exception, RuntimeError)


def test_output_in_a_locale_that_lacks_a_sign_loses_nothing(tmp_path: Path) -> None:
    write_tables(tmp_path, "digits", fid=1.0)
    plain = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "indm", "show", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, env=plain, capture_output=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")
    # As the terminal would have to be told, or spelled out.
    assert any(sign in done.stdout for sign in ("1.000 ± 0.500".encode(), rb"1.000 \xb1 0.500"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full, a disk that is always full")
@pytest.mark.parametrize(
    ("command", "name"), [(["--help"], "indm"), (["schema"], "indm schema"), (["status", "--watch"], "indm status")]
)
def test_output_to_a_full_disk_is_one_line(command: list[str], name: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "indm", *command],
            cwd=REPOSITORY,
            # A buffer is written once more when Python ends.
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr == f"{name}: the output cannot be written: No space left on device\n"


def test_watching_ends_where_nobody_reads_any_more(tmp_path: Path) -> None:
    """As in `indm status --watch | head -1`."""
    command = [sys.executable, "-m", "indm", "status", "--watch", "--out", str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        try:
            watching.stdout.close()
            assert watching.wait(timeout=60) == 1
            assert watching.stderr.read() == b""
        finally:
            watching.kill()


def test_show_says_which_suites_there_are(tmp_path: Path) -> None:
    """Rather than how to run one that is not there; on one line, whatever its name; and which of them have tables."""
    done = call("show", "fids", "--out", str(tmp_path))
    assert (done.exit_code, "found 'fids'" in done.output) == (2, True)
    write_tables(tmp_path, "smoke", fid=2.0)
    done = call("show", "--out", str(tmp_path))
    assert done.output.endswith("indm run digits; suites with tables: smoke (--suite)\n")
    for name, shown in (("nope", "nope"), ("a\nb", "a\\nb")):
        done = CliRunner().invoke(main, ["show", "--suite", name, "--out", str(tmp_path)])
        assert done.exit_code == 1
        assert done.output.startswith(
            f"indm show: params/{shown}.yaml: no such suite; suites in params/: celeba64-6000, cifar10-"
        )
        assert done.output.count("\n") == 1
