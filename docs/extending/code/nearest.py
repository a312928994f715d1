"""How near images lie to others: those that a model has memorised lie nearer to its training images than unseen ones do."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

# Images in a block of the matrix of distances.
BLOCK = 100


def nearest(images: NDArray[Any], others: NDArray[Any]) -> NDArray[np.float64]:
    r"""Measure the distance of each image from the nearest other one, in levels.

    .. math:: d(x) = \min_j \sqrt{\tfrac1D \|x - y_j\|^2}

    Arguments:
        images: levels, shape (N, C, H, W).
        others: levels, shape (M, C, H, W).

    Returns:
        The distances, shape (N,).
    """
    flat, others = images.reshape(len(images), -1), others.reshape(len(others), -1)
    blocks = (cdist(flat[start : start + BLOCK], others) for start in range(0, len(flat), BLOCK))
    return np.concatenate([block.min(1) for block in blocks]) / np.sqrt(others.shape[1])
