"""The default suite, run here, beside its published results."""

import json
import re
import sys
from pathlib import Path

import pytest

from tests.checkout import copy_checkout, run

pytestmark = [pytest.mark.e2e, pytest.mark.nightly]
SAME = ("machine", "threads", "versions")


def test_the_default_suite_agrees_with_its_published_results(tmp_path: Path) -> None:
    """To the letter on the processor and with the versions of the published ones; elsewhere in nine numbers of ten.

    Of other seeds, one number in 25 would lie too far off (docs/share.md). The log of the test says which do.
    """
    checkout = copy_checkout(tmp_path / "checkout")
    done = run(checkout, "snakemake", "--cores", "all")
    assert done.returncode == 0, done.stderr
    compared = run(checkout, sys.executable, "-m", "indm", "compare", "docs/results/digits")
    print(compared.stdout)
    assert compared.returncode in (0, 1), compared.stderr
    assert compared.stdout.splitlines()[-1] == ("They agree.", "They differ.")[compared.returncode]
    assert "\nsuite: " not in compared.stdout
    (found,) = re.findall(r"^numbers: (\d+) of (\d+) agree", compared.stdout, flags=re.MULTILINE)
    near, numbers = map(int, found)
    assert near >= 0.9 * numbers
    (published,) = json.loads((checkout / "docs/results/digits/provenance.json").read_text())["executions"]
    trained = next((checkout / "results/digits/runs").glob("*/provenance/train.json"))
    here = json.loads(trained.read_text())
    if all(here[key] == published[key] for key in SAME):
        assert compared.returncode == 0
