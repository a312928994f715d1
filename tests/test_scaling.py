"""What the suites for GPUs cost: the page has what the code counts."""

import re
import sys

import pytest

from benchmarks.scaling import hours, main
from indm.bench.kept.page import LARGE_STEPS
from tests.conftest import REPOSITORY


# A step of the paper's networks takes seconds, and is counted for each of them.
@pytest.mark.nightly
def test_the_page_has_the_tables_that_are_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On failure: python -m benchmarks.scaling, and copy its tables to docs/scaling.md."""
    monkeypatch.setattr(sys, "argv", ["scaling"])
    monkeypatch.chdir(REPOSITORY)
    main()
    page = (REPOSITORY / "docs/scaling.md").read_text().splitlines()
    assert [line for line in capsys.readouterr().out.splitlines() if line not in page] == []


def test_pages_of_results_compare_with_the_counted_steps() -> None:
    page = (REPOSITORY / "docs/scaling.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| VP \| ([\d.]+) \| ([\d.]+) \|$", page, flags=re.MULTILINE)
    counted = [ratio for suite, _, *ratios in rows if suite in ("cifar10", "paper") for ratio in ratios]
    assert counted == re.findall(r"\d\.\d", LARGE_STEPS)


def test_shards_end_sooner_where_gpus_are_free_and_cost_nothing_where_they_are_not() -> None:
    work = {name: {"train": 3600.0, "sweep": 8 * 3600.0} for name in "ab"}
    assert hours(work, {}, 1.0, 1) == hours(work, {"sweep": 4}, 1.0, 1) == 18
    assert hours(work, {}, 1.0, 2) == hours(work, {"sweep": 4}, 1.0, 2) == 9
    # Trainings share four GPUs, and take half an hour.
    assert hours(work, {}, 1.0, 4) == 8.5
    assert hours(work, {"sweep": 2}, 1.0, 4) == hours(work, {"sweep": 4}, 1.0, 4) == 4.5
