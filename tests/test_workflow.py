"""The two engines: same stages, same commands; the code behind each stage; what a mistake in a suite looks like."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from indm.report.export import TITLES
from indm.suite.expand import suite_files
from tests.checkout import REPOSITORY, copy_checkout, finish, run, start

RUN = "digits-vp-indm-nll-s0"


class Stage(NamedTuple):
    """What an engine would do for some outputs."""

    inputs: frozenset[str]
    command: str


Stages = dict[frozenset[str], Stage]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout that no test changes."""
    return copy_checkout(tmp_path_factory.mktemp("checkout"))


def snakemake_stages(checkout: Path, suite: str) -> Stages:
    """Read the stages of a suite from Snakemake's graph, every job included."""
    from snakemake.api import SnakemakeApi
    from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings

    os.chdir(checkout)
    with SnakemakeApi(OutputSettings()) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(config={"suite": suite}),
            snakefile=Path("Snakefile"),
        )
        workflow.dag(DAGSettings(forceall=True)).execute_workflow(executor="dryrun")
        jobs = [job for job in workflow._workflow.dag.jobs if job.shellcmd is not None]
    stages = {}
    for job in jobs:
        suffix = f" 2> {job.log[0]}"
        assert job.shellcmd.endswith(suffix), job.shellcmd
        stages[frozenset(map(str, job.output))] = Stage(
            frozenset(map(str, job.input)), job.shellcmd.removesuffix(suffix)
        )
    return stages


def dvc_stages(checkout: Path, suite: str) -> Stages:
    """Read the stages of a suite from DVC's index, paths as the commands see them."""
    from dvc.dependency.param import ParamsDependency
    from dvc.repo import Repo

    file = "dvc.yaml" if suite == "digits" else f"workflow/dvc/{suite}/dvc.yaml"
    stages = {}
    with Repo(str(checkout)) as repo:
        for stage in repo.index.stages:
            if Path(stage.path).relative_to(checkout.resolve()) == Path(file):
                inputs = frozenset(dep.def_path for dep in stage.deps if not isinstance(dep, ParamsDependency))
                assert Path(stage.wdir) == checkout.resolve(), stage.addressing
                stages[frozenset(out.def_path for out in stage.outs)] = Stage(inputs, stage.cmd)
    return stages


def in_new_process(function: Callable[..., Stages], *arguments: object) -> Stages:
    """Call an engine in a process of its own: both change the working directory, the loggers and ``sys.path``."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result(timeout=120)


@pytest.mark.parametrize("suite", [path.stem for path in suite_files(REPOSITORY / "params")])
def test_the_engines_run_the_same_stages(checkout: Path, suite: str) -> None:
    snakemake = in_new_process(snakemake_stages, checkout, suite)
    dvc = in_new_process(dvc_stages, checkout, suite)
    # The one difference: what Snakemake checks while reading the Snakefile and before its first job, DVC does in a stage.
    valid = f"results/{suite}/valid.txt"
    validate = dvc.pop(frozenset({valid}))
    assert validate.inputs == {f"params/{suite}.yaml", "params/claims.yaml", "indm/checks.py", "indm/params.py"}
    assert validate.command.startswith(
        f"python -m indm validate --suite params/{suite}.yaml && "
        f"python -m indm doctor --suite params/{suite}.yaml --out results && "
    )
    first = {outputs for outputs, stage in dvc.items() if valid in stage.inputs}
    dvc = {outputs: Stage(stage.inputs - {valid}, stage.command) for outputs, stage in dvc.items()}
    # And only one dvc.yaml may own the copies at results/.
    if suite != "digits":
        copies = {frozenset({f"results/table_{table}.csv"}) for table in TITLES}
        snakemake = {outputs: stage for outputs, stage in snakemake.items() if outputs not in copies}
    assert snakemake == dvc
    # No stage can run before validate has passed: one that waits for no other stage waits for it.
    made = frozenset[str]().union(*dvc)
    assert {outputs for outputs, stage in dvc.items() if not stage.inputs & made} <= first


def test_generated_files_are_in_step() -> None:
    """On failure: python workflow/generate.py."""
    done = subprocess.run(
        [sys.executable, REPOSITORY / "workflow/generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# Imports what the stages share with other packages once, and each stage in a fork of its own.
IMPORTED = """
import importlib, os, sys
import numpy, pandas, sklearn, torch, torch_fidelity, torchdiffeq
for stage in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        importlib.import_module(f"indm.stages.{stage}")
        files = {os.path.relpath(m.__file__) for name, m in sys.modules.items() if name.split(".")[0] == "indm"}
        print(stage, *sorted(files), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


def test_each_stage_lists_the_modules_that_python_imports() -> None:
    """The table is computed from the sources; here it is compared with what importing a stage loads."""
    table: dict[str, list[str]] = yaml.safe_load((REPOSITORY / "workflow/stages.yaml").read_text())
    done = run(REPOSITORY, sys.executable, "-c", IMPORTED, *table)
    assert done.returncode == 0, done.stderr
    loaded = {stage: set(files) for stage, *files in map(str.split, done.stdout.splitlines())}
    assert loaded.keys() == table.keys()
    for stage, files in loaded.items():
        # It lists more where a function imports.
        assert files - {"indm/__init__.py", "indm/errors.py"} <= set(table[stage]), stage


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("train: {}", "train: {lrr: 1.0e-3}", ["key train.lrr", "unknown key", "did you mean lr?"]),
        ("seed: 0", 'seed: "0"', ["key seed", "found '0'", "integer"]),
        ("train: {}", "train: {lr: -1.0e-3}", ["key train.lr", "found -0.001", "allowed: number, > 0"]),
        ("dataset: digits", "dataset: mnist", ["key dataset", "found 'mnist'", "patches"]),
    ],
)
def test_a_mistake_in_a_suite_stops_both_engines(tmp_path: Path, old: str, new: str, expected: list[str]) -> None:
    checkout = copy_checkout(tmp_path)
    _edit_run(checkout, old, new)
    snakemake, dvc = map(finish, (start(checkout, ["snakemake", "-n"]), start(checkout, ["dvc", "repro"])))
    for done in (snakemake, dvc):
        assert done.returncode != 0
        assert "Traceback" not in done.stdout + done.stderr
        (line,) = [line for line in done.stderr.splitlines() if "params/digits.yaml: " in line]
        for part in ("suite digits", f"run {RUN}", *expected):
            assert part in line
    assert len(snakemake.stderr.splitlines()) == 1 + snakemake.stderr.count("Using workflow specific profile")
    assert dvc.stdout.count("Running stage") == 1
    assert not (checkout / "results/digits").exists()


def test_a_missing_key_that_dvc_needs_is_named_by_both_engines(tmp_path: Path) -> None:
    checkout = copy_checkout(tmp_path)
    _edit_run(checkout, "dataset: digits", "datset: digits")
    snakemake, dvc = map(finish, (start(checkout, ["snakemake", "-n"]), start(checkout, ["dvc", "repro"])))
    assert f"params/digits.yaml: suite digits, run {RUN}, key dataset: missing" in snakemake.stderr
    # DVC reads the key itself, before any stage could check the suite.
    assert (
        f"ERROR: failed to parse 'stages.train@{RUN}.deps' in 'dvc.yaml': Could not find 'item.dataset'" in dvc.stderr
    )
    for done in (snakemake, dvc):
        assert done.returncode != 0
        assert "Traceback" not in done.stderr


def _edit_run(checkout: Path, old: str, new: str) -> None:
    """Replace a text in the line of ``RUN``."""
    file = checkout / "params/digits.yaml"
    lines = file.read_text().splitlines(keepends=True)
    (i,) = [i for i, line in enumerate(lines) if line.startswith(f"  {RUN}:")]
    assert old in lines[i]
    lines[i] = lines[i].replace(old, new)
    file.write_text("".join(lines))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--config", "suite=nosuch"], "found suite 'nosuch'; allowed: a file of params/: digits"),
        (["--config", "suite=smoke", "lr=1"], "found lr; allowed: suite alone"),
        (["--configfile", "params/smoke.yaml"], "datasets, device, "),
    ],
)
def test_snakemake_takes_no_setting_but_the_suite(checkout: Path, options: list[str], expected: str) -> None:
    done = run(checkout, "snakemake", "-n", *options)
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("Using workflow specific profile")]
    assert line.startswith("snakemake --config: ")
    assert expected in line


@pytest.mark.parametrize("profile", ["slurm", "kubernetes"])
def test_profiles_are_of_options_and_rules_that_exist(checkout: Path, profile: str, tmp_path: Path) -> None:
    """With results in a storage, which Kubernetes needs: here a folder."""
    storage = ["--default-storage-provider", "fs", "--default-storage-prefix", f"{tmp_path}/"]
    done = run(
        checkout, "snakemake", "--profile", f"workflow/profiles/{profile}", "--dry-run", "--config", "suite=smoke",
        *(storage if profile == "kubernetes" else []),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    resources = yaml.safe_load((checkout / f"workflow/profiles/{profile}/config.yaml").read_text())["set-resources"]
    assert set(resources) < set(yaml.safe_load((checkout / "workflow/stages.yaml").read_text()))
