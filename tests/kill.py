"""Kill a job at random moments, go on each time, and compare the end with that of a job that nothing disturbed.

python -m tests.kill --kills 20                       SIGKILL of `python -m indm train`
python -m tests.kill --kills 3 --engine snakemake     of the engine and all its jobs, amid a small suite; or --engine dvc

In a temporary copy of the checkout; the exit status is 1 if a byte differs.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from indm.suite.strict_yaml import parse_yaml, yaml_text
from tests.checkout import copy_checkout, environment

RUN = "digits-vp-indm-fid-s0"
LOG = "kill.log"
TRAIN = [sys.executable, "-m", "indm", "train", "--suite", "params/smoke.yaml", "--run", RUN]
TABLES = ["values", "fid", "nll", "discretization", "learning_curve", "protocol"]
# Within which an engine is killed: it needs some of them to come to its first step.
ENGINE_SECONDS = 12.0
# What the README says to run after a power cut.
ENGINES = {
    "snakemake": [
        ["snakemake", "--unlock", "--config", "suite=smoke"],
        ["snakemake", "--cores", "1", "--config", "suite=smoke"],
    ],
    "dvc": [["dvc", "repro", "workflow/dvc/smoke/dvc.yaml"]],
}


class Outcome(NamedTuple):
    """What a job that was killed and started again came to.

    Arguments:
        differing: files that differ from those of a job that nothing disturbed.
        compared: number of files compared.
        kills: how often it was killed.
        left: how often it left unfinished work from which a stage could go on.
        seconds: how long the undisturbed job worked.
    """

    differing: list[str]
    compared: int
    kills: int
    left: int
    seconds: float


def train(folder: Path, kills: int, seed: int) -> Outcome:
    """Kill a training."""
    prepare = [sys.executable, "-m", "indm", "prepare", "--suite", "params/smoke.yaml", "--dataset", "digits"]
    return _compare(
        folder, [TRAIN], [prepare], f"results/smoke/runs/{RUN}", ["*.safetensors", "train.*"], kills, seed, 80
    )


def engine(folder: Path, name: str, kills: int, seed: int) -> Outcome:
    """Kill an engine, and with it all its jobs, amid the smoke suite of one run; so many steps that most kills hit them."""
    files = [f"{table}.csv" for table in TABLES]
    return _compare(folder, ENGINES[name], [], "results/smoke/tables", files, kills, seed, 250 * kills, ENGINE_SECONDS)


def _compare(
    folder: Path,
    commands: list[list[str]],
    before: list[list[str]],
    outputs: str,
    patterns: list[str],
    kills: int,
    seed: int,
    steps: int,
    longest: float | None = None,
) -> Outcome:
    """Do a job in two copies of the checkout, undisturbed in one, and compare what it made.

    Arguments:
        folder: where the copies go.
        commands: what the README says to run after a power cut; the last does the job.
        before: what the job needs, undisturbed in both.
        outputs: folder of what is compared.
        patterns: which files of it.
        kills: how often to kill it.
        seed: of the moments.
        steps: of the training.
        longest: seconds within which it is killed; None: its time undisturbed, shared by the kills.
    """
    undisturbed, disturbed = (copy_small(folder, name, steps) for name in ("undisturbed", "disturbed"))
    for checkout in (undisturbed, disturbed):
        for command in before:
            finish(checkout, command)
    process = start(undisturbed, commands[-1])
    _wait_until_it_works(process, undisturbed)
    started = time.monotonic()
    _check(process, undisturbed)
    seconds = time.monotonic() - started
    print(f"undisturbed: {seconds:.1f} s of work", flush=True)
    random_generator, done, left = random.Random(seed), 0, 0
    for _ in range(kills):
        for command in commands[:-1]:
            finish(disturbed, command)
        done += _kill(disturbed, commands[-1], random_generator.uniform(0, longest or seconds / kills))
        work = sorted((disturbed / "results/smoke/scratch").rglob("*.safetensors"))
        left += bool(work)
        stages = ", ".join(sorted({path.parent.name for path in work})) or "no stage"
        print(f"killed {done} times; unfinished work of {stages}", flush=True)
    for command in commands:
        finish(disturbed, command)
    names = sorted(path.name for pattern in patterns for path in (undisturbed / outputs).glob(pattern))
    found, expected = (
        {name: _read(checkout / outputs / name) for name in names} for checkout in (disturbed, undisturbed)
    )
    return Outcome([name for name in names if found[name] != expected[name]], len(names), done, left, seconds)


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def copy_small(folder: Path, name: str, steps: int = 80) -> Path:
    """Copy the checkout, with the smoke suite cut down to one run that trains for longer and is saved often."""
    checkout = copy_checkout(folder / name)
    path = checkout / "params/smoke.yaml"
    suite = parse_yaml(path.read_text()) | {"save_seconds": 0.1}
    suite["train"] |= {"steps": steps, "snapshots": [steps // 4, steps], "log_every": 7}
    suite["sweep"]["batch_size"] = 20
    suite["toy2d"]["datasets"], suite["tune"] = {}, {}
    suite["runs"], suite["grading"]["images"]["simple"] = {RUN: suite["runs"][RUN]}, None
    path.write_text(yaml_text(suite))
    finish(checkout, [sys.executable, "workflow/generate.py", "--suite", "smoke"])
    return checkout


def start(checkout: Path, command: list[str]) -> "subprocess.Popen[bytes]":
    """Start a command as the head of a process group of its own, with a new log."""
    with (checkout / LOG).open("ab") as file:
        return subprocess.Popen(
            command, cwd=checkout, env=environment(), stdout=file, stderr=file, start_new_session=True
        )


def _wait_until_it_works(process: "subprocess.Popen[bytes]", checkout: Path) -> None:
    """Wait until a command that has just been started says something: its imports take longer than its work."""
    size = (checkout / LOG).stat().st_size
    while process.poll() is None and (checkout / LOG).stat().st_size == size:
        time.sleep(0.01)


def _check(process: "subprocess.Popen[bytes]", checkout: Path) -> None:
    if process.wait():
        sys.exit(f"{process.args!r}: exit status {process.returncode}\n{(checkout / LOG).read_text()[-3000:]}")


def finish(checkout: Path, command: list[str]) -> None:
    """Run a command to its end.

    Raises:
        SystemExit: if it fails, with the end of what it printed.
    """
    _check(start(checkout, command), checkout)


def _kill(checkout: Path, command: list[str], seconds: float) -> bool:
    """Run a command, and kill it and all that it started a time after it has begun to work; whether it was running then."""
    process = start(checkout, command)
    _wait_until_it_works(process, checkout)
    time.sleep(seconds)
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return running


def main() -> None:
    """Kill, compare, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--engine", choices=ENGINES, help="kill an engine instead of a training")
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.engine:
            outcome = engine(folder, arguments.engine, arguments.kills, arguments.seed)
        else:
            outcome = train(folder, arguments.kills, arguments.seed)
    print(
        f"{outcome.kills} kills, {outcome.left} of them amid work that is kept; {outcome.compared} files compared, "
        f"{len(outcome.differing)} differ {outcome.differing or ''}; {time.monotonic() - started:.0f} s in all"
    )
    sys.exit(bool(outcome.differing) or not outcome.compared)


if __name__ == "__main__":
    main()
