"""The kernel distance, by torch-fidelity, and its standard error over the generated images."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_fidelity.metric_kid import kernel_mmd

# Largest number n of images that the jackknife leaves out, one at a time; for normal values, the standard error is then known
# to 1 / sqrt(2 n), below 2 %.
JACKKNIFE = 2000
# Columns of a block of the kernel matrix, which for 2,000 rows takes 32 MB in float64.
COLUMNS = 2000


def kid(generated: Tensor, reference: Tensor, *, subsets: int, subset_size: int, seed: int) -> tuple[float, float]:
    r"""Compute KID, the mean over torch-fidelity's subsets, and its standard error for a fixed reference.

    A subset's distance is the unbiased estimate of the squared maximum mean discrepancy with the cubic kernel

    .. math:: k(x, y) = \Big(\frac{x^\top y}{F} + 1\Big)^3

    Over all subsets the mean is the unbiased distance between all generated images and the whole reference. The jackknife
    estimates its variance v over new images, and the choice of only B subsets, with distances d_b, adds to it:

    .. math:: \mathrm{se}^2 = v + \frac{1}{B(B-1)} \sum_b (d_b - \bar d)^2

    Arguments:
        generated: features, shape (N, F).
        reference: features, shape (M, F).
        subsets: number B of subsets, at least 2.
        subset_size: number of images in a subset, at most N and M.
        seed: seed of the subsets and of the jackknife's choice of images.

    Returns:
        KID and its standard error, which have no unit.

    Raises:
        ValueError: if a subset is larger than N or M.

    References:
        | Demystifying MMD GANs (Binkowski et al., 2018), https://arxiv.org/abs/1801.01401, equation 4
    """
    # torch-fidelity draws its subsets in this way.
    rng = np.random.RandomState(seed)

    def draw(rows: Tensor) -> NDArray[np.float64]:
        return rows.numpy()[rng.choice(len(rows), subset_size, replace=False)].astype(np.float64)

    distances = [kernel_mmd(draw(generated), draw(reference)) for _ in range(subsets)]
    variance = jackknife_variance(generated, reference, seed) + np.var(distances, ddof=1) / subsets
    return float(np.mean(distances)), float(np.sqrt(variance))


def jackknife_variance(generated: Tensor, reference: Tensor, seed: int) -> float:
    r"""Estimate the variance of the unbiased distance over the generated images by a jackknife, in float64.

    Without image i the distance is a constant plus :math:`2 u_i / (N - 1)`, so that with the sample variance of the
    :math:`u_i`, taken over at most ``JACKKNIFE`` images chosen at random,

    .. math:: v = \frac{4}{N} \mathrm{Var}(u), \qquad
        u_i = \frac1M \sum_j k(x_i, y_j) - \frac{1}{N-2} \sum_{j \ne i} k(x_i, x_j)

    with the kernel of :func:`kid`. A jackknife never underestimates the variance on average. If generated and real images
    have the same distribution, it is up to twice the variance.

    Arguments:
        generated: features x, shape (N, F), N at least 3.
        reference: features y, shape (M, F).
        seed: seed of the choice.

    Returns:
        v, which has no unit.

    References:
        | The Jackknife Estimate of Variance (Efron & Stein, 1981), https://doi.org/10.1214/aos/1176345462
    """
    count = len(generated)
    chosen = np.random.default_rng([seed, 2]).permutation(count)[:JACKKNIFE]
    rows = generated[torch.from_numpy(chosen)].double()
    itself = ((rows**2).mean(1) + 1) ** 3
    others = (_kernel_sums(rows, generated) - itself) / (count - 2)
    return float(4 / count * (_kernel_sums(rows, reference) / len(reference) - others).var())


def _kernel_sums(rows: Tensor, columns: Tensor) -> Tensor:
    """Sum the cubic kernel (x.y / F + 1)^3 of each row, (n, F), over all columns, (N, F), block by block: shape (n,)."""
    blocks = columns.split(COLUMNS)
    return torch.stack([((rows @ block.double().T / rows.shape[1] + 1) ** 3).sum(1) for block in blocks]).sum(0)
