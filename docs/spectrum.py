"""Measure the spectrum of a dataset's training images, in the bands in which gains of flows are measured.

python -m docs.spectrum results/cifar10-1000/data/cifar10/train.npy docs/results/cifar10-1000/spectrum.csv
"""

import sys
from pathlib import Path

import pandas as pd
import torch

from indm.arrays import read_array
from indm.flows.description import bands
from indm.flows.registered.filter import cosine_basis
from indm.measured import BANDS
from indm.store.files import write_table


def spectrum(images: torch.Tensor) -> pd.DataFrame:
    """Return the root mean square of the cosine transform's coefficients, less their means over images, in each band.

    Arguments:
        images: levels, uint8, shape (N, C, S, S); the numbers are in the unit of levels.
    """
    basis = cosine_basis(images.shape[-1]).float()
    squares = (basis @ images.float() @ basis.T).var(0, correction=0).mean(0)
    place = bands(images.shape[-1])
    found = [squares[place == band].mean().sqrt().item() for band in range(BANDS)]
    return pd.DataFrame({"band": range(1, BANDS + 1), "deviation": found})


if __name__ == "__main__":
    write_table(Path(sys.argv[2]), spectrum(torch.from_numpy(read_array(Path(sys.argv[1])))))
