"""A copy of the checkout, in which an engine can run without touching the one being tested."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def copy_checkout(target: Path, *, tests: bool = False) -> Path:
    """Copy the files that git would commit to ``target``, a new repository, which DVC needs.

    Tests and benchmarks are copied if asked for.
    """
    left_out = () if tests else ("benchmarks/", "tests/")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        source, destination = REPOSITORY / name, target / name
        # Listed but deleted, or of no use to a pipeline.
        if not os.path.lexists(source) or name.startswith(left_out):
            continue
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, destination, follow_symlinks=False)
    subprocess.run(["git", "init", "--quiet"], cwd=target, check=True)
    return target


def commit(checkout: Path, message: str) -> None:
    """Commit all files of a checkout."""
    author = ["-c", "user.name=reader", "-c", "user.email=reader@example.org"]
    for command in (["add", "--all"], [*author, "commit", "--quiet", "--message", message]):
        subprocess.run(["git", *command], cwd=checkout, check=True)


def environment() -> dict[str, str]:
    """This process's environment, with the commands of this Python's first."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def start(checkout: Path, command: Sequence[str], variables: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a command of this Python's environment in a checkout; stdout and stderr are read as text."""
    pipe, known = subprocess.PIPE, environment() | dict(variables or {})
    return subprocess.Popen(command, cwd=checkout, env=known, stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for a started command."""
    stdout, stderr = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def run(checkout: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a checkout, whatever its exit status."""
    return finish(start(checkout, command))


def commands(suite: str) -> dict[str, list[str]]:
    """The command with which each engine makes the tables and the page of a suite.

    DVC runs one stage at a time; beside it Snakemake gets the other cores, so that neither waits for the other.
    """
    cores = max(1, (os.cpu_count() or 2) - 1)
    return {
        "snakemake": ["snakemake", "--cores", str(cores), "--config", f"suite={suite}"],
        "dvc": ["dvc", "repro", f"workflow/dvc/{suite}/dvc.yaml"],
    }


def add_dvc_file(checkout: Path, suite: str) -> None:
    """Make the dvc.yaml of a suite that is not the default one."""
    done = run(checkout, "python", "workflow/generate.py", "--suite", suite)
    assert done.returncode == 0, done.stderr


def traced(folder: Path) -> dict[str, str]:
    """Return the environment in which every execution of the package notes in a folder in which files it called functions."""
    return {"INDM_CALLED": str(folder), "PYTHONPATH": str(Path(__file__).parent / "tracing")}


JOBS = """
import sys
from pathlib import Path
from indm.process import start
start()
from indm.bench.cli import main
from indm.bench.pipeline.stages import OPTIONS, STAGES
from indm.bench.suite.load import load_suite
suite = load_suite(Path(f"params/{sys.argv[1]}.yaml"))
for name, stage in STAGES.items():
    for subject in stage.subjects(suite):
        command = stage.command(name).format(suite=suite.suite, **dict.fromkeys(OPTIONS[stage.subject], subject))
        main(command.partition(" -m indm ")[2].split(), standalone_mode=False)
"""


def do_jobs(checkout: Path, suite: str) -> None:
    """Do all jobs of a suite without shards in one process, without an engine: most of a small job is the import of torch."""
    done = run(checkout, "python", "-c", JOBS, suite)
    assert done.returncode == 0, done.stdout + done.stderr
