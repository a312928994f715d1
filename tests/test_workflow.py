"""The two engines: same stages, same commands; what a mistake in a suite looks like."""

import inspect
import itertools
import multiprocessing
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from unittest.mock import patch

import pytest
import torch
import yaml

from indm.bench.pipeline.interpreter import put_first
from indm.bench.pipeline.jobs import Job
from indm.bench.pipeline.stages import STAGES
from indm.bench.pipeline.stamps import suite_stamps
from indm.bench.suite.expand import suite_files
from indm.bench.suite.load import LEFT_OUT, load_suite
from indm.bench.suite.schema.suite import Suite
from indm.report.catalogue import SHOWN
from indm.strict_yaml import parse_yaml, yaml_text
from tests.checkout import REPOSITORY, add_dvc_file, copy_checkout, finish, run, start
from tests.finished import do

CELL = "digits-vp-indm-nll"
# Its line in a suite, where a test edits it: what the suite has there is tuned.
LINE = (
    f"  {CELL}: {{dataset: digits, sde: vp, model: indm, "
    'variant: "", objective: nll, seeds: [0, 1, 2], train: {}, sample: {}}\n'
)

# A suite with every kind of shard, one of many runs, and one for each device.
SUITES: dict[str, dict[str, Any]] = {
    "sharded": {"shards": {"sample": 2, "sweep": 3, "nll": 2}},
    "many": {
        "grading": {"images": {"simple": None}},
        "protocol": {},
        "tune": {},
        "runs": {CELL: yaml.safe_load(LINE)[CELL] | {"seeds": [*range(50)]}},
    },
    **{f"on-{device}": {"device": device, "processes": 2} for device in ("cpu", "cuda", "auto")},
}
GRAPH = Path(__file__).parent / "data/graph.txt"


class Stage(NamedTuple):
    """What an engine would do for some outputs."""

    inputs: frozenset[str]
    command: str


Stages = dict[frozenset[str], Stage]
T = TypeVar("T")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with some more suites, to which tests only add the dvc.yaml of suites."""
    checkout = copy_checkout(tmp_path_factory.mktemp("checkout"))
    for name, changes in SUITES.items():
        (checkout / f"params/{name}.yaml").write_text(yaml_text({"suite": name, "based_on": "smoke"} | changes))
    return checkout


def snakemake_jobs(checkout: Path, suite: str) -> list[Any]:
    """Read all jobs of Snakemake's graph of a suite."""
    from snakemake.api import SnakemakeApi
    from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings

    os.chdir(checkout)
    with SnakemakeApi(OutputSettings()) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=8),
            config_settings=ConfigSettings(config={"suite": suite}),
            snakefile=Path("Snakefile"),
        )
        workflow.dag(DAGSettings(forceall=True)).execute_workflow(executor="dryrun")
        return [job for job in workflow._workflow.dag.jobs if job.shellcmd is not None]


def executed(job: Any) -> list[str]:
    """Return the commands that a job's rule runs: Snakemake evaluates what `shell` says a second time when the job runs."""
    rule, commands = job.rule.run_func, []
    with patch.dict(rule.__globals__, shell=lambda command, **_: commands.append(command)):
        rule(**dict.fromkeys(inspect.signature(rule).parameters))
    return commands


def written_down(checkout: Path, suite: str) -> list[str]:
    """Write down the first job of each rule of Snakemake's graph of a suite."""
    lines = []
    jobs = sorted(snakemake_jobs(checkout, suite), key=lambda job: (job.rule.name, job.message))
    for _, (job, *_) in itertools.groupby(jobs, key=lambda job: job.rule.name):
        taken = [f"{key} {job.resources.get(key)}" for key in ("mem_mb", "gpu")]
        lines.append(", ".join([job.message, f"threads {job.threads}", *taken, *sorted(job.params.keys())]))
        lines += [f"  logs {job.log[0]}", f"  times {job.benchmark}"]
        for verb, files in (("reads", job.input), ("writes", job.output)):
            lines += sorted(f"  {verb} {path}{_marks(path)}" for path in files)
    return lines


def _marks(path: Any) -> str:
    """Name Snakemake's marks of a file, and where its report shows it."""
    marks = sorted(path.flags.keys() - {"report"})
    if shown := path.flags.get("report"):
        marks += [shown.category, shown.caption.get_filename()]
    return f" ({', '.join(marks)})" if marks else ""


def snakemake_stages(checkout: Path, suite: str) -> Stages:
    """Read the stages of a suite from Snakemake's graph, every job included."""
    stages = {}
    for job in snakemake_jobs(checkout, suite):
        assert executed(job) == [job.rule.shellcmd], f"rule {job.rule.name} runs {executed(job)}"
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


def path_patterns(checkout: Path, *suites: str) -> list[list[str]]:
    """List, for each suite, the regular expressions with which Snakemake finds the rule that writes a file."""
    from snakemake.api import SnakemakeApi
    from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings

    os.chdir(checkout)
    found = []
    for suite in suites:
        with SnakemakeApi(OutputSettings()) as api:
            workflow = api.workflow(
                resource_settings=ResourceSettings(cores=1),
                config_settings=ConfigSettings(config={"suite": suite}),
                snakefile=Path("Snakefile"),
            )
            paths = [path for rule in workflow._workflow.rules for path in rule.products()]
            found.append(sorted(path.regex().pattern.replace(suite, "SUITE") for path in paths))
    return found


def gpus_asked_for(checkout: Path, suites: Iterable[str]) -> dict[str, dict[str, int | None]]:
    """Return how many GPUs a job of each rule asks for, by suite; none at all where its rule never uses one."""
    return {
        suite: {job.rule.name: job.resources.get("gpu") for job in snakemake_jobs(checkout, suite)} for suite in suites
    }


def in_new_process(function: Callable[..., T], *arguments: object) -> T:
    """Call an engine in a process of its own: both change the working directory, the loggers and ``sys.path``."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result(timeout=120)


# The default suite's dvc.yaml alone has copies of the tables; smoke has every kind of stage, sharded every kind of shard.
@pytest.mark.long
@pytest.mark.parametrize("suite", ["digits", "sharded", "smoke"])
def test_the_engines_run_the_same_stages(checkout: Path, suite: str) -> None:
    snakemake = in_new_process(snakemake_stages, checkout, suite)
    if suite != "digits":
        add_dvc_file(checkout, suite)
    dvc = in_new_process(dvc_stages, checkout, suite)
    # The one difference: what Snakemake computes and checks while reading the Snakefile and before its first job, DVC does in a
    # stage: it looks at the suite and the code, and writes a stamp for each job, on which the job depends.
    code = f"results/{suite}/code"
    validate = dvc.pop(frozenset({code}))
    assert validate.inputs == {"params", "indm"}
    assert validate.command.partition("  # ")[0] == (
        f"python -m indm validate --suite params/{suite}.yaml --out results --track && "
        f"python -m indm doctor --suite params/{suite}.yaml --out results"
    )
    stamped = {f"{code}/{place}" for place, _ in suite_stamps(load_suite(checkout / f"params/{suite}.yaml"))}
    stamps = {outputs: {path for path in stage.inputs if path.startswith(f"{code}/")} for outputs, stage in dvc.items()}
    copies = {frozenset({f"results/table_{table}.csv"}) for table in SHOWN}
    # No stage but a copy can run before validate has passed: each depends on the stamp of its job, which validate writes.
    assert all(len(paths) == (0 if outputs in copies else 1) for outputs, paths in stamps.items())
    assert set().union(*stamps.values()) == stamped
    dvc = {outputs: Stage(stage.inputs - stamps[outputs], stage.command) for outputs, stage in dvc.items()}
    # Snakemake carries inputs to where a job runs, and with them the manifests of the jobs that wrote them.
    carried = {outputs: {path for path in stage.inputs if "/manifest/" in path} for outputs, stage in snakemake.items()}
    written_by = {
        path: next(iter(path for path in outputs if "/manifest/" in path), "")
        for outputs in snakemake
        for path in outputs
    }
    snakemake = {outputs: Stage(stage.inputs - carried[outputs], stage.command) for outputs, stage in snakemake.items()}
    for outputs, stage in snakemake.items():
        assert carried[outputs] == (
            {written_by.get(path, "") for path in stage.inputs} - {""} if outputs not in copies else set()
        )
    # And only one dvc.yaml may own the copies at results/.
    if suite != "digits":
        snakemake = {outputs: stage for outputs, stage in snakemake.items() if outputs not in copies}
    assert snakemake == dvc
    jobs = [stage.command for outputs, stage in dvc.items() if outputs not in copies]
    assert all(command.startswith("python -m indm ") for command in jobs)


def test_the_graph_is_the_one_that_is_written_down(tmp_path: Path) -> None:
    """Both engines are made from one description, so they cannot tell a mistake in it: here it is said a second time.

    On failure: if the difference is meant, make it in ``tests/data/graph.txt`` too.
    """
    checkout = copy_checkout(tmp_path)
    smoke = parse_yaml((checkout / "params/smoke.yaml").read_text())
    smoke["grading"]["images"]["simple"] = None
    smoke["toy2d"]["datasets"].pop("steep-8d-tiny")
    run = next(iter(smoke["tune"]))
    changes = {
        "suite": "small",
        "device": "cuda",
        "threads": 2,
        "processes": 2,
        "reference": {
            "digits": smoke["reference"]["digits"] | {"extractor": "inception-v3-random", "classifier": None}
        },
        "protocol": {"digits": smoke["protocol"]["digits"] | {"run": run}},
        "tune": {run: smoke["tune"][run]},
        "runs": {run: smoke["runs"][run]},
        "shards": {"sample": 2, "sweep": 2, "nll": 2},
    }
    (checkout / "params/small.yaml").write_text(yaml_text(smoke | changes))
    assert in_new_process(written_down, checkout, "small") == GRAPH.read_text().splitlines()


def test_generated_files_are_in_step() -> None:
    """On failure: python workflow/generate.py."""
    done = subprocess.run(
        [sys.executable, REPOSITORY / "workflow/generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_mistake_in_a_suite_stops_both_engines(tmp_path: Path) -> None:
    """Also one in a key that DVC needs to read its own file."""
    checkout = copy_checkout(tmp_path)
    file = checkout / "params/digits.yaml"
    line = LINE.replace("train: {}", "train: {lrr: 1.0e-3}").replace("dataset: digits", "datset: digits")
    text, count = re.subn(rf"^  {CELL}:.*\n", line, file.read_text(), flags=re.MULTILINE)
    assert count == 1
    file.write_text(text)
    snakemake, dvc = map(finish, (start(checkout, ["snakemake", "-n"]), start(checkout, ["dvc", "repro"])))
    for done in (snakemake, dvc):
        assert done.returncode != 0
        assert "Traceback" not in done.stdout + done.stderr
        lines = [line for line in done.stderr.splitlines() if "params/digits.yaml: suite digits" in line]
        for expected in (["key train.lrr", "did you mean lr?"], ["key dataset", "missing"]):
            assert any(all(part in line for part in (f"run {CELL}, ", *expected)) for line in lines)
    assert len(snakemake.stderr.splitlines()) == len(lines) + snakemake.stderr.count("Using workflow specific profile")
    assert dvc.stdout.count("Running stage") == 1
    assert not (checkout / "results/digits").exists()


@pytest.mark.long
def test_a_control_of_another_size_stops_both_engines_before_the_first_job(tmp_path: Path) -> None:
    checkout = copy_checkout(tmp_path)
    file = checkout / "params/digits.yaml"
    file.write_text(
        file.read_text().replace("{steps: 1009, snapshots: [126, 252, 504, 1009]}", "{steps: 401, snapshots: []}")
    )
    for done in map(finish, (start(checkout, ["snakemake", "--cores", "1"]), start(checkout, ["dvc", "repro"]))):
        assert done.returncode != 0
        (line,) = [line for line in done.stderr.splitlines() if "params/digits.yaml: " in line]
        assert (
            "run digits-vp-ddpmpp-same-compute-nll-s4, key train.steps: found 401; allowed: 1009 to within 2 %" in line
        )
    assert not (checkout / "results/digits/data").exists()


@pytest.mark.long
def test_dvc_sees_the_values_of_a_suite_as_snakemake_does(tmp_path: Path) -> None:
    """By way of the expanded file, which its first stage writes, and writes anew where it was edited by hand."""
    checkout = copy_checkout(tmp_path)
    file, expanded = checkout / "params/digits.yaml", checkout / "params/expanded/digits.json"
    steps = load_suite(file).train.steps
    file.write_text(file.read_text().replace(f"\n  steps: {steps}\n", f"\n  steps: {steps + 1}\n", 1))
    assert run(checkout, "dvc", "repro", "validate").returncode == 0
    assert load_suite(expanded) == load_suite(file)
    assert load_suite(expanded).train.steps == steps + 1
    original = expanded.read_text()
    expanded.write_text(original.replace(f'"steps": {steps + 1}', f'"steps": {steps + 2}'))
    done = run(checkout, "dvc", "repro", "validate")
    assert "Running stage 'validate'" in done.stdout, done.stderr
    assert expanded.read_text() == original


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(
            ["--config", "suite=nosuch"],
            "found suite 'nosuch'; allowed: a file of params/: {suites}",
            marks=pytest.mark.long,
        ),
        (["--config", "suite=smoke", "lr=1"], "found lr; allowed: suite alone"),
        pytest.param(["--configfile", "params/smoke.yaml"], "datasets, device, ", marks=pytest.mark.long),
    ],
)
def test_snakemake_takes_no_setting_but_the_suite(checkout: Path, options: list[str], expected: str) -> None:
    done = run(checkout, "snakemake", "-n", *options)
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("Using workflow specific profile")]
    assert line.startswith("snakemake --config: ")
    suites = ", ".join(path.stem for path in suite_files(checkout / "params"))
    assert expected.format(suites=suites) in line


@pytest.mark.long
def test_patterns_of_paths_do_not_grow_with_the_runs(checkout: Path) -> None:
    """Snakemake reads a pattern anew for each file, so that patterns with all names make the time of a plan quadratic."""
    few, many = in_new_process(path_patterns, checkout, "smoke", "many")
    assert few == many


@pytest.mark.parametrize(
    ("file", "job"),
    [
        ("runs/nobody/train.json", "stage train for run 'nobody', expected one of: digits-ve-ddpmpp-fid-s0, "),
        pytest.param(
            f"runs/{CELL}-s0/shards/1/nll.safetensors",
            f"stage nll_shard for shard '{CELL}-s0-1', expected one of: none",
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_file_of_a_job_that_a_suite_does_not_have_is_refused(checkout: Path, file: str, job: str) -> None:
    done = run(checkout, "snakemake", "-n", "--config", "suite=smoke", "--", f"results/smoke/{file}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"params/smoke.yaml: found no job of {job}")
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_make_makes_the_page_and_what_readme_names_next(checkout: Path) -> None:
    """The page, and the copies of the tables, without which ``dvc commit`` cannot adopt the results."""
    table, report = (
        run(checkout, "make", "--dry-run", target, "SUITE=smoke").stdout.splitlines() for target in ("table", "report")
    )
    (command,) = {line for line in table + report if line.startswith("snakemake ")}
    done = run(checkout, "snakemake", "--dry-run", *command.split()[1:])
    assert done.returncode == 0, done.stderr
    for job in ("report", *(f"publish results/table_{name}.csv" for name in SHOWN)):
        assert re.search(rf"^Job \d+: {re.escape(job)}$", done.stdout + done.stderr, flags=re.MULTILINE), job
    assert "python -m indm show --suite smoke" in table


@pytest.mark.long
def test_touching_adopts_no_table_of_another_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are, Snakemake refuses to; without tables, they are copied anew."""
    checkout, suite = copy_checkout(tmp_path), load_suite(REPOSITORY / "params/smoke.yaml")
    monkeypatch.chdir(checkout)
    for name, stage in STAGES.items():
        for subject in stage.subjects(suite):
            do(suite, checkout, Job(name, subject))
    Path("results/table_fid.csv").write_text("another suite's")
    touch = ["snakemake", "--cores", "1", "--config", "suite=smoke", "--touch", "--forceall"]
    done = run(checkout, *touch)
    assert done.returncode != 0
    assert "\nsnakemake --touch: found results/table_fid.csv of another suite, " in done.stderr
    assert run(checkout, *touch, "--omit-from", "table", "compute").returncode == 0
    planned = run(checkout, *touch[:-2], "--dry-run")
    jobs = re.findall(r"^Job \d+: (\S+)(?: (.*))?$", planned.stdout + planned.stderr, flags=re.MULTILINE)
    assert ("publish", "results/table_fid.csv") in jobs
    assert {job for job, _ in jobs} == {"table", "compute", "claims", "publish", "figure", "report"}


def test_the_page_depends_on_all_that_its_suite_says() -> None:
    """It shows the checksum of it."""
    assert set(STAGES["report"].keys) == set(Suite.model_fields) - LEFT_OUT


@pytest.fixture(scope="module")
def gpus(checkout: Path) -> dict[str, dict[str, int | None]]:
    """How many GPUs jobs ask for, by suite and rule."""
    return in_new_process(gpus_asked_for, checkout, ("on-cuda", "on-auto", "sharded"))


@pytest.mark.long
def test_jobs_wait_for_a_gpu_where_they_use_one(gpus: dict[str, dict[str, int | None]]) -> None:
    """Without a GPU, a suite that takes one where there is one trains on all cores."""
    for device, used in (("cuda", 1), ("auto", int(torch.cuda.is_available()))):
        found = [gpus[f"on-{device}"][rule] for rule in ("prepare", "train", "sample", "nll")]
        assert found == [None, 2 * used, used, used], device


@pytest.fixture(scope="module")
def on_device(gpus: dict[str, dict[str, int | None]]) -> set[str]:
    """The rules whose jobs compute on a suite's device."""
    return {rule for rule, count in gpus["sharded"].items() if count is not None}


@pytest.mark.long
@pytest.mark.parametrize("profile", ["slurm", "kubernetes"])
def test_profiles_are_of_options_and_rules_that_exist(
    checkout: Path, on_device: set[str], profile: str, tmp_path: Path
) -> None:
    """With results in a storage, which Kubernetes needs: here a folder."""
    storage = ["--default-storage-provider", "fs", "--default-storage-prefix", f"{tmp_path}/"]
    done = run(
        checkout, "snakemake", "--profile", f"workflow/profiles/{profile}", "--dry-run", "--config", "suite=smoke",
        *(storage if profile == "kubernetes" else []),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    resources = yaml.safe_load((checkout / f"workflow/profiles/{profile}/config.yaml").read_text())["set-resources"]
    assert set(resources) == on_device


# Other commands.


@pytest.mark.long
def test_a_dry_run_of_dvc_in_a_new_clone_says_which_command_lists_the_jobs(tmp_path: Path) -> None:
    checkout = copy_checkout(tmp_path)
    done = run(checkout, "dvc", "repro", "--dry")
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("> python -m indm validate"))
    listed = run(checkout, "python", "-m", *line.rpartition(": ")[2].split())
    assert listed.returncode == 0, listed.stderr
    assert "not made yet" in listed.stdout


# The Python that runs the jobs.


@pytest.fixture
def another(tmp_path: Path) -> dict[str, str]:
    """An environment whose ``python`` is another program."""
    (tmp_path / "python").write_text("#!/bin/sh\necho another\n")
    (tmp_path / "python").chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.defpath}"}


def prefix_of_python(environment: dict[str, str]) -> str:
    command = ["/bin/sh", "-c", 'python -c "import sys; print(sys.prefix)"']
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("name", ["python", "python-of-mine"])
def test_this_python_comes_first(
    another: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Also one of another name, as some systems have; the environment of a virtual one stays its own."""
    assert prefix_of_python(another) == "another"
    if name != "python":
        own = tmp_path / "own folder" / name
        own.parent.mkdir()
        own.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        own.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(own))
    put_first(another)
    assert prefix_of_python(another) == sys.prefix


@pytest.mark.long
def test_jobs_run_with_the_python_of_snakemake(another: dict[str, str], tmp_path: Path) -> None:
    (folder := tmp_path / "jobs").mkdir()
    checkout = copy_checkout(folder)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--config", "suite=smoke", "--"]
    done = subprocess.run(
        [*command, "results/smoke/data/digits/dataset.json"], cwd=checkout, env=another, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (checkout / "results/smoke/data/digits/manifest/prepare.json").is_file()
