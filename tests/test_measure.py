"""Somebody's samples: each file is used or named, and samples and results are checked before anything is computed."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image

from indm.arrays import read_array, write_array
from indm.bench.cli import main
from indm.data.levels import to_uint8
from indm.errors import DataError
from indm.foreign.files import read_images
from indm.registry import DATASETS
from tests.conftest import REPOSITORY


def save(path: Path, value: int = 0, size: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (size, size), value).save(path, format="PNG")


def test_png_files_of_every_spelling_and_subfolder_are_read_in_order(tmp_path: Path) -> None:
    for value, name in enumerate(["B.PNG", "a.png", "cats/1.png", "cats/more/1.Png"]):
        save(tmp_path / name, value)
    (tmp_path / ".DS_Store").write_bytes(b"")
    assert read_images(tmp_path)[:, 0, 0, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["a.jpg", "labels.txt", "cats/b.jpeg", "a.png.bak"])
def test_a_file_that_is_not_png_is_named(tmp_path: Path, name: str) -> None:
    save(tmp_path / "a.png")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=f"found 1 of 2 files that are not .*{re.escape(name)}") as caught:
        read_images(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def digits() -> NDArray[np.uint8]:
    images: NDArray[np.uint8] = next(DATASETS["digits"].load(split_seed=0)["test"].pieces())
    return images


def measure(tmp_path: Path, images: NDArray[Any], *options: str) -> Result:
    np.save(tmp_path / "samples.npy", images)
    command = ["measure", str(tmp_path / "samples.npy"), "--dataset", "digits", "--suite", "smoke"]
    command += ["--out", str(tmp_path / "results"), "--page", str(tmp_path / "measure.md")]
    return CliRunner().invoke(main, [*command, *options])


SPREAD = to_uint8(digits(), 17)[:, :1]


@pytest.mark.parametrize(
    ("images", "options", "words"),
    [
        (SPREAD[:, :, :4], (), "found shape (1, 4, 8), expected (1, 8, 8), as in digits"),
        (SPREAD.repeat(3, 1), (), "found shape (3, 8, 8), expected (1, 8, 8)"),
        (digits(), (), "give the number of levels: --levels 17"),
        (SPREAD + 1, (), "round the samples to the 17 levels of digits"),
        (digits(), ("--levels", "32"), "levels: found 32, expected 17, as in digits, or 256"),
        (SPREAD, ("--levels", "17"), "found levels from 0 to 255, expected 0 to 16"),
        (SPREAD, ("--dataset", "mnist"), "found no dataset 'mnist', expected one of: digits"),
    ],
)
def test_samples_that_do_not_fit_are_refused_before_a_stage_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: NDArray[np.uint8], options: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(REPOSITORY)
    done = measure(tmp_path, images, *options)
    assert done.exit_code == 1
    assert words in done.output
    assert len(done.output.splitlines()) == 1
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "measure.md").exists()


def test_results_of_other_settings_and_replaced_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "params").mkdir(parents=True)
    for file in (REPOSITORY / "params").glob("*.*"):
        shutil.copy(file, checkout / "params")
    monkeypatch.chdir(checkout)
    assert measure(tmp_path, SPREAD).exit_code == 0
    suite, folder = checkout / "params/smoke.yaml", tmp_path / "results/smoke/data/digits"

    text = suite.read_text()
    changed = re.sub(r"(classifier: \{steps: )\d+", r"\g<1>7", text)
    assert changed != text
    suite.write_text(changed)
    done = measure(tmp_path, SPREAD)
    assert done.exit_code == 1
    assert re.search(
        r"reference\.json: made with other parameters .*classifier\.steps: found \d+, expected 7", done.output
    )
    suite.write_text(text)

    features = read_array(folder / "features.npy").copy()
    write_array(folder / "features.npy", features + 1)
    done = measure(tmp_path, SPREAD)
    assert done.exit_code == 1
    assert "features.npy: found SHA-256" in done.output
    write_array(folder / "features.npy", features)
    assert measure(tmp_path, SPREAD).exit_code == 0
