"""A prepared dataset: the arrays that stage ``prepare`` wrote, as tensors."""

from pathlib import Path

import torch
from torch import Tensor

from indm.store.files import read_array


def read_split(folder: Path, split: str) -> Tensor:
    """Map a split's images into memory, uint8, shape (N, C, H, W): a batch is read from the disk when it is indexed."""
    return torch.from_numpy(read_array(folder / f"{split}.npy"))
