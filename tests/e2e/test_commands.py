"""The commands of docs/commands.md for the ``smoke`` suite, and those of ``indm`` that go with them, run one after the other."""

import re
import shlex
import shutil
import time
from pathlib import Path

import pytest

from tests.checkout import REPOSITORY, run

pytestmark = [pytest.mark.e2e, pytest.mark.long]

COMMANDS = [
    "indm doctor smoke",
    "snakemake -n --config suite=smoke",
    "snakemake --cores all --config suite=smoke -- results/table_fid.csv",
    "indm show smoke fid",
    "snakemake --cores all --config suite=smoke",
    "indm run smoke",
    "indm show smoke --all",
    "indm show smoke claims",
    "indm status smoke",
    "indm status smoke --watch",
    "indm why smoke",
    "indm train smoke digits-vp-indm-nll-s0",
    "snakemake --cores all --config suite=smoke -- reports/smoke/index.html",
    "snakemake --config suite=smoke --report report.html",
    "snakemake --unlock --config suite=smoke",
    "python workflow/generate.py --suite smoke",
    "dvc repro workflow/dvc/smoke/dvc.yaml:validate",
    "dvc commit --force workflow/dvc/smoke/dvc.yaml",
    "dvc status workflow/dvc/smoke/dvc.yaml",
    "dvc repro workflow/dvc/smoke/dvc.yaml",
    "indm keep smoke",
    "indm restore smoke",
    "snakemake --cores all --config suite=smoke --touch",
    "indm publish smoke",
    "indm compare docs/results/smoke",
    "indm register --suite smoke",
]


def test_every_command_does_its_work(smoke: Path, tmp_path: Path) -> None:
    """Where the suite was run, but its tables were lost; with ``pytest -s``, the time of each is printed."""
    page = (REPOSITORY / "docs/commands.md").read_text()
    # `make` would install the package first.
    assert set(re.findall(r"`([^`]*\bsmoke\b[^`]*)`", page)) - {"make report SUITE=smoke"} <= set(COMMANDS)
    checkout = Path(shutil.copytree(smoke, tmp_path / "checkout", symlinks=True))
    shutil.rmtree(checkout / "results/smoke/tables")
    for path in checkout.glob("results/table_*.csv"):
        path.unlink()
    for command in COMMANDS:
        began = time.monotonic()
        done = run(checkout, *shlex.split(command))
        print(f"{time.monotonic() - began:6.1f} s  {command}", flush=True)
        assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, command
    for made in (
        "results/table_fid.csv",
        "reports/smoke/index.html",
        "report.html",
        "docs/results/smoke/tables/fid.csv",
    ):
        assert (checkout / made).is_file()
