"""Kill a training at random moments, go on each time, and compare the end with that of one that nothing disturbed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from indm.strict_yaml import parse_yaml, yaml_text
from tests.checkout import copy_checkout, environment

RUN = "digits-vp-indm-fid-s0"
LOG = "kill.log"
TRAIN = [sys.executable, "-m", "indm", "train", "--suite", "params/smoke.yaml", "--run", RUN]
TABLES = ["values", "fid", "nll", "discretization", "learning_curve", "protocol"]
# What docs/commands.md says to run after a power cut.
ENGINES = {
    "snakemake": [
        ["snakemake", "--unlock", "--config", "suite=smoke"],
        ["snakemake", "--cores", "1", "--config", "suite=smoke"],
    ],
    "dvc": [["dvc", "repro", "workflow/dvc/smoke/dvc.yaml"]],
}


class Outcome(NamedTuple):
    """What a training that was killed and started again came to.

    Arguments:
        differing: files that differ from those of a training that nothing disturbed.
        compared: number of files compared.
        kills: how often it was killed.
        left: how often it left unfinished work from which it could go on.
    """

    differing: list[str]
    compared: int
    kills: int
    left: int


def train(folder: Path, kills: int, seed: int) -> Outcome:
    """Train in two copies of the checkout, undisturbed in one, killed so often in the other, and compare what was made."""
    prepare = [sys.executable, "-m", "indm", "prepare", "--suite", "params/smoke.yaml", "--dataset", "digits"]
    undisturbed, disturbed = (copy_small(folder, name) for name in ("undisturbed", "disturbed"))
    for checkout in (undisturbed, disturbed):
        finish(checkout, prepare)
    process = start(undisturbed, TRAIN)
    _wait_until_it_works(process, undisturbed)
    started = time.monotonic()
    _check(process, undisturbed)
    seconds = time.monotonic() - started
    random_generator, done, left = random.Random(seed), 0, 0
    for _ in range(kills):
        done += _kill(disturbed, TRAIN, random_generator.uniform(0, seconds / kills))
        left += any((disturbed / "results/smoke/scratch").rglob("*.safetensors"))
    finish(disturbed, TRAIN)
    folders = [checkout / f"results/smoke/runs/{RUN}" for checkout in (undisturbed, disturbed)]
    names = sorted(path.name for pattern in ("*.safetensors", "train.*") for path in folders[0].glob(pattern))
    expected, found = ([(folder / name).read_bytes() for name in names] for folder in folders)
    differing = [name for name, one, other in zip(names, expected, found, strict=True) if one != other]
    return Outcome(differing, len(names), done, left)


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
        sys.exit(f"{process.args!r}: exit status {process.returncode}\n{said(checkout / LOG)[-3000:]}")


def said(log: Path) -> str:
    """Read a log, whose last character may be half-written while its command works, or lost with it."""
    return log.read_text(errors="replace") if log.is_file() else ""


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
