"""Entries in bad faith: files whose map is not one map of each image."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from indm.bench.cli import main
from tests.conftest import REPOSITORY

EXAMPLE = REPOSITORY / "docs/extending/code/brightness.py"
MAP = "    def map(self, x: Tensor) -> Tensor:\n"
FAITHLESS = {
    "depends on the batch": (
        f"{MAP}        x = x - x.mean(0, keepdim=True)\n",
        "other latents in another call or batch",
    ),
    "holds state between calls": (
        f"    calls = 0\n\n{MAP}        Brightness.calls += 1\n        x = x + 1e-3 * Brightness.calls\n",
        "other latents in another call or batch",
    ),
}


@pytest.fixture(autouse=True)
def _at_the_top(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr("indm.bench.entries.enter.WORK", tmp_path / "unfinished")


@pytest.mark.parametrize("case", FAITHLESS)
def test_what_is_not_one_map_of_each_image_is_refused(case: str, tmp_path: Path) -> None:
    changed, words = FAITHLESS[case]
    path = tmp_path / "mine.py"
    path.write_text(EXAMPLE.read_text().replace(MAP, changed))
    done = CliRunner().invoke(main, ["enter", str(path), "--track", "smoke", "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert words in done.output
    assert not [*(tmp_path / "out").rglob("*.*")]
