"""The command line: subjects, errors on one line, exit codes, and a stage's files."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from indm.cli import main
from indm.pipeline import SHOWN, STAGES
from indm.report.export import TITLES
from indm.stamps import job_stamp
from indm.store.files import file_sha256
from indm.store.manifest import Manifest, write_manifest
from indm.suite.content import suite_sha256
from indm.suite.load import expanded_path, expanded_text, load_suite
from tests.conftest import REPOSITORY

SMOKE = str(REPOSITORY / "params" / "smoke.yaml")
RUN = "digits-vp-indm-nll-s0"


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_every_stage_has_a_command_and_a_module() -> None:
    assert set(main.commands) >= set(STAGES)
    assert {path.stem for path in (REPOSITORY / "indm" / "stages").glob("*.py")} == {
        *STAGES,
        "__init__",
        "import_checkpoint",
    }


def test_every_table_that_is_shown_has_a_title() -> None:
    assert tuple(TITLES) == SHOWN


def test_python_m_indm() -> None:
    done = subprocess.run([sys.executable, "-m", "indm", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("indm, version ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["train", "--suite", SMOKE, "--run", "digits-vp"],
            ["no job of stage train for run 'digits-vp', expected one of: ", RUN],
        ),
        (
            ["prepare", "--suite", SMOKE, "--dataset", "digitz"],
            ["no job of stage prepare for dataset 'digitz', expected one of: digits"],
        ),
        (
            ["toy2d", "--suite", SMOKE, "--toy", "moonz"],
            ["no job of stage toy2d for toy 'moonz', expected one of: moons"],
        ),
        (["train", "--suite", "params/absent.yaml", "--run", RUN], ["params/absent.yaml: no such suite"]),
        (["train", "--suite", SMOKE, "--run", RUN], ["train.npy: missing; run the stage that writes it"]),
        (["table", "--suite", SMOKE], ["samples.json: missing; run the stage that writes it"]),
        (["compute", "--suite", SMOKE], ["train.json: missing; run the stage that writes it"]),
        (["claims", "--suite", SMOKE], ["values.csv: missing; run the stage that writes it"]),
        (["show"], ["digits/tables/fid.csv: missing; make it with: snakemake --cores all --config suite=digits"]),
    ],
)
def test_error_is_one_line_and_the_exit_code_is_not_zero(
    tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    done = call(*arguments, "--out", str(tmp_path))
    assert done.exit_code == 1
    assert done.output.count("\n") == 1
    for word in words:
        assert word in done.output
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
    for path, text in (
        (stamp, f"{job_stamp(load_suite(suite), 'prepare', 'digits')}\n"),
        (expanded, expanded_text(load_suite(suite))),
    ):
        done = call(*arguments)
        assert done.exit_code == 1
        assert done.output == (
            f"indm prepare: {path}: found what was so before an edit of {suite} or indm/; run dvc repro again\n"
        )
        path.write_text(text)
    assert call(*arguments).exit_code == 0


def test_the_limit_of_threads_is_set_before_numpy_is_imported() -> None:
    """NumPy's library reads it when it is imported."""
    code = (
        "import sys, indm.process; from indm.cli import main\n"
        "indm.process.limit_threads = lambda threads: print('numpy' in sys.modules, threads)\n"
        f"main(['claims', '--suite', {SMOKE!r}, '--out', 'nowhere'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False", "1"]


def test_validate_reads_the_claims_beside_a_suite(tmp_path: Path) -> None:
    (tmp_path / "smoke.yaml").write_text(Path(SMOKE).read_text())
    claims = (REPOSITORY / "params" / "claims.yaml").read_text()
    (tmp_path / "claims.yaml").write_text(claims.replace("direction: lower", "direction: down", 1))
    done = call("validate", "--suite", str(tmp_path / "smoke.yaml"))
    assert done.exit_code == 1
    assert "claims.yaml: claim smaller-gap, key direction: found 'down'; allowed: " in done.output


def write_tables(out: Path, suite: str, fid: float) -> None:
    """Write the tables of a suite, and copy them to where the suite made last has its copies."""
    tables = out / suite / "tables"
    tables.mkdir(parents=True)
    for name in TITLES:
        text = f"suite,model,statement,fid,fid_se\n{suite},indm,long,{fid},0.5\n"
        (tables / f"{name}.csv").write_text("suite,model\n" if name == "protocol" else text)
        shutil.copy(tables / f"{name}.csv", out / f"table_{name}.csv")
    outputs = {f"results/{suite}/tables/{path.name}": file_sha256(path) for path in tables.glob("*.csv")}
    write_manifest(tables / "manifest/table.json", Manifest("table", suite, "", {}, {}, outputs))


@pytest.mark.parametrize("arguments", [[], ["--suite", "digits"], ["--suite", "params/digits.yaml"]])
def test_show_prints_every_table_of_one_suite(tmp_path: Path, arguments: list[str]) -> None:
    """Whatever lies at results/table_*.csv: there may be copies of several suites there."""
    write_tables(tmp_path, "digits", fid=1.0)
    write_tables(tmp_path, "smoke", fid=2.0)
    shutil.copy(tmp_path / "digits/tables/fid.csv", tmp_path / "table_fid.csv")
    done = call("show", "--out", str(tmp_path), *arguments)
    assert done.exit_code == 0
    for name, title in TITLES.items():
        assert f"{tmp_path}/digits/tables/{name}.csv: {title}" in done.output
    assert done.output.count("1.000 ± 0.500") == len(TITLES) - 1
    assert "2.000 ± 0.500" not in done.output
    assert "The suite has none." in done.output


def test_show_refuses_tables_of_another_suite(tmp_path: Path) -> None:
    write_tables(tmp_path, "digits", fid=1.0)
    write_tables(tmp_path, "smoke", fid=2.0)
    for name in ("fid", "claims"):
        shutil.copy(tmp_path / f"smoke/tables/{name}.csv", tmp_path / f"digits/tables/{name}.csv")
    done = call("show", "--out", str(tmp_path))
    assert done.exit_code == 1
    folder = tmp_path / "digits/tables"
    assert done.output == (
        f"indm show: expected tables of suite digits, found {folder}/fid.csv of smoke; {folder}/claims.csv of smoke; make them"
        " again with: snakemake --cores all --config suite=digits --forcerun table compute claims\n"
    )


def test_show_refuses_tables_that_are_not_as_they_were_written(tmp_path: Path) -> None:
    write_tables(tmp_path, "digits", fid=1.0)
    path = tmp_path / "digits/tables/fid.csv"
    path.write_text(path.read_text().replace("1.0", "0.9"))
    done = call("show", "--out", str(tmp_path))
    assert done.exit_code == 1
    assert done.output.startswith(f"indm show: found {path} not as their stages wrote them; make them again with: ")


def test_show_names_the_suites_that_have_tables(tmp_path: Path) -> None:
    write_tables(tmp_path, "smoke", fid=2.0)
    done = call("show", "--out", str(tmp_path))
    assert done.exit_code == 1
    assert done.output.endswith("suite=digits; suites with tables: smoke (--suite)\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full, a disk that is always full")
@pytest.mark.parametrize("command", [["--help"], ["schema"], ["doctor", "--help"]])
def test_output_to_a_full_disk_is_one_line(command: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "indm", *command],
            cwd=REPOSITORY,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "indm: the output cannot be written: No space left on device\n"
