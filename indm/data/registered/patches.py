"""32x32 colour patches of scikit-learn's two sample photographs: real images, 256 levels, no download."""

import numpy as np
from numpy.typing import NDArray

from indm.data.dataset import Dataset, Split, Splits

SIZE = 32
# Columns of the photographs (640 wide) that each split may use, so that splits do not share pixels.
COLUMNS = {"train": (0, 416), "valid": (416, 512), "test": (512, 640)}
STRIDES = {"train": 8, "valid": 16, "test": 16}


def cut(photograph: NDArray[np.uint8], columns: tuple[int, int], stride: int, offset: int) -> NDArray[np.uint8]:
    """Cut every patch of a strip on a grid.

    Arguments:
        photograph: levels 0 … 255, uint8, shape (H, W, 3).
        columns: the first column of the strip, and the first column after it.
        stride: pixels between neighbouring patches in either direction.
        offset: the first row of the strip.

    Returns:
        Levels 0 … 255, uint8, shape (N, 3, 32, 32), row by row of the grid.
    """
    strip = photograph[offset:, columns[0] : columns[1]]
    windows = np.lib.stride_tricks.sliding_window_view(strip, (SIZE, SIZE), axis=(0, 1))[::stride, ::stride]
    return windows.reshape(-1, 3, SIZE, SIZE)


def load_patches(split_seed: int) -> Splits:
    """Cut the patches, labelled by their photograph; the seed shifts the grid by up to seven rows."""
    # Imported here because scikit-learn is slow to import and only the `prepare` stage needs it.
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images
    splits = {}
    for split, columns in COLUMNS.items():
        patches = [cut(photograph, columns, STRIDES[split], split_seed % 8) for photograph in photographs]
        labels = np.repeat(np.arange(len(patches), dtype=np.uint8), len(patches[0]))
        splits[split] = Split.whole(np.concatenate(patches), labels)
    return splits


DATASET = Dataset(
    levels=256,
    channels=3,
    image_size=32,
    classes=2,
    load=load_patches,
    source="patches of scikit-learn's sample images china.jpg and flower.jpg",
    licence="CC BY 2.0: china.jpg by danielbuechele, flower.jpg by vultilion, both on flickr.com",
)
