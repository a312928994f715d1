"""The distance of mean features."""

import numpy as np
from torch import Tensor

from indm.metrics.frechet import Reference, statistics


def mean_distance(generated: Tensor, reference: Reference) -> dict[str, float]:
    r"""Squared distance of the mean features, with its standard error over the generated images by the delta method.

    .. math:: \|\mu_1-\mu_2\|^2, \qquad \mathrm{se}^2 = \frac4N (\mu_1-\mu_2)^\top \Sigma_1 (\mu_1-\mu_2)

    Arguments:
        generated: features, shape (N, F).
        reference: the other set.

    References:
        | GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017)
        | https://arxiv.org/abs/1706.08500, equation 6
    """
    found = statistics(generated)
    shift = found["mu"] - reference.statistics["mu"]
    error = np.sqrt(4 * shift @ found["sigma"] @ shift / len(generated))
    return {"mean_distance": float(shift @ shift), "mean_distance_se": float(error)}
