"""Datasets: one contract over every registered member, splits, scaling and bits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator

from indm.data import DATASETS, SPLITS, bits_per_dim, dequantise, quantise, to_uint8
from indm.errors import DataError

EACH = pytest.mark.parametrize("name", sorted(DATASETS))


@EACH
def test_contract(name: str) -> None:
    dataset = DATASETS[name]
    arrays = dataset.load(0)
    dataset.check(arrays)
    again = dataset.load(0)
    assert all(np.array_equal(arrays[key], again[key]) for key in arrays)
    assert any(not np.array_equal(arrays[key], dataset.load(1)[key]) for key in arrays)
    assert set(arrays) == {*SPLITS, *(f"{split}_labels" for split in SPLITS)}


@EACH
def test_no_test_image_is_in_training(name: str) -> None:
    arrays = DATASETS[name].load(0)
    train = {image.tobytes() for image in arrays["train"]}
    for split in ("valid", "test"):
        shared = sum(image.tobytes() in train for image in arrays[split])
        assert shared == 0


def test_digits_are_all_of_them() -> None:
    arrays = DATASETS["digits"].load(0)
    assert sum(len(arrays[split]) for split in SPLITS) == 1797
    assert [len(arrays[split]) for split in SPLITS] == [1257, 180, 360]


def test_check_refuses_other_shapes_and_levels() -> None:
    dataset = DATASETS["digits"]
    arrays = dataset.load(0)
    with pytest.raises(
        DataError, match=r"train images: found uint8 \(1257, 1, 8, 7\), expected uint8 \(1257, 1, 8, 8\)"
    ):
        dataset.check({**arrays, "train": arrays["train"][..., :7]})
    with pytest.raises(DataError, match="level 17"):
        dataset.check({**arrays, "test": arrays["test"] + 1})


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


def test_bits_of_uniform_noise() -> None:
    """The uniform density on [-1, 1]^D costs log2 L bits a pixel, whatever D."""
    for levels, dims in ((17, 64), (256, 3072)):
        nats = torch.tensor([dims * math.log(2)], dtype=torch.float64)
        assert bits_per_dim(nats, dims, levels).item() == pytest.approx(math.log2(levels))


def test_released_offset_of_256_levels() -> None:
    assert bits_per_dim(torch.zeros(1), 3072, 256).item() == 7


def test_to_uint8_spans_the_range_and_repeats_grey() -> None:
    images = np.array([0, 8, 16], dtype=np.uint8).reshape(3, 1, 1, 1)
    assert to_uint8(images, 17)[:, :, 0, 0].tolist() == [[0] * 3, [128] * 3, [255] * 3]
