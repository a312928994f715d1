"""Folders of PNG files as a dataset: what is read, what is refused, and a suite of them that has no FID."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from indm.bench import doctor
from indm.bench.doctor import MISSING, READY
from indm.bench.pipeline.jobs import jobs_of
from indm.bench.suite.load import load_suite
from indm.data.folders import PngDataset, PngFolders
from indm.errors import DataError, ParamsError
from indm.report.published import read_published
from indm.report.tables import suite_tables
from indm.store.layout import Layout
from indm.strict_yaml import parse_yaml, yaml_text
from tests.conftest import FROZEN, REPOSITORY
from tests.test_report import CELL_OF_DDPMPP, collected, first, written


def write(path: Path, size: tuple[int, int] = (4, 4), mode: str = "RGB", level: int = 7) -> None:
    """Write an image whose pixels all have the same level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, level if mode in ("L", "I;16") else (level,) * len(mode)).save(path)


@pytest.fixture
def dataset(tmp_path: Path) -> PngDataset:
    """Three training images, named 00, 01 and 02, and a test image, all with their number as their level."""
    for number in range(3):
        write(tmp_path / f"train/{number:02}.png", level=number)
    write(tmp_path / "test/0.PNG", mode="L", level=9)
    (tmp_path / "test/.hidden").touch()
    load = PngFolders(tmp_path, channels=3, image_size=4)
    return PngDataset(
        levels=256, channels=3, image_size=4, classes=0, load=load, source="mine", licence="mine", validation=1
    )


def test_all_images_are_read_in_the_order_of_their_names(dataset: PngDataset) -> None:
    held = dataset.holding_out(None)
    assert held.counts == {"train": 2, "valid": 1, "test": 1}
    splits = held.load(0)
    held.check(splits)
    read = {name: np.concatenate(list(held.read(name, split))) for name, split in splits.items()}
    assert {name: images.shape[1:] for name, images in read.items()} == dict.fromkeys(read, (3, 4, 4))
    assert {name: images[:, 0, 0, 0].tolist() for name, images in read.items()} == {
        "train": [0, 1],
        "valid": [2],
        "test": [9],
    }


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wide.png", "found 6 x 4 pixels, expected 4 x 4"),
        ("clear.png", "found mode RGBA, expected RGB or grey"),
        ("photo.jpg", "found no PNG file"),
        ("text.png", "found no PNG image"),
        ("folder", "found no PNG file"),
    ],
)
def test_a_file_that_does_not_fit_is_named(
    dataset: PngDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    path = tmp_path / "train" / name
    if path.suffix == "":
        path.mkdir()
    elif name == "text.png":
        path.write_text("no image")
    else:
        write(path, (6, 4) if name == "wide.png" else (4, 4), "RGBA" if name == "clear.png" else "RGB")
    with pytest.raises(DataError, match=f"^{path}: {words}"):
        [*dataset.load(0)["train"].pieces()]
    monkeypatch.setattr("indm.registry.DATASETS", {"mine": dataset})
    (item,) = doctor.archives("mine", Path("data"))
    assert (item.state, item.gap.startswith(f"{path}: {words}")) == (MISSING, True)


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_without_images_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool) -> None:
    if exists:
        (tmp_path / "train").mkdir()
    load = PngFolders(tmp_path, channels=3, image_size=4)
    empty = PngDataset(levels=256, channels=3, image_size=4, classes=0, load=load, source="", licence="", validation=1)
    assert empty.holding_out(None).counts is None
    monkeypatch.setattr("indm.registry.DATASETS", {"mine": empty})
    (item,) = doctor.archives("mine", Path("data"))
    assert (item.state, item.gap.startswith(f"{tmp_path / 'train'}: found no images")) == (MISSING, True)


def test_images_are_counted_before_the_first_job(
    dataset: PngDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ParamsError, match="found 3; allowed: below 3, the training images"):
        dataset.holding_out(3)
    monkeypatch.setattr("indm.registry.DATASETS", {"mine": dataset})
    (item,) = doctor.archives("mine", Path("data"))
    assert (item.state, item.detail) == (READY, f"{tmp_path}, 3 train and 1 test images")


# A suite without an extractor.


@pytest.fixture
def unmeasured(tmp_path: Path) -> Path:
    """The frozen suite without extractors, and so without what needs one."""
    content = parse_yaml(FROZEN.read_text()) | {"reference": {}, "protocol": {}, "tune": {}}
    path = tmp_path / FROZEN.name
    path.write_text(yaml_text(content))
    return path


def test_a_suite_without_an_extractor_measures_no_images(unmeasured: Path) -> None:
    suite = load_suite(unmeasured, with_data=True)
    assert suite.sweep.objectives, "otherwise it would have no sweep anyway"
    stages = {job.stage for job in jobs_of(suite)}
    assert not stages & {"reference", "fid", "sweep", "sweep_shard", "protocol", "tune"}
    assert {"prepare", "train", "sample", "nll", "table", "claims", "report"} <= stages


@pytest.mark.parametrize(("key", "words"), [("protocol", "found a study of FID"), ("tune", "found a search")])
def test_what_needs_an_extractor_is_refused_without_one(unmeasured: Path, key: str, words: str) -> None:
    content = parse_yaml(unmeasured.read_text())
    space = {"lr": {"low": 0.001, "high": 0.01, "log": True}}
    search = {"trials": 2, "steps": 4, "seeds": [1], "space": space, "confirm": None, "lengths": []}
    found = parse_yaml(FROZEN.read_text())[key] or {next(iter(load_suite(unmeasured).runs)): search}
    unmeasured.write_text(yaml_text(content | {key: found}))
    with pytest.raises(ParamsError, match=f"key {key}.{next(iter(found))}: {words}"):
        load_suite(unmeasured)


def test_tables_without_fid_have_all_other_numbers(tmp_path: Path) -> None:
    whole = written(tmp_path, [{}])
    name = first(whole)
    (Layout(tmp_path, whole.suite).run(name) / "fid.json").unlink()
    published = read_published(REPOSITORY / "params/published.csv")
    tables = suite_tables(collected(tmp_path, {name: CELL_OF_DDPMPP | {"seed": 0}}), published, "learned")
    expected = suite_tables(whole, published, "learned")
    assert tables["fid"].empty
    assert list(tables["fid"]) == list(expected["fid"])
    assert tables["nll"].equals(expected["nll"])
    values = expected["values"]
    others = values[values["stage"] != "fid"].reset_index(drop=True)
    pd.testing.assert_frame_equal(tables["values"], others, check_dtype=False)
