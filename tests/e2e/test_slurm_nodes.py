"""One training on two nodes of a SLURM, both of them this machine: one is taken away in the middle, and no byte is another."""

import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from indm.store.layout import Layout
from indm.strict_yaml import parse_yaml, yaml_text
from tests import kill
from tests.checkout import run
from tests.cluster import ROOT, answers, ask

FIRST = platform.node().split(".")[0]
SECOND = f"{FIRST}-second"


def _missing() -> str:
    """Say what the test needs and this machine lacks."""
    if not answers():
        return "no SLURM for tests on this machine; as root, .ci/slurm starts one"
    if SECOND not in ask("sinfo", "--noheader", "--Node", "--format=%N").split():
        return "the SLURM for tests on this machine has one node: an older .ci/slurm started it"
    if subprocess.run([*ROOT, "true"], capture_output=True, check=False).returncode:
        return "a node is taken away by root, or who may become root without a password"
    return ""


MISSING = _missing()
pytestmark = [pytest.mark.e2e, pytest.mark.slurm, pytest.mark.long, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

LIMIT = 420.0
STEPS = 200
OVER = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}
LOG = "job.log"
PREPARE = [sys.executable, "-m", "indm", "prepare", "--suite", "params/smoke.yaml", "--dataset", "digits"]


@pytest.fixture
def checkouts(tmp_path: Path) -> dict[str, Path]:
    """Two copies of the checkout, with a suite of one run that two processes train."""
    copies = {name: kill.copy_small(tmp_path, name, STEPS) for name in ("undisturbed", "disturbed")}
    for checkout in copies.values():
        file = checkout / "params/smoke.yaml"
        file.write_text(yaml_text(parse_yaml(file.read_text()) | {"processes": 2}))
        kill.finish(checkout, PREPARE)
    return copies


@contextmanager
def submitted(checkout: Path) -> Iterator[str]:
    """Submit the training to two nodes; nothing of it stays in the queue. Yields the number of the job."""
    where = ["--partition=two", "--nodes=2", "--ntasks-per-node=1", "--mem=1500", "--time=15", f"--output={LOG}"]
    script = ["workflow/slurm/several-nodes.sh", "params/smoke.yaml", kill.RUN]
    done = run(checkout, "sbatch", "--parsable", *where, *script)
    assert done.returncode == 0, done.stderr
    job = done.stdout.strip()
    try:
        yield job
    finally:
        subprocess.run(["scancel", job], check=False)


@contextmanager
def taken_away(node: str) -> Iterator[None]:
    """Kill all that runs on a node, SLURM's daemon first, and tell SLURM; after the block the node is there again."""
    daemon = int(Path(f"/run/slurmd-{node}.pid").read_text())
    tasks = tasks_on(node)
    lost = [daemon, *(parent(task) for task in tasks), *tasks]
    subprocess.run([*ROOT, "kill", "-KILL", *map(str, lost)], check=True)
    # By itself it would notice after its SlurmdTimeout, five minutes.
    ask(*ROOT, "scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    try:
        yield
    finally:
        ask(*ROOT, "slurmd", "-N", node)


def tasks_on(node: str) -> list[int]:
    """Find the processes that SLURM has started on a node."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        # Others' processes cannot be read, and some end just now.
        with suppress(OSError):
            if f"SLURMD_NODENAME={node}".encode() in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
    return found


def parent(process: int) -> int:
    found = re.search(r"^PPid:\s+(\d+)$", Path(f"/proc/{process}/status").read_text(), flags=re.MULTILINE)
    assert found
    return int(found[1])


def shown(job: str, key: str) -> str:
    """Ask SLURM what it knows of a job."""
    found = re.search(rf"\b{key}=(\S+)", ask("scontrol", "show", "job", job))
    assert found
    return found[1]


def wait(job: str, checkout: Path, found: Callable[[], bool]) -> None:
    """Wait for something while a job is not over."""
    deadline = time.monotonic() + LIMIT
    while not found():
        said = kill.said(checkout / LOG)
        # A job may end as it should between the two questions.
        assert shown(job, "JobState") not in OVER or found(), said
        assert time.monotonic() < deadline, said
        time.sleep(0.1)


def test_a_training_on_two_nodes_goes_on_after_one_was_taken_away(checkouts: dict[str, Path]) -> None:
    kill.finish(checkouts["undisturbed"], kill.TRAIN)
    checkout = checkouts["disturbed"]
    scratch = Layout(checkout / "results", "smoke").scratch(kill.RUN, "train")
    with submitted(checkout) as job:
        wait(job, checkout, (scratch / f"snapshot-{STEPS // 4}.safetensors").is_file)
        assert tasks_on(FIRST)
        assert len(tasks_on(SECOND)) == 1
        with taken_away(SECOND):
            wait(job, checkout, lambda: shown(job, "JobState") == "PENDING")
        wait(job, checkout, lambda: shown(job, "JobState") == "COMPLETED")
        assert shown(job, "Restarts") == "1"
    assert "continues after step" in kill.said(checkout / LOG)
    names = ["checkpoint.safetensors", "snapshots.safetensors", "train.csv", "train.json"]
    folders = [path / f"results/smoke/runs/{kill.RUN}" for path in checkouts.values()]
    for name in names:
        assert folders[0].joinpath(name).read_bytes() == folders[1].joinpath(name).read_bytes(), name
