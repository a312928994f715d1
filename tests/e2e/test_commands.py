"""The table of docs/commands.md in which every command is of suite ``smoke``: run word for word, in its order."""

import re
import shlex
import subprocess
import time
from pathlib import Path

import pytest

from tests.checkout import REPOSITORY, copy_checkout, run

pytestmark = [pytest.mark.e2e, pytest.mark.long]

GIT = ["git", "-c", "user.name=reader", "-c", "user.email=reader@example.org"]
_, SECTION = (REPOSITORY / "docs/commands.md").read_text().split("## Each command on tiny models\n")
COMMANDS = re.findall(r"^\| `([^`]+)` \|", SECTION, flags=re.MULTILINE)


def test_every_command_does_its_work(tmp_path: Path) -> None:
    """With ``pytest -s``, the times of the table are printed."""
    checkout = copy_checkout(tmp_path / "checkout")
    for command in (["git", "add", "--all"], [*GIT, "commit", "--quiet", "--message", "As it is"]):
        subprocess.run(command, cwd=checkout, check=True)
    assert len(COMMANDS) > 20
    for command in COMMANDS:
        began = time.monotonic()
        done = run(checkout, *shlex.split(command))
        print(f"| `{command}` | {time.monotonic() - began:.1f} s |", flush=True)
        assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, command
    for made in (
        "results/table_fid.csv",
        "reports/smoke/index.html",
        "report.html",
        "docs/results/smoke/tables/fid.csv",
    ):
        assert (checkout / made).is_file()
