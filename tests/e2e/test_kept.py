"""Suite smoke on a machine that is lost: what was kept gives the same tables elsewhere, and only what is missing is trained."""

import json
import re
import shutil
from pathlib import Path

import pytest

from indm.bench.suite.load import load_suite
from indm.report.catalogue import SHOWN
from indm.store.files import file_sha256
from tests.checkout import add_dvc_file, commands, copy_checkout, run

pytestmark = [pytest.mark.e2e, pytest.mark.long]

SNAKEMAKE = commands("smoke")["snakemake"]
RUN = "digits-vp-indm-nll-s0"
COLLECT = {"table", "compute", "claims", "figure", "report", "publish"}
KEPT = Path("docs/results/smoke/kept")


@pytest.fixture(scope="module")
def lost(smoke: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which the suite was run, and kept."""
    checkout = Path(shutil.copytree(smoke, tmp_path_factory.mktemp("lost") / "smoke", symlinks=True))
    do(checkout, "python", "-m", "indm", "keep", "--suite", "params/smoke.yaml")
    return checkout


def clone(lost: Path, target: Path) -> Path:
    """Copy what git would, with what was kept."""
    copy_checkout(target)
    shutil.copytree(lost / KEPT, target / KEPT)
    return target


def planned(checkout: Path) -> list[str]:
    """List what Snakemake would do: ``train digits-vp-indm-nll-s0``, ``table``, ..."""
    done = run(checkout, *SNAKEMAKE, "--dry-run")
    assert done.returncode == 0, done.stderr
    return re.findall(r"^Job \d+: (.+)$", done.stdout + done.stderr, flags=re.MULTILINE)


def do(checkout: Path, *command: str) -> str:
    done = run(checkout, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def tables(checkout: Path) -> dict[str, bytes]:
    return {name: (checkout / f"results/smoke/tables/{name}.csv").read_bytes() for name in (*SHOWN, "values", "images")}


def figures(checkout: Path) -> dict[str, str]:
    """Hash each figure: where two differ, their names say it, not their bytes."""
    return {path.name: file_sha256(path) for path in (checkout / "reports/smoke/figures").glob("*.svg")}


def test_tables_and_page_are_made_of_what_was_kept_and_are_the_same(lost: Path, tmp_path: Path) -> None:
    checkout = clone(lost, tmp_path)
    do(checkout, "python", "-m", "indm", "restore", "--suite", "params/smoke.yaml")
    assert {job.split()[0] for job in planned(checkout)} == COLLECT
    do(checkout, *SNAKEMAKE)
    # Times too: they are of the trainings, which were done once.
    assert tables(checkout) == tables(lost)
    assert figures(checkout) == figures(lost)
    assert "data:image/png" in (checkout / "reports/smoke/index.html").read_text()
    assert not list(checkout.glob("results/smoke/runs/*/checkpoint.safetensors"))


def test_dvc_takes_restored_results_as_done_until_their_code_is_edited(lost: Path, tmp_path: Path) -> None:
    checkout, pipeline = clone(lost, tmp_path), "workflow/dvc/smoke/dvc.yaml"
    restore = ("python", "-m", "indm", "restore", "smoke")
    done = run(checkout, *restore, "--dvc")
    assert done.returncode == 1
    assert f"{pipeline}: missing; python workflow/generate.py --suite smoke makes it" in done.stderr
    assert not (checkout / "results/smoke").exists()
    add_dvc_file(checkout, "smoke")
    do(checkout, *restore, "--dvc")
    made = re.findall(r"Running stage '.*:(.+)'", do(checkout, "dvc", "repro", "--allow-missing", pipeline))
    assert set(made) == COLLECT - {"publish"}
    assert tables(checkout) == tables(lost)
    assert edited(checkout, pipeline) == set()
    file = checkout / "indm/diffusion/likelihood.py"
    file.write_text(f"{file.read_text()}\node_nll = ode_nll\n")
    do(checkout, "dvc", "repro", f"{pipeline}:validate")
    assert edited(checkout, pipeline) >= {f"nll@{name}" for name in load_suite(checkout / "params/smoke.yaml").runs}
    assert not {stage.partition("@")[0] for stage in edited(checkout, pipeline)} & {"train", "sample", "fid"}


def edited(checkout: Path, pipeline: str) -> set[str]:
    """List the stages whose code DVC finds changed."""
    found = set()
    for stage, changes in json.loads(do(checkout, "dvc", "status", "--json", pipeline)).items():
        inputs = [path for change in changes if isinstance(change, dict) for path in change.get("changed deps", ())]
        found |= {stage.partition(":")[2]} if any(path.startswith("results/smoke/code/") for path in inputs) else set()
    return found


def test_only_the_runs_that_were_not_kept_are_trained(lost: Path, tmp_path: Path) -> None:
    """What `make restore` does, and what comes after it; on this machine the run comes out the same."""
    checkout = clone(lost, tmp_path)
    (checkout / KEPT / f"runs/{RUN}.tar.gz").unlink()
    makefile = (checkout / "Makefile").read_text()
    recipe = re.search(r"^restore:.*\n((?:\t.+\n)+)", makefile, flags=re.MULTILINE)
    assert recipe
    for command in recipe[1].replace("$(SUITE)", "smoke").splitlines():
        do(checkout, *command.split())
    of_run = {job for job in planned(checkout) if job.split()[0] not in COLLECT}
    assert of_run == {f"{stage} {RUN}" for stage in ("train", "tune", "sample", "fid", "nll", "curve", "flow", "sweep")}
    do(checkout, *SNAKEMAKE, "--until", "compute", "claims")
    expected = tables(lost)
    assert {name: text for name, text in tables(checkout).items() if name != "compute"} == {
        name: text for name, text in expected.items() if name != "compute"
    }
    # From here on Snakemake knows what was restored as well as what it made.
    file = checkout / "indm/diffusion/likelihood.py"
    file.write_text(f"{file.read_text()}\node_nll = ode_nll\n")
    likelihoods = {job for job in planned(checkout) if job.startswith("nll ")}
    assert likelihoods == {f"nll {name}" for name in load_suite(checkout / "params/smoke.yaml").runs}
