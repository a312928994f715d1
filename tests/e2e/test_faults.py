"""Faults that an engine meets: a second one at the same time, a kill, a job that was asked to stop."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from indm.store.layout import Layout
from tests import kill
from tests.checkout import run

pytestmark = [pytest.mark.e2e, pytest.mark.long]

REFUSALS = {"snakemake": "Error: Directory cannot be locked.", "dvc": "is busy, it is being blocked by"}
TRAINED = f"results/smoke/runs/{kill.RUN}/train.json"
TRAIN = {
    "snakemake": ["snakemake", "--cores", "1", "--config", "suite=smoke", "--", TRAINED],
    "dvc": ["dvc", "repro", f"workflow/dvc/smoke/dvc.yaml:train@{kill.RUN}"],
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return kill.copy_small(tmp_path, "checkout")


def start_and_wait(checkout: Path, command: list[str]) -> "tuple[subprocess.Popen[bytes], Path]":
    """Start an engine, and wait until its training has taken a snapshot; return it with the training's scratch folder."""
    process = kill.start(checkout, command)
    scratch = Layout(checkout / "results", "smoke").scratch(kill.RUN, "train")
    while not list(scratch.glob("snapshot-*.safetensors")):
        assert process.poll() is None, kill.said(checkout / kill.LOG)
        time.sleep(0.05)
    return process, scratch


@pytest.mark.parametrize("engine", kill.ENGINES)
def test_two_engines_at_once_and_the_lock_of_one_that_was_killed(checkout: Path, engine: str) -> None:
    *unlock, command = kill.ENGINES[engine]
    first, scratch = start_and_wait(checkout, command)
    # Stopped, it has its locks and its training does not end before the second engine has been refused.
    os.killpg(first.pid, signal.SIGSTOP)
    second = run(checkout, *command)
    assert second.returncode != 0
    assert REFUSALS[engine] in second.stdout + second.stderr
    assert first.poll() is None
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    # What the training had done is no output of a job, so neither engine takes it away.
    if unlock:
        assert REFUSALS[engine] in run(checkout, *TRAIN[engine]).stderr
    for free in unlock:
        assert run(checkout, *free).returncode == 0
    done = run(checkout, *TRAIN[engine])
    assert done.returncode == 0, done.stderr
    log = checkout / f"results/smoke/logs/train/{kill.RUN}.log"
    assert "continues after step" in (kill.said(log) or done.stdout + done.stderr)
    assert (checkout / TRAINED).exists()
    assert not scratch.exists()


def test_snakemake_tries_again_a_job_that_was_asked_to_stop(checkout: Path) -> None:
    """As a cluster does before it takes a machine away."""
    process, scratch = start_and_wait(checkout, [*TRAIN["snakemake"][:-2], "--retries", "1", "--", TRAINED])
    os.kill(int((scratch / "lock").read_text().split()[1]), signal.SIGTERM)
    assert process.wait(timeout=120) == 0, kill.said(checkout / kill.LOG)
    assert "continues after step" in kill.said(checkout / f"results/smoke/logs/train/{kill.RUN}.log")
    assert (checkout / TRAINED).exists()
    assert not scratch.exists()
