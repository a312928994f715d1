"""What ``indm why`` says of jobs that would run again, for each kind of cause."""

import json
import shutil
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner

from indm.bench.cli import main
from indm.bench.pipeline import code
from indm.bench.pipeline.input_check import InputCheck
from indm.bench.pipeline.jobs import IMPORTED, Job
from indm.bench.pipeline.stages import STAGES
from indm.bench.suite.load import load_suite
from indm.bench.suite.schema.suite import Suite
from tests.conftest import FROZEN, REPOSITORY
from tests.finished import do

RUN = "digits-vp-indm-fid-s0"
FIRST = "digits-ve-ddpmpp-fid-s0"
OBJECTIVES = "indm/diffusion/objectives.py"
FOLDER = Path(f"results/frozen/runs/{RUN}")
TRAINED = FOLDER / "manifest/train.json"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which all jobs of a suite are done."""
    root = tmp_path_factory.mktemp("finished")
    for folder in ("indm", "params"):
        shutil.copytree(REPOSITORY / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "params/frozen.yaml").write_text(FROZEN.read_text().replace("seeds: [0, 1, 2]", "seeds: [0]"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name, stage in STAGES.items():
            for subject in stage.subjects(suite()):
                do(suite(), Path(), Job(name, subject))
    return root


@pytest.fixture(autouse=True)
def _checkout(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in a copy, and take its sources for those of the package."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(code, "ROOT", tmp_path)
    yield
    code.sources.cache_clear()


def suite() -> Suite:
    return load_suite(Path("params/frozen.yaml"))


def why(*arguments: str) -> list[str]:
    """Return the first line of the answer without the suite, and the other lines."""
    code.sources.cache_clear()
    done = CliRunner().invoke(main, ["why", "--suite", "frozen", *arguments])
    assert done.exit_code == 0, done.output
    return done.output.removeprefix("frozen").splitlines()


def causes(stage: str, *arguments: str) -> list[str]:
    """Return the causes of a job of a stage."""
    return [line.partition(": ")[2] for line in why(stage, *arguments)[1:] if line.startswith(f"{stage} ")]


def replace(file: str | Path, old: str, new: str) -> None:
    text = Path(file).read_text()
    assert old in text
    Path(file).write_text(text.replace(old, new))


def append(file: str, text: str) -> None:
    Path(file).write_text(Path(file).read_text() + text)


def edit_manifest(**values: object) -> None:
    """Replace entries of a manifest; to a dictionary that is not empty, add."""
    content = json.loads(TRAINED.read_text())
    for key, value in values.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) and value else value
    TRAINED.write_text(json.dumps(content))


def test_an_answer_names_the_file_and_the_key_on_a_line_for_each_cause_of_a_stage() -> None:
    append(OBJECTIVES, "\n\nADDED = 1\n")
    replace("params/frozen.yaml", "kid_subsets: 100", "kid_subsets: 50")
    append("params/published.csv", "\n")
    found, key = f"{OBJECTIVES} changed", "fid.kid_subsets: 100 → 50"
    assert why() == [
        ": 44 of 45 jobs would run",
        f"reference digits: {key}",
        f"train {FIRST} and 6 more: {found}",
        f"sample {FIRST} and 6 more: {found}",
        f"fid {FIRST} and 6 more: {key}",
        f"nll {FIRST} and 6 more: {found}",
        f"curve digits-vp-ddpmpp-nll-s0 and 2 more: {found}",
        f"sweep {FIRST} and 3 more: {found}",
        f"sweep {FIRST} and 3 more: {key}",
        f"protocol digits: {found}",
        f"protocol digits: {key}",
        f"toy2d moons-short and 1 more: {found}",
        "table: input params/published.csv changed after it was read",
        "compute: follows train, sample",
        "claims: input params/published.csv changed after it was read",
        "figure: follows table, compute, claims, toy2d",
        f"report: {key}",
    ]


def test_nothing_to_do_is_one_line() -> None:
    assert why() == [": up to date (45 jobs checked)"]
    assert why("prepare", "--dataset", "digits") == [", prepare digits: up to date (1 job checked)"]


def test_the_chain_of_a_job_begins_with_the_root_cause() -> None:
    append("indm/training/losses.py", "\n\nADDED = 1\n")
    assert why("fid", "--run", RUN) == [
        f", fid {RUN}: 3 of 5 jobs would run",
        f"train {RUN}: indm/training/losses.py changed",
        f"sample {RUN}: follows train",
        f"fid {RUN}: follows sample",
    ]


def import_new() -> list[str]:
    replace(OBJECTIVES, "\nfrom torch import Tensor\n", "\nfrom torch import Tensor\n\nimport indm.diffusion.other\n")
    Path("indm/diffusion/other.py").write_text("OTHER = 1\n")
    return [f"{OBJECTIVES} changed", "indm/diffusion/other.py counts now"]


def rename_and_edit() -> list[str]:
    """The renamed module itself is the same."""
    for path in Path("indm").rglob("*.py"):
        path.write_text(path.read_text().replace("indm.diffusion.objectives", "indm.diffusion.goals"))
    Path(OBJECTIVES).rename("indm/diffusion/goals.py")
    append("indm/training/losses.py", "\n\nADDED = 1\n")
    return ["indm/training/losses.py changed"]


def lose() -> list[str]:
    edit_manifest(stamp="another", modules={"indm.diffusion.lost": "0123456789"})
    return ["indm/diffusion/lost.py no longer counts"]


def edit_values() -> list[str]:
    edit_manifest(stamp="another")
    return ["derived values, formats or imports changed"]


def edit_key() -> list[str]:
    replace("params/frozen.yaml", "  steps: 200\n", "  steps: 300\n")
    return ["train.steps: 200 → 300"]


def edit_dataset_by_hand() -> list[str]:
    do(suite(), Path(), Job("prepare", "digits"), "other content of")
    return [f"input {file} of prepare changed after it was read" for file in ("train.npy", "dataset.json")]


def read_others() -> list[str]:
    content = json.loads(TRAINED.read_text())
    files = content["inputs"]
    files["results/frozen/data/digits/older.npy"] = files.pop("results/frozen/data/digits/train.npy")
    TRAINED.write_text(json.dumps(content))
    return ["input train.npy of prepare is read now", "input older.npy is not read any more"]


def damage() -> list[str]:
    path = FOLDER / "checkpoint.safetensors"
    found, expected = sha256(b"flipped").hexdigest()[:12], sha256(path.read_bytes()).hexdigest()[:12]
    path.write_bytes(b"flipped")
    return [f"{path}: found SHA-256 {found}, expected {expected} by {TRAINED}: damaged, or another file; delete it"]


def remove_output() -> list[str]:
    (FOLDER / "checkpoint.safetensors").unlink()
    return ["missing: checkpoint.safetensors"]


def remove_manifest() -> list[str]:
    TRAINED.unlink()
    return ["missing: manifest/train.json, without which the origin of its files is unknown"]


def remove_all() -> list[str]:
    shutil.rmtree(FOLDER)
    return ["not made yet"]


def forget_modules() -> list[str]:
    edit_manifest(stamp="", modules={})
    return ["made by code that is not recorded: its manifest lists no modules"]


@pytest.mark.parametrize(
    "edit",
    [
        import_new,
        rename_and_edit,
        lose,
        edit_values,
        edit_key,
        edit_dataset_by_hand,
        read_others,
        damage,
        remove_output,
        remove_manifest,
        remove_all,
        forget_modules,
    ],
)
def test_causes(edit: Callable[[], list[str]]) -> None:
    expected = edit()
    assert causes("train", "--run", RUN) == expected


def test_restored_results_are_done_for_the_code_by_which_they_were_restored() -> None:
    now = json.loads(TRAINED.read_text())["stamp"]
    edit_values()
    replace(FOLDER / "provenance/train.json", '"seconds"', f'"restored_for": "{now}", "seconds"')
    assert causes("train", "--run", RUN) == []
    # A module that counted by the rule of that day is no cause beside one that was edited since.
    edit_manifest(modules=json.loads(TRAINED.read_text())["modules"] | {"indm.errors": "0123456789"})
    append("indm/training/loop.py", "\n\nADDED = 1\n")
    assert causes("train", "--run", RUN)[:1] == ["indm/training/loop.py changed"]
    assert "indm/errors.py no longer counts" not in causes("train", "--run", RUN)


def test_files_beside_a_module() -> None:
    append("indm/report/page/templates/style.css", "\n")
    assert "report: indm/report/page/templates/style.css changed" in why()


def test_a_key_that_chooses_another_member_says_so_without_its_modules() -> None:
    run = "digits-vp-ddpmpp-nll-s0"
    key = 'model: ddpmpp, variant: "", objective: nll, seeds: [0], train: {'
    replace("params/frozen.yaml", key, f"{key}latent: {{learned: affine}}")
    # A control differs from its plain model in one thing.
    replace("params/frozen.yaml", "{standardise: true}", "{standardise: true, learned: affine}")
    assert causes("train", "--run", run) == ['train.latent.learned: null → "affine"']
    assert causes("nll", "--run", run) == ["the suite chooses indm/flows/registered/affine.py now"]


def test_an_imported_checkpoint_is_of_the_code_that_imports() -> None:
    job = Job("train", RUN)
    checks = InputCheck(suite(), Path("results"), Path("reports"))
    checks.record(job, checks.check(job, IMPORTED), "import_checkpoint")
    assert causes("train", "--run", RUN) == []
    append("indm/bench/stages/import_checkpoint.py", "\n\nADDED = 1\n")
    assert causes("train", "--run", RUN) == ["indm/bench/stages/import_checkpoint.py changed"]


def test_what_is_missing_is_made_where_it_is_read() -> None:
    """As Snakemake does it, so that results can be restored without checkpoints."""
    remove_output()
    assert why() == [": up to date (45 jobs checked)"]
    replace("params/frozen.yaml", "  time_draws: 10\n", "  time_draws: 20\n")
    # The others read the new checkpoint.
    assert {f"train {RUN}: missing: checkpoint.safetensors", f"sample {RUN}: follows train"} < set(why())


def test_a_deleted_figure_is_not_missed_and_a_deleted_folder_of_figures_is() -> None:
    """As by Snakemake, for which a folder is one file."""
    (figure,) = Path("reports/frozen/figures").iterdir()
    figure.unlink()
    assert why() == [": up to date (45 jobs checked)"]
    figure.parent.rmdir()
    assert why()[1:] == ["figure: missing: figures", "report: follows figure"]


def test_a_new_seed_is_not_made_yet_and_the_tables_read_it() -> None:
    replace("params/frozen.yaml", "objective: nll, seeds: [0]", "objective: nll, seeds: [0, 1]")
    found = why()
    assert "nll digits-vp-ddpmpp-nll-s1 and 2 more: not made yet" in found
    assert "table: input nll.json of nll is read now" in found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trains"], "found no stage 'trains', expected one of: prepare, reference, train, "),
        (["--run", "x"], "found no run 'x', expected one of: digits-ve-ddpmpp-fid-s0, "),
        (["table", "--run", RUN], f"found no run '{RUN}' of stage table, expected one of: none\n"),
    ],
)
def test_what_the_suite_lacks_is_one_line(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(main, ["why", "--suite", "frozen", *arguments])
    assert done.exit_code == 1
    assert done.output.startswith(f"indm why: suite frozen: {message}")
    assert done.output.count("\n") == 1
