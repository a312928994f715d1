"""How a lead changes with the length of training."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from benchmarks.lead import answer, table
from tests.conftest import REPOSITORY


def publish(folder: Path, differences: NDArray[np.float64]) -> Path:
    (folder / "tables").mkdir(parents=True)
    rows = pd.DataFrame({"id": "better-nelbo", "objective": "nll", "against": "ddpmpp", "difference": differences})
    rows = pd.concat([rows, rows.assign(objective="fid", difference=9.0), rows.assign(id="smaller-gap")])
    rows.to_csv(folder / "tables/differences.csv", index=False)
    return folder


def test_the_change_has_welch_s_interval(tmp_path: Path) -> None:
    """Welch's formula, with unequal numbers of seeds and spreads; other claims and objectives do not count."""
    generator = np.random.default_rng(0)
    short, longer = 0.03 + 0.002 * generator.standard_normal(13), 0.08 + 0.01 * generator.standard_normal(3)
    found = table(publish(tmp_path / "a", short), publish(tmp_path / "b", longer)).splitlines()
    assert len(found) == 3
    parts = np.array([part.var(ddof=1) / len(part) for part in (short, longer)])
    freedom = parts.sum() ** 2 / (parts**2 / (12, 2)).sum()
    half, change = stats.t.ppf(0.975, freedom) * np.sqrt(parts.sum()), longer.mean() - short.mean()
    expected = [f"{value:.3f}" for value in (change, change - half, change + half)]
    assert found[2].replace("|", " ").split()[-4:] == [*expected, "grows"]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.001, 0.005, "grows"),
        (-0.03, -0.001, "shrinks"),
        (-0.01, 0.01, "stays"),
        (-0.011, 0.01, "open"),
        (0.0, 0.02, "open"),
    ],
)
def test_the_answer_follows_the_registered_rule(low: float, high: float, expected: str) -> None:
    assert answer(low, high) == expected


def test_the_page_of_the_longer_suite_has_the_answers() -> None:
    published = REPOSITORY / "docs/results"
    text = (published / "fashion-long/README.md").read_text().replace("−", "-")
    page = [line for line in text.splitlines() if line.startswith(("| NELBO |", "| NLL (secondary) |"))]
    # The last four cells are the change, its ends and the answer.
    found = [
        row.replace("|", " ").split()
        for row in table(published / "fashion-full", published / "fashion-long").splitlines()[2:]
    ]
    expected = [f"{change} [{low}, {high}] | *{grade}* |" for *_, change, low, high, grade in found]
    assert [row[-len(cells) :] for row, cells in zip(page, expected, strict=True)] == expected
