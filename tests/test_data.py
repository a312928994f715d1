"""Datasets: one contract over every registered member, splits, scaling and bits."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Generator

from indm.data.dataset import SPLITS, Dataset, Split
from indm.data.levels import bits_per_dim, dequantise, moments, quantise, to_uint8
from indm.errors import DataError, ParamsError
from indm.registry import DATASETS
from tests.archives import LOADS, MNISTS, tiny

EACH = pytest.mark.parametrize("name", sorted(DATASETS))


@pytest.fixture
def dataset(name: str, tmp_path: Path) -> Dataset:
    """A registered dataset; one that is read from archives, from tiny ones."""
    registered = DATASETS[name]
    if name in LOADS or name in MNISTS:
        return replace(registered, load=tiny(name, tmp_path), counts=None)
    return registered


def read(dataset: Dataset, seed: int = 0) -> dict[str, NDArray[np.uint8]]:
    """Read a dataset whole, through its checks: images by split, and labels as ``train_labels``, …"""
    splits = dataset.load(seed)
    dataset.check(splits)
    arrays = {name: np.concatenate(list(dataset.read(name, splits[name]))) for name in SPLITS}
    return arrays | {f"{name}_labels": splits[name].labels for name in SPLITS}


@EACH
def test_contract(name: str, dataset: Dataset) -> None:
    assert set(dataset.load(0)) == set(SPLITS)
    arrays, again, other = read(dataset), read(dataset), read(dataset, seed=1)
    assert all(np.array_equal(arrays[key], again[key]) for key in arrays)
    # The seed has a say, unless the partition is the publisher's, as that of all archives is.
    assert all(np.array_equal(arrays[key], other[key]) for key in arrays) == dataset.official_partition
    assert dataset.official_partition or not dataset.archives
    assert all(len(arrays[split]) for split in ("train", "test"))
    assert dataset.source
    assert dataset.licence


@EACH
def test_the_last_training_images_are_held_out(name: str, dataset: Dataset) -> None:
    """More than the last piece of CIFAR-10's training images, which has four."""
    if dataset.validation is None:
        assert dataset.holding_out(None) is dataset
        with pytest.raises(ParamsError, match="validation: found 5"):
            dataset.holding_out(5)
        return
    whole, none, held = read(dataset), read(dataset.holding_out(0)), read(dataset.holding_out(5))
    for kind in ("", "_labels"):
        assert np.array_equal(held[f"train{kind}"], whole[f"train{kind}"][:-5])
        assert np.array_equal(held[f"valid{kind}"], whole[f"train{kind}"][-5:])
        assert np.array_equal(held[f"test{kind}"], whole[f"test{kind}"])
    assert all(np.array_equal(none[key], whole[key]) for key in whole)
    with pytest.raises(DataError, match="train: found no images"):
        read(replace(dataset, counts=None).holding_out(100))


@EACH
def test_no_test_image_is_in_training(name: str, dataset: Dataset) -> None:
    arrays = read(dataset)
    train = {image.tobytes() for image in arrays["train"]}
    for split in ("valid", "test"):
        shared = sum(image.tobytes() in train for image in arrays[split])
        assert shared == 0


def test_digits_are_all_of_them() -> None:
    splits = DATASETS["digits"].load(0)
    assert [splits[split].count for split in SPLITS] == [1257, 180, 360]


def test_other_shapes_levels_and_labels_are_refused() -> None:
    digits = DATASETS["digits"]
    splits, arrays = digits.load(0), read(digits)
    with pytest.raises(DataError, match=r"train.*\(1257, 1, 8, 7\).*\(1257, 1, 8, 8\)"):
        list(digits.read("train", Split.whole(arrays["train"][..., :7], arrays["train_labels"])))
    with pytest.raises(DataError, match=r"test.*level 17"):
        list(digits.read("test", Split.whole(arrays["test"] + 1, arrays["test_labels"])))
    with pytest.raises(DataError, match=r"test.*359 labels.*360"):
        digits.check({**splits, "test": replace(splits["test"], labels=arrays["test_labels"][1:])})
    with pytest.raises(DataError, match=r"train.*label 10"):
        digits.check({**splits, "train": replace(splits["train"], labels=arrays["train_labels"] + 1)})
    with pytest.raises(DataError, match="test: found no image"):
        digits.check({**splits, "test": Split.whole(arrays["test"][:0], arrays["test_labels"][:0])})


@given(levels=st.integers(2, 256), seed=st.integers(0, 2**31))
def test_dequantise_round_trip(levels: int, seed: int) -> None:
    images = torch.arange(levels, dtype=torch.uint8).repeat(50)
    x = dequantise(images, levels, Generator().manual_seed(seed))
    assert x.abs().max() <= 1
    # A draw within rounding of a cell's edge may fall into the next cell.
    wrong = (quantise(x, levels).int() - images.int()).abs()
    assert wrong.max() <= 1
    assert wrong.float().mean() < 1e-3


def test_data_in_the_unit_interval() -> None:
    """The released VE models' scaling: levels return, and uniform noise costs log2 L bits there too."""
    images = torch.arange(256, dtype=torch.uint8)
    x = dequantise(images, 256, Generator().manual_seed(0), centered=False)
    assert x.min() >= 0
    assert x.max() <= 1
    assert torch.equal(quantise(x, 256, centered=False), images)
    assert bits_per_dim(torch.zeros(1), 3072, 256, centered=False).item() == 8


def test_quantise_clips() -> None:
    assert quantise(torch.tensor([-9.0, 9.0]), 17).tolist() == [0, 16]


@pytest.mark.parametrize("centered", [True, False])
def test_floor_is_the_released_rounding(centered: bool) -> None:
    """As the released code stores images: times 255, clipped, truncated. Of level l, l / 255 become darker by one."""
    images = torch.arange(256, dtype=torch.uint8).repeat(2000)
    x = dequantise(images, 256, Generator().manual_seed(0), centered)
    found = quantise(x, 256, centered, "floor")
    unit = ((x + 1) / 2 if centered else x).numpy()
    assert np.array_equal(found.numpy(), np.clip(unit * 255.0, 0.0, 255.0).astype(np.uint8))
    assert quantise(torch.tensor([-9.0, 9.0]), 256, centered, "floor").tolist() == [0, 255]
    darker = (images.int() - found.int()).reshape(2000, 256).float()
    assert darker.min() >= 0
    assert darker.max() <= 1
    assert (darker.mean(0) - torch.arange(256) / 255).abs().max() < 5 * 0.5 / 2000**0.5


def test_bits_of_uniform_noise() -> None:
    """The uniform density on [-1, 1]^D costs log2 L bits a pixel, whatever D."""
    for levels, dims in ((17, 64), (256, 3072)):
        nats = torch.tensor([dims * math.log(2)], dtype=torch.float64)
        assert bits_per_dim(nats, dims, levels).item() == pytest.approx(math.log2(levels))


def test_to_uint8_spans_the_range_and_repeats_grey() -> None:
    images = np.array([0, 8, 16], dtype=np.uint8).reshape(3, 1, 1, 1)
    assert to_uint8(images, 17)[:, :, 0, 0].tolist() == [[0] * 3, [128] * 3, [255] * 3]


@pytest.mark.parametrize("centered", [True, False])
def test_moments_are_those_of_dequantised_images(centered: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 5, (200, 1, 20, 20), generator=generator, dtype=torch.uint8) * 3
    x = dequantise(images, 17, generator, centered).double()
    mean, std = moments(images, 17, centered)
    assert mean == pytest.approx(x.mean().item(), abs=5e-3)
    assert std == pytest.approx(x.std().item(), abs=5e-3)
