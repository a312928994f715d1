"""A suite on a SLURM of one machine, through the profile: a job is preempted, a job is cancelled, and no byte is another."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from indm.store.layout import Layout
from indm.strict_yaml import parse_yaml, yaml_text
from tests import kill
from tests.checkout import run
from tests.cluster import answers, ask

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slurm,
    pytest.mark.long,
    pytest.mark.skipif(not answers(), reason="no SLURM for tests on this machine; as root, .ci/slurm starts one"),
]

LIMIT = 420.0
TABLE = "results/table_fid.csv"
TARGET = ["--config", "suite=smoke", "--", TABLE]
PROFILE = Path("workflow/profiles/slurm")
# What the profile leaves to the cluster, filled in for .ci/slurm's; and less patience than a large cluster asks for.
VALUES = {
    "slurm-status-command": "squeue",
    "slurm-no-account": True,
    "slurm-init-seconds-before-status-checks": 1,
    "seconds-between-status-checks": 1,
    "latency-wait": 10,
}


@pytest.fixture
def checkouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Two copies of the checkout, with the smoke suite cut down to one run, whose jobs ask for a GPU if there is one."""
    # Where there is one, too, these jobs compute on the CPU, whose bytes repeat.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    copies = {name: kill.copy_small(tmp_path, name) for name in ("local", "slurm")}
    for checkout in copies.values():
        file = checkout / "params/smoke.yaml"
        suite = parse_yaml(file.read_text()) | {"device": "auto"}
        suite["train"] |= {"steps": 400, "snapshots": [20, 400]}
        file.write_text(yaml_text(suite))
    fill_in(copies["slurm"] / PROFILE / "config.yaml")
    return copies


def fill_in(file: Path) -> None:
    """Give the profile this cluster's values; its partitions have the names of the example."""
    profile = parse_yaml(file.read_text()) | VALUES
    profile["default-resources"] |= {"runtime": 5}
    for resources in profile["set-resources"].values():
        resources |= {"runtime": 5, "mem_mb": 500}
    file.write_text(yaml_text(profile))


@contextmanager
def started(checkout: Path, command: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a command; leave nothing of it behind, on the cluster neither, if the block does not wait for its end."""
    process = kill.start(checkout, command)
    try:
        yield process
    finally:
        if process.poll() is None:
            # Snakemake cancels its jobs on SIGINT.
            os.killpg(process.pid, signal.SIGINT)
            process.wait(timeout=60)


def wait(process: "subprocess.Popen[bytes]", checkout: Path, found: Callable[[], bool]) -> None:
    """Wait for something while a command works."""
    deadline = time.monotonic() + LIMIT
    while not found():
        assert process.poll() is None, kill.said(checkout / kill.LOG)
        assert time.monotonic() < deadline, kill.said(checkout / kill.LOG)
        time.sleep(0.05)


def training_job() -> str:
    """Ask SLURM for the number of the training's job, and make sure that it has a GPU."""
    number = ask("squeue", "--noheader", "--states=running", "--format=%i|%k").split("|rule_train")[0].split()[-1]
    assert "TresPerJob=gres/gpu:1" in ask("scontrol", "show", "job", number)
    return number


def test_a_suite_on_slurm_with_a_preempted_and_a_cancelled_job(checkouts: dict[str, Path]) -> None:
    done = run(checkouts["local"], "snakemake", "--cores", "1", *TARGET)
    assert done.returncode == 0, done.stderr
    checkout = checkouts["slurm"]
    scratch = Layout(checkout / "results", "smoke").scratch(kill.RUN, "train")
    log = checkout / f"results/smoke/logs/train/{kill.RUN}.log"
    with started(checkout, ["snakemake", "--profile", str(PROFILE), *TARGET]) as process:
        wait(process, checkout, lambda: (scratch / "snapshot-20.safetensors").is_file())
        preempted = training_job()
        first = (scratch / "lock").read_text()
        ask("scontrol", "requeue", preempted)
        wait(
            process,
            checkout,
            lambda: (scratch / "lock").read_text() != first and "continues after step" in kill.said(log),
        )
        again = training_job()
        # SLURM has put the very job back in the queue; the next one is submitted by Snakemake.
        assert again == preempted
        ask("scancel", again)
        assert process.wait(timeout=LIMIT) == 0, kill.said(checkout / kill.LOG)
    assert "continues after step" in kill.said(log)
    assert "Trying to restart job" in kill.said(checkout / kill.LOG)
    for name in [f"tables/{table}.csv" for table in kill.TABLES] + [f"runs/{kill.RUN}/checkpoint.safetensors"]:
        files = [path / "results/smoke" / name for path in checkouts.values()]
        assert files[0].read_bytes() == files[1].read_bytes(), name
    assert (checkout / TABLE).is_file()
