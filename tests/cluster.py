"""The SLURM that .ci/slurm starts on this machine, for the tests."""

import os
import shutil
import subprocess

# Who may take a node away: root, or who may become root without being asked.
ROOT = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]


def answers() -> bool:
    """Whether this machine has the tests' own SLURM: nobody's cluster gets jobs from a test."""
    if shutil.which("scontrol") is None:
        return False
    done = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=30, check=False)
    return "ClusterName             = indm-test" in done.stdout


def ask(*command: str) -> str:
    """Run a command that answers at once, and return its answer."""
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
