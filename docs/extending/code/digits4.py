"""scikit-learn's handwritten digits, 2 x 2 blocks averaged: 4x4, grey, 17 levels."""

import numpy as np

from indm.data.dataset import Dataset, Split, Splits
from indm.data.registered.digits import load_digits


def load_digits4(split_seed: int) -> Splits:
    """Average the blocks of the digits (N, 1, 8, 8) to (N, 1, 4, 4), split as the digits are."""
    splits = {}
    for name, split in load_digits(split_seed).items():
        (images,) = split.pieces()
        blocks = images.reshape(-1, 1, 4, 2, 4, 2).mean((3, 5))
        splits[name] = Split.whole(np.rint(blocks).astype(np.uint8), split.labels)
    return splits


DATASET = Dataset(
    levels=17,
    channels=1,
    image_size=4,
    classes=10,
    load=load_digits4,
    source="scikit-learn load_digits, 2x2 blocks averaged: https://doi.org/10.24432/C50P49",
    licence="CC BY 4.0",
)
