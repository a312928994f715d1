"""The Fréchet distance between two sets of features, in float64, by the cheapest stable formula.

At most one block of rows is held in float64 at a time.

References:
    | GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017), https://arxiv.org/abs/1706.08500, equation 6
    | On Aliased Resizing and Surprising Subtleties in GAN Evaluation (Parmar et al., 2022), https://arxiv.org/abs/2104.11222
    | High-fidelity performance metrics for generative models in PyTorch (Obukhov et al., 2020),
    | https://github.com/toshas/torch-fidelity
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

Statistics = dict[str, NDArray[np.float64]]
"""``mu`` (F,) and ``sigma`` (F, F), named as in torch-fidelity."""
BLOCK = 4096
# Up to this number of features, torch-fidelity's general eigenvalues are cheap enough for every draw of the bootstrap.
GENERAL = 256
# Methods for the trace of the root.
FORMULAS = {
    "general": "general eigenvalues, by torch-fidelity",
    "symmetric": "symmetric eigenvalues of R Sigma R, R the root of the reference's Sigma",
    "low rank": "symmetric eigenvalues of A Sigma A', A'A the covariance of fewer images than features",
    "clean-fid": "matrix square root, by clean-fid",
}


@dataclass(frozen=True)
class Reference:
    """A set of features with which generated images are compared.

    Arguments:
        statistics: mean and covariance of its features.
        features: the features, shape (M, F), or ``None`` if only the statistics are known.
    """

    statistics: Statistics
    features: Tensor | None

    @classmethod
    def of(cls, features: Tensor) -> "Reference":
        """Make a reference from features, shape (M, F), on the CPU."""
        return cls(statistics(features), features)

    @cached_property
    def root(self) -> NDArray[np.float64]:
        """The symmetric square root of the covariance, shape (F, F), which many distances share."""
        return symmetric_root(self.statistics["sigma"])


def statistics(features: Tensor, counts: NDArray[np.intp] | None = None) -> Statistics:
    r"""Compute mean and unbiased covariance in float64, from features that may be float32.

    .. math:: \mu = \frac1n \sum_i w_i f_i, \qquad \Sigma = \frac{1}{n - 1} \sum_i w_i (f_i - \mu)(f_i - \mu)^\top, \qquad
        n = \sum_i w_i

    Arguments:
        features: f, shape (N, F), on the CPU.
        counts: w, the weight of each row, shape (N,); 1 for all rows if ``None``.

    Returns:
        ``mu``, shape (F,), and ``sigma``, shape (F, F), as torch-fidelity's ``fid_features_to_statistics`` gives them.
    """
    total = len(features) if counts is None else int(counts.sum())
    mu = np.zeros(features.shape[1])
    sigma = np.zeros((features.shape[1],) * 2)
    for rows, weights in _blocks(features, counts):
        mu += (weights * rows).sum(0)
    mu /= total
    for rows, weights in _blocks(features, counts):
        centred = np.sqrt(weights) * (rows - mu)
        sigma += centred.T @ centred
    return {"mu": mu, "sigma": sigma * (1 / (total - 1))}


def _blocks(
    features: Tensor, counts: NDArray[np.intp] | None
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield blocks of the rows with a positive weight, (B, F) in float64, and their weights (B, 1)."""
    weights = np.ones(len(features)) if counts is None else counts.astype(np.float64)
    index = np.flatnonzero(weights)
    for start in range(0, len(index), BLOCK):
        chosen = index[start : start + BLOCK]
        yield features.numpy()[chosen].astype(np.float64), weights[chosen, None]


def frechet(generated: Tensor, reference: Reference) -> tuple[float, str]:
    r"""Compute the Fréchet distance between the Gaussians fitted to two sets of features.

    .. math:: \|\mu_1-\mu_2\|^2 + \mathrm{tr}\big(\Sigma_1 + \Sigma_2 - 2(\Sigma_1\Sigma_2)^{1/2}\big)

    Arguments:
        generated: features, shape (N, F).
        reference: the other set.

    Returns:
        The distance, which has no unit, and the key in ``FORMULAS`` of the method used; all methods agree up to rounding.

    References:
        | GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017)
        | https://arxiv.org/abs/1706.08500, equation 6
    """
    if generated.shape[1] <= GENERAL:
        return frechet_general(statistics(generated), reference.statistics), "general"
    return frechet_symmetric(generated, reference)


def frechet_general(first: Statistics, second: Statistics) -> float:
    r"""Compute the Fréchet distance between two Gaussians by torch-fidelity, from general eigenvalues.

    .. math:: \mathrm{tr}(\Sigma_1\Sigma_2)^{1/2} = \sum_i \sqrt{\lambda_i(\Sigma_1\Sigma_2)}

    Arguments:
        first: statistics of one set, ``mu`` with shape (F,) and ``sigma`` with shape (F, F).
        second: statistics of the other set, in the same shapes.
    """
    return fid_statistics_to_metric(first, second, verbose=False)[KEY_METRIC_FID]


def frechet_symmetric(
    generated: Tensor, reference: Reference, counts: NDArray[np.intp] | None = None
) -> tuple[float, str]:
    """Compute the Fréchet distance by the cheaper of the two symmetric forms, :func:`fid_low_rank` and :func:`fid_symmetric`.

    Arguments:
        generated: features, shape (N, F).
        reference: the other set.
        counts: weight of each row, shape (N,); 1 for all rows if ``None``.

    Returns:
        The distance, which has no unit, and the key in ``FORMULAS`` of the method used.
    """
    if generated.shape[0] <= generated.shape[1]:
        return fid_low_rank(generated, reference.statistics, counts), "low rank"
    return fid_symmetric(statistics(generated, counts), reference.statistics, reference.root), "symmetric"


def frechet_clean(generated: Tensor, reference: Reference) -> tuple[float, str]:
    """Compute the Fréchet distance by clean-fid, or by :func:`frechet` for fewer images than features.

    With fewer images than features, the product of covariances does not have a stable root.

    Arguments:
        generated: features, shape (N, F).
        reference: the other set.

    Returns:
        The distance, and the key in ``FORMULAS`` of the method used.
    """
    if generated.shape[0] <= generated.shape[1]:
        return frechet_symmetric(generated, reference)
    from cleanfid.fid import frechet_distance  # Imported here because it imports torchvision, whose import is slow.

    found, real = statistics(generated), reference.statistics
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # clean-fid uses an argument that SciPy 1.18 removes.
        return float(frechet_distance(found["mu"], found["sigma"], real["mu"], real["sigma"])), "clean-fid"


def fid_low_rank(generated: Tensor, reference: Statistics, counts: NDArray[np.intp] | None = None) -> float:
    r"""Compute the Fréchet distance for at most as many images as features, without their covariance.

    .. math:: \mathrm{tr}(\Sigma_1\Sigma_2)^{1/2} = \mathrm{tr}(A\,\Sigma_2 A^\top)^{1/2}, \qquad \Sigma_1 = A^\top A

    Both products have the same eigenvalues, except for zeros.

    Arguments:
        generated: features, shape (N, F), N at most F.
        reference: statistics of the reference, ``mu`` with shape (F,) and ``sigma`` with shape (F, F).
        counts: weight of each row, shape (N,); 1 for all rows if ``None``.

    References:
        | GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017)
        | https://arxiv.org/abs/1706.08500, equation 6
    """
    weights = np.ones(len(generated)) if counts is None else counts.astype(np.float64)
    rows, total = generated.numpy().astype(np.float64), weights.sum()
    mu = weights @ rows / total
    factor = np.sqrt(weights / (total - 1))[:, None] * (rows - mu)
    cross = np.sqrt(np.linalg.eigvalsh(factor @ reference["sigma"] @ factor.T).clip(0)).sum()
    shift = mu - reference["mu"]
    return float(shift @ shift + np.square(factor).sum() + np.trace(reference["sigma"]) - 2 * cross)


def symmetric_root(sigma: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""Return the symmetric square root of a covariance.

    .. math:: R = V \,\mathrm{diag}(\sqrt{\max(\lambda, 0)})\, V^\top, \qquad \Sigma = V\,\mathrm{diag}(\lambda)\,V^\top

    Arguments:
        sigma: the covariance, symmetric, shape (F, F).

    Returns:
        R, shape (F, F); negative eigenvalues, which come from rounding, count as 0.
    """
    values, vectors = np.linalg.eigh(sigma)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def fid_symmetric(first: Statistics, second: Statistics, root: NDArray[np.float64]) -> float:
    r"""Compute the Fréchet distance from symmetric eigenvalues, which need fewer operations than general ones.

    .. math:: \mathrm{tr}(\Sigma_1\Sigma_2)^{1/2} = \mathrm{tr}(R\,\Sigma_1 R)^{1/2}, \qquad R = \Sigma_2^{1/2}

    Arguments:
        first: statistics of one set, ``mu`` with shape (F,) and ``sigma`` with shape (F, F).
        second: statistics of the other set, in the same shapes.
        root: the symmetric root :math:`R` of the second covariance, shape (F, F), which many draws share.

    References:
        | GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017)
        | https://arxiv.org/abs/1706.08500, equation 6
    """
    shift = first["mu"] - second["mu"]
    cross = np.sqrt(np.linalg.eigvalsh(root @ first["sigma"] @ root).clip(0)).sum()
    return float(shift @ shift + np.trace(first["sigma"]) + np.trace(second["sigma"]) - 2 * cross)


def bootstrap_fid(generated: Tensor, reference: Reference, draws: int, rng: np.random.Generator) -> float:
    """Return the standard deviation of FID over bootstrap draws of the generated images.

    Arguments:
        generated: features, shape (N, F).
        reference: the reference, held fixed.
        draws: number of draws, at least 2.
        rng: source of the draws.
    """
    count, dims = generated.shape
    indices = (rng.integers(count, size=count) for _ in range(draws))
    if dims <= GENERAL:
        spread = [frechet_general(statistics(generated[index]), reference.statistics) for index in indices]
    else:
        counts = (np.bincount(index, minlength=count) for index in indices)
        spread = [frechet_symmetric(generated, reference, count)[0] for count in counts]
    return float(np.std(spread, ddof=1))
