"""FID and KID by torch-fidelity, in float64, with standard errors; no more than a block of rows at a time in float64.

References:
    | GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017), https://arxiv.org/abs/1706.08500, equation 6
    | Demystifying MMD GANs (Binkowski et al., 2018), https://arxiv.org/abs/1801.01401, equation 4
    | High-fidelity performance metrics for generative models in PyTorch (Obukhov et al., 2020),
    | https://github.com/toshas/torch-fidelity
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric
from torch_fidelity.metric_kid import kernel_mmd
from torch_fidelity.utils import extract_featuresdict_from_input_id

from indm.data import to_uint8

Statistics = dict[str, NDArray[np.float64]]
"""``mu`` (F,) and ``sigma`` (F, F), as torch-fidelity names them."""

BLOCK = 4096
# Up to this many features torch-fidelity's general eigenvalues cost milliseconds, and the bootstrap uses them too.
GENERAL = 256


class ImageArray(Dataset[Tensor]):
    """Images as torch-fidelity takes them, uint8 (3, H, W), one at a time; the array may be memory-mapped.

    Arguments:
        images: levels, uint8, shape (N, C, H, W).
        levels: number of levels.
    """

    def __init__(self, images: NDArray[np.uint8], levels: int) -> None:
        self.images, self.levels = images, levels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(to_uint8(self.images[index : index + 1], self.levels)[0])


def features(
    extractor: FeatureExtractorBase,
    images: NDArray[np.uint8],
    levels: int = 256,
    batch_size: int | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Extract features, a batch of images at a time, without TensorFloat-32.

    Arguments:
        extractor: a torch-fidelity extractor.
        images: levels, uint8, shape (N, C, H, W); an array or a memory map.
        levels: number of levels of the images.
        batch_size: images in a batch; 32 for Inception and 256 for small extractors where it is ``None``.
        device: where to extract; the CPU where it is ``None``.

    Returns:
        Features (N, F) on the CPU: float32 of Inception, which halves their 800 MB of 50,000 images, and float64 of others.
    """
    cuda = device is not None and device.type == "cuda"
    batch_size = batch_size or (32 if isinstance(extractor, FeatureExtractorInceptionV3) else 256)
    dataset = ImageArray(images, levels)
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        found = extract_featuresdict_from_input_id(
            1,
            extractor.to(device),
            input1=dataset,
            batch_size=batch_size,
            cuda=cuda,
            save_cpu_ram=True,
            verbose=False,
        )
    return found[extractor.get_requested_features_list()[0]]


def statistics(features: Tensor, counts: NDArray[np.intp] | None = None) -> Statistics:
    """Mean and unbiased covariance in float64, of features that may be float32.

    Arguments:
        features: shape (N, F).
        counts: how often each row counts, shape (N,); once where it is ``None``.

    Returns:
        The statistics, as torch-fidelity's ``fid_features_to_statistics`` gives them.
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
    """Yield blocks of rows that count, (B, F) in float64, and their weights (B, 1)."""
    weights = np.ones(len(features)) if counts is None else counts.astype(np.float64)
    index = np.flatnonzero(weights)
    for start in range(0, len(index), BLOCK):
        chosen = index[start : start + BLOCK]
        yield features.numpy()[chosen].astype(np.float64), weights[chosen, None]


def fid(first: Tensor, second: Tensor) -> float:
    r"""Fréchet distance of the Gaussians fitted to two sets of features.

    .. math:: \|\mu_1-\mu_2\|^2 + \mathrm{tr}\big(\Sigma_1 + \Sigma_2 - 2(\Sigma_1\Sigma_2)^{1/2}\big)

    Arguments:
        first: features, shape (N, F).
        second: features, shape (M, F).

    References:
        | GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017)
        | https://arxiv.org/abs/1706.08500, equation 6
    """
    return _fid(statistics(first), statistics(second))


def _fid(first: Statistics, second: Statistics) -> float:
    return fid_statistics_to_metric(first, second, verbose=False)[KEY_METRIC_FID]


def symmetric_root(sigma: NDArray[np.float64]) -> NDArray[np.float64]:
    """Symmetric square root of a covariance (F, F)."""
    values, vectors = np.linalg.eigh(sigma)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def fid_symmetric(first: Statistics, second: Statistics, root: NDArray[np.float64]) -> float:
    r"""Fréchet distance from symmetric eigenvalues, several times faster than general ones where there are many features.

    .. math:: \mathrm{tr}(\Sigma_1\Sigma_2)^{1/2} = \mathrm{tr}(R\,\Sigma_1 R)^{1/2}, \qquad R = \Sigma_2^{1/2}

    Arguments:
        first: statistics of one set.
        second: statistics of the other.
        root: the symmetric root :math:`R` of the second's covariance, which many draws share.

    References:
        | GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017)
        | https://arxiv.org/abs/1706.08500, equation 6
    """
    shift = first["mu"] - second["mu"]
    cross = np.sqrt(np.linalg.eigvalsh(root @ first["sigma"] @ root).clip(0)).sum()
    return float(shift @ shift + np.trace(first["sigma"]) + np.trace(second["sigma"]) - 2 * cross)


def bootstrap_fid(
    generated: Tensor, reference: Statistics, draws: int, rng: np.random.Generator, general: int = GENERAL
) -> float:
    """Standard deviation of FID over bootstrap draws of the generated images.

    Arguments:
        generated: features, shape (N, F).
        reference: statistics of the reference.
        draws: number of draws.
        rng: source of the draws.
        general: number of features up to which torch-fidelity's own formula is used.
    """
    count, dims = generated.shape
    indices = (rng.integers(count, size=count) for _ in range(draws))
    if dims <= general:
        spread = [_fid(statistics(generated[index]), reference) for index in indices]
    else:
        root = symmetric_root(reference["sigma"])
        counts = (np.bincount(index, minlength=count) for index in indices)
        spread = [fid_symmetric(statistics(generated, count), reference, root) for count in counts]
    return float(np.std(spread, ddof=1))


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


def compare(
    generated: Tensor, reference: Tensor, *, kid_subsets: int, kid_subset_size: int, bootstrap: int, seed: int
) -> dict[str, float]:
    r"""Compare generated features with reference features.

    ``fid_se`` is the standard deviation of FID over bootstrap draws of the generated images. ``kid_se`` follows from the
    spread of torch-fidelity's subsets of size m: :math:`\mathrm{std}\sqrt{m/N}`. Both hold the reference fixed.

    Arguments:
        generated: features, shape (N, F).
        reference: features, shape (M, F).
        kid_subsets: number of subsets of KID.
        kid_subset_size: images in a subset, at most N and M.
        bootstrap: bootstrap draws of the standard error of FID.
        seed: seed of the subsets and of the bootstrap.

    Returns:
        ``fid``, ``fid_se``, ``kid``, ``kid_se``.
    """
    real = statistics(reference)
    mean, std = kid(generated, reference, subsets=kid_subsets, subset_size=kid_subset_size, seed=seed % 2**32)
    return {
        "fid": _fid(statistics(generated), real),
        "fid_se": bootstrap_fid(generated, real, bootstrap, np.random.default_rng(seed)),
        "kid": mean,
        "kid_se": std * (kid_subset_size / len(generated)) ** 0.5,
    }


def halves(count: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split the indices 0 … count - 1 into two random halves of equal size."""
    order = np.random.default_rng(seed).permutation(count)
    return order[: count // 2], order[count // 2 : 2 * (count // 2)]
