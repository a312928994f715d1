"""What ``indm why`` says of jobs that would run again, for each kind of cause."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner

from indm.cli import main
from indm.pipeline import code, references
from indm.pipeline.identity import Identity
from indm.pipeline.jobs import IMPORTED, Job
from indm.pipeline.stages import STAGES
from indm.suite.load import load_suite
from indm.suite.schema.suite import Suite
from tests.conftest import FROZEN, REPOSITORY
from tests.finished import do

RUN = "digits-vp-indm-fid-s0"
OBJECTIVES = "indm/diffusion/objectives.py"
RESULTS = Path("results/frozen")
TRAINED = f"{RESULTS}/runs/{RUN}/manifest/train.json"


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
    monkeypatch.setattr(references, "KEPT", tmp_path / "indm/__pycache__/code.txt")
    yield
    code._sources.cache_clear()


def suite() -> Suite:
    return load_suite(Path("params/frozen.yaml"))


def why(*arguments: str) -> str:
    code._sources.cache_clear()
    done = CliRunner().invoke(main, ["why", "--suite", "frozen", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def replace(file: str | Path, old: str, new: str) -> None:
    text = Path(file).read_text()
    assert old in text
    Path(file).write_text(text.replace(old, new))


def append(file: str, text: str) -> None:
    Path(file).write_text(Path(file).read_text() + text)


def redefine(name: str, file: str = OBJECTIVES) -> str:
    """Edit a definition, whatever it is; return where it is."""
    append(file, f"\n\n{name} = {name}\n")
    return place(name, file)


def place(name: str, file: str = OBJECTIVES) -> str:
    lines = Path(file).read_text().splitlines()
    (line,) = [number for number, line in enumerate(lines, 1) if line.startswith(f"def {name}(")]
    return f"{file}:{line} {name}"


def edit_manifest(path: str, **values: object) -> None:
    """Replace entries of a manifest; to a dictionary that is not empty, add."""
    content = json.loads(Path(path).read_text())
    for key, value in values.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) and value else value
    Path(path).write_text(json.dumps(content))


def test_a_whole_answer() -> None:
    nll, tweedie = redefine("gaussian_nll"), redefine("tweedie", "indm/diffusion/steps.py")
    replace("params/frozen.yaml", "kid_subsets: 100", "kid_subsets: 50")
    append("params/published.csv", "\n")
    answer = f"""\
frozen: 44 of 45 jobs would run

9 jobs: 1 of reference, 7 of fid, 1 of report
  fid.kid_subsets: 100 → 50

17 jobs: 7 of train, 7 of nll, 3 of curve
  {nll} changed

7 jobs of sample
  {tweedie} changed

5 jobs: 4 of sweep, 1 of protocol
  {tweedie} changed
  fid.kid_subsets: 100 → 50

2 jobs of toy2d: moons, eight-gaussians
  {nll} changed
  {tweedie} changed

2 jobs: 1 of table, 1 of claims
  input params/published.csv changed after it was read

2 jobs would follow, because these make their inputs again: 1 of compute, 1 of figure
"""
    assert why() == answer


def test_nothing_to_do_is_one_sentence() -> None:
    assert why() == "frozen: up to date (45 jobs checked)\n"
    assert why("prepare", "--dataset", "digits") == "frozen, prepare digits: up to date (1 job checked)\n"


def test_the_chain_of_a_job_begins_with_the_root_cause() -> None:
    place = redefine("gaussian_nll")
    assert (
        why("fid", "--run", RUN)
        == f"""\
frozen, fid {RUN}: 3 of 5 jobs would run

1 job of train: {RUN}
  {place} changed

1 job of sample: {RUN}
  train makes its input again: checkpoint.safetensors

1 job of fid: {RUN}
  sample makes its input again: samples.npy
"""
    )


def call_new() -> list[str]:
    append(OBJECTIVES, "\n\ndef helper():\n    pass\n")
    line = len(Path(OBJECTIVES).read_text().splitlines()) - 1
    append(OBJECTIVES, "\ngaussian_nll = helper\n")
    return [place("gaussian_nll") + " changed", f"{OBJECTIVES}:{line} helper is new"]


def move() -> list[str]:
    """Move a definition to another module, and edit another one: the first is not listed."""
    replace(OBJECTIVES, "def squared_norm(", "from indm.diffusion.norms import squared_norm\n\n\ndef unused(")
    Path("indm/diffusion/norms.py").write_text(
        "def squared_norm(x: Tensor) -> Tensor:\n    return x.flatten(1).square().sum(1)\n"
    )
    return [redefine("gaussian_nll") + " changed"]


def move_and_edit() -> list[str]:
    also = move()
    return [redefine("squared_norm", "indm/diffusion/norms.py") + " changed", *also]


def lose() -> list[str]:
    edit_manifest(TRAINED, stamp="another", code={"indm.diffusion.lost.helper": "0123456789"})
    return ["indm.diffusion.lost.helper is gone"]


def edit_key() -> list[str]:
    replace("params/frozen.yaml", "  steps: 200\n", "  steps: 300\n")
    return ["train.steps: 200 → 300"]


def edit_dataset_by_hand() -> list[str]:
    do(suite(), Path(), Job("prepare", "digits"), "other content of")
    return [f"input {file} of prepare changed after it was read" for file in ("train.npy", "dataset.json")]


def read_others() -> list[str]:
    content = json.loads(Path(TRAINED).read_text())
    files = content["inputs"]
    files["results/frozen/data/digits/older.npy"] = files.pop("results/frozen/data/digits/train.npy")
    Path(TRAINED).write_text(json.dumps(content))
    return ["input train.npy of prepare is read now", "input older.npy is not read any more"]


def damage() -> list[str]:
    path = Path(TRAINED).parents[1] / "checkpoint.safetensors"
    found, expected = sha256(b"flipped").hexdigest()[:12], sha256(path.read_bytes()).hexdigest()[:12]
    path.write_bytes(b"flipped")
    return [f"{path}: found SHA-256 {found}, expected {expected} by {TRAINED}: damaged, or another file; delete it"]


def remove_output() -> list[str]:
    (Path(TRAINED).parents[1] / "checkpoint.safetensors").unlink()
    return ["missing: checkpoint.safetensors"]


def remove_manifest() -> list[str]:
    Path(TRAINED).unlink()
    return ["missing: manifest/train.json, without which the origin of its files is unknown"]


def remove_all() -> list[str]:
    shutil.rmtree(Path(TRAINED).parents[1])
    return ["not made yet"]


def break_manifest() -> list[str]:
    Path(TRAINED).write_text("[]")
    return ["found list, expected a JSON object"]


def take_another_manifest() -> list[str]:
    edit_manifest(TRAINED, subject="another")
    return [
        "found the manifest of suite frozen, stage train another, expected the manifest of suite frozen, stage train "
        + RUN
    ]


def edit_code_of_older_manifest() -> list[str]:
    edit_manifest(TRAINED, stamp="", code={})
    redefine("gaussian_nll")
    return [
        "made by code with another stamp than now; which definitions changed is unknown, because its manifest "
        "lists none"
    ]


def forget_code() -> list[str]:
    edit_manifest(TRAINED, stamp="", code={})
    (Path(TRAINED).parents[1] / "provenance/train.json").unlink()
    return ["made by code that is not recorded; which definitions changed is unknown, because its manifest lists none"]


@pytest.mark.parametrize(
    "edit",
    [
        call_new,
        move,
        move_and_edit,
        lose,
        edit_key,
        edit_dataset_by_hand,
        read_others,
        damage,
        remove_output,
        remove_manifest,
        remove_all,
        break_manifest,
        take_another_manifest,
        edit_code_of_older_manifest,
        forget_code,
    ],
)
def test_causes(edit: Callable[[], list[str]]) -> None:
    expected = edit()
    total = "1 of 2 jobs"
    causes = "\n".join(f"  {cause}" for cause in expected)
    assert why("train", "--run", RUN) == f"frozen, train {RUN}: {total} would run\n\n1 job of train: {RUN}\n{causes}\n"


def test_an_older_manifest_whose_code_is_the_same_is_up_to_date() -> None:
    edit_manifest(TRAINED, stamp="", code={})
    assert why("train", "--run", RUN) == f"frozen, train {RUN}: up to date (2 jobs checked)\n"


def test_files_beside_a_module() -> None:
    append("indm/report/page/templates/style.css", "\n")
    assert "1 job of report\n  indm/report/page/render.py data next to it changed\n" in why()


def test_code_outside_of_definitions() -> None:
    append("indm/metrics/extractors.py", "\nprint()\n")
    assert re.search(r"\n  indm/metrics/extractors\.py:\d+ code outside of definitions changed\n", why("reference"))


def test_a_key_that_chooses_another_member_says_so_without_its_definitions() -> None:
    run = "digits-vp-ddpmpp-nll-s0"
    key = '"", objective: nll, seeds: [0], train: {'
    replace(
        "params/frozen.yaml",
        f"model: ddpmpp, variant: {key}",
        f"model: ddpmpp, variant: {key}latent: {{learned: affine}}",
    )
    answer = f"""\
frozen, nll {run}: 2 of 3 jobs would run

1 job of train: {run}
  train.latent.learned: null → "affine"

1 job of nll: {run}
  the suite chooses indm/flows/registered/affine.py now
  train makes its input again: checkpoint.safetensors
"""
    assert why("nll", "--run", run) == answer


def test_other_weights_that_the_suite_derives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Suite, "weights_of", lambda suite, run: {"score": "ema", "flow": "other"})
    assert "1 job of nll: " + RUN + "\n  other weights of the model, derived from the suite" in why("nll", "--run", RUN)


def test_an_imported_checkpoint_is_of_the_code_that_imports() -> None:
    job = Job("train", RUN)
    identity = Identity(suite(), Path("results"), Path("reports"))
    identity.record(job, identity.check(job, IMPORTED), "import_checkpoint")
    assert "up to date" in why("train", "--run", RUN)
    edited = redefine("run", "indm/stages/import_checkpoint.py")
    assert f"{edited} changed" in why("train", "--run", RUN)


def test_what_is_missing_is_made_where_it_is_read() -> None:
    """As Snakemake does it, so that results can be restored without checkpoints."""
    remove_output()
    assert "up to date" in why()
    replace("params/frozen.yaml", "  time_draws: 10\n", "  time_draws: 20\n")
    found = why()
    assert f"1 job of train: {RUN}\n  missing: checkpoint.safetensors\n" in found
    # These read the new checkpoint.
    assert "1 of sample" in found.splitlines()[-1]


def test_a_new_seed_is_not_made_yet_and_the_tables_read_it() -> None:
    replace("params/frozen.yaml", "objective: nll, seeds: [0]", "objective: nll, seeds: [0, 1]")
    found = why()
    assert "15 jobs: 3 of train, 3 of sample, 3 of fid, 3 of nll, 3 of curve\n  not made yet\n" in found
    assert "  input nll.json of nll is read now (3 files)\n" in found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trains"], "found no stage 'trains', expected one of: prepare, reference, train, "),
        (["sample_shard"], "found no stage 'sample_shard', expected one of: "),
        (["--run", "x"], "found no run 'x', expected one of: digits-ve-ddpmpp-fid-s0, "),
        (["toy2d", "--toy", "x"], "found no toy 'x' of stage toy2d, expected one of: moons, eight-gaussians\n"),
        (["table", "--run", RUN], f"found no run '{RUN}' of stage table, expected one of: none\n"),
    ],
)
def test_what_the_suite_lacks_is_one_line(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(main, ["why", "--suite", "frozen", *arguments])
    assert done.exit_code == 1
    assert done.output.startswith(f"indm why: suite frozen: {message}")
    assert done.output.count("\n") == 1
