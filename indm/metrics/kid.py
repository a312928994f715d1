"""The kernel distance, by torch-fidelity."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch_fidelity.metric_kid import kernel_mmd


def kid(first: Tensor, second: Tensor, *, subsets: int, subset_size: int, seed: int) -> tuple[float, float]:
    """Kernel distance: mean and standard deviation over torch-fidelity's subsets, each in float64.

    Arguments:
        first: features, shape (N, F).
        second: features, shape (M, F).
        subsets: number of subsets.
        subset_size: images in a subset, at most N and M.
        seed: seed of the subsets.

    References:
        | Demystifying MMD GANs (Binkowski et al., 2018), https://arxiv.org/abs/1801.01401, equation 4
    """
    # torch-fidelity draws its subsets so.
    rng = np.random.RandomState(seed)

    def draw(rows: Tensor) -> NDArray[np.float64]:
        return rows.numpy()[rng.choice(len(rows), subset_size, replace=False)].astype(np.float64)

    distances = [kernel_mmd(draw(first), draw(second)) for _ in range(subsets)]
    return float(np.mean(distances)), float(np.std(distances))
