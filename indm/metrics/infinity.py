r"""FID extrapolated to infinitely many generated images.

References:
    | Effectively Unbiased FID and Inception Score and Where to Find Them (Chong & Forsyth, 2020)
    | https://arxiv.org/abs/1911.07023, section 4
"""

from typing import Any

import numpy as np
from torch import Tensor

from indm.metrics.deviations import extrapolate
from indm.metrics.frechet import Reference, frechet_symmetric

# Numbers of disjoint sets into which the images are divided, besides all of them.
SETS = (2, 4)
# A covariance needs two images.
FEWEST = 2 * SETS[-1]


def fid_infinity(generated: Tensor, reference: Reference, fid: float, error: float) -> dict[str, Any]:
    r"""Fit a line in 1/N to the FIDs of all images, of halves and of quarters, averaged over these, by least squares.

    .. math:: \mathrm{FID}_\infty = \sum_k c_k\,\overline{\mathrm{FID}}(N / k), \qquad \sum_k c_k = 1, \quad \sum_k k\,c_k = 0

    An image enters the FID of a set to first order as one term of a mean, so that averages over disjoint sets of equal size
    have the same terms for every k. Since the coefficients sum to one, the standard error is the one of the FID itself. For
    equal distributions, where only terms of second order are left, it is too large, because the bootstrap inflates them.

    Arguments:
        generated: features, shape (N, F), in random order.
        reference: the reference, held fixed: a bias from its number of images stays.
        fid: the FID of all generated images.
        error: its standard error.

    Returns:
        ``fid_infinity`` and ``fid_infinity_se``, which have no unit; both ``None`` for fewer than eight images.
    """
    count = len(generated)
    if count < FEWEST:
        return {"fid_infinity": None, "fid_infinity_se": None}
    sizes = [count // sets for sets in SETS]
    parts = [generated[: sets * size].split(size) for sets, size in zip(SETS, sizes, strict=True)]
    fids = [fid, *(np.mean([frechet_symmetric(rows, reference)[0] for rows in found]) for found in parts)]
    return {"fid_infinity": float(extrapolate([count, *sizes], np.array([fids]))[0]), "fid_infinity_se": error}
