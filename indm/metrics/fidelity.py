"""FID and KID by torch-fidelity, in float64, with standard errors.

References:
    | GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017), https://arxiv.org/abs/1706.08500, equation 6
    | Demystifying MMD GANs (Binkowski et al., 2018), https://arxiv.org/abs/1801.01401, equation 4
    | High-fidelity performance metrics for generative models in PyTorch (Obukhov et al., 2020),
    | https://github.com/toshas/torch-fidelity
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric
from torch_fidelity.utils import extract_featuresdict_from_input_id


class ImageArray(Dataset[Tensor]):
    """uint8 images (N, 3, H, W) as torch-fidelity takes them, one at a time."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(np.array(self.images[index]))


def features(extractor: FeatureExtractorBase, images: NDArray[np.uint8], batch_size: int = 256) -> Tensor:
    """Extract the features of uint8 images (N, 3, H, W): shape (N, F), float64."""
    layer = extractor.get_requested_features_list()[0]
    found = extract_featuresdict_from_input_id(
        1, extractor, input1=ImageArray(images), batch_size=batch_size, cuda=False, save_cpu_ram=True, verbose=False
    )
    return found[layer].double()


def fid(first: Tensor, second: Tensor) -> float:
    r"""Fréchet distance of the Gaussians fitted to two sets of features.

    .. math:: \|\mu_1-\mu_2\|^2 + \mathrm{tr}\big(\Sigma_1 + \Sigma_2 - 2(\Sigma_1\Sigma_2)^{1/2}\big)

    Arguments:
        first: features, shape (N, F), float64.
        second: features, shape (M, F), float64.

    References:
        | GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017)
        | https://arxiv.org/abs/1706.08500, equation 6
    """
    statistics = fid_features_to_statistics(first), fid_features_to_statistics(second)
    return fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID]


def compare(
    generated: Tensor, reference: Tensor, *, kid_subsets: int, kid_subset_size: int, bootstrap: int, seed: int
) -> dict[str, float]:
    r"""Compare generated features with reference features.

    ``fid_se`` is the standard deviation of FID over bootstrap draws of the generated images. ``kid_se`` follows from the
    spread of torch-fidelity's subsets of size m: :math:`\mathrm{std}\sqrt{m/N}`. Both hold the reference fixed.

    Arguments:
        generated: features, shape (N, F), float64.
        reference: features, shape (M, F), float64.
        kid_subsets: number of subsets of KID.
        kid_subset_size: images in a subset, at most N and M.
        bootstrap: bootstrap draws of the standard error of FID.
        seed: seed of the subsets and of the bootstrap.

    Returns:
        ``fid``, ``fid_se``, ``kid``, ``kid_se``.
    """
    rng = np.random.default_rng(seed)
    statistics = fid_features_to_statistics(reference)
    draws = [generated[rng.integers(len(generated), size=len(generated))] for _ in range(bootstrap)]
    spread = [
        fid_statistics_to_metric(fid_features_to_statistics(draw), statistics, verbose=False)[KEY_METRIC_FID]
        for draw in draws
    ]
    kid = kid_features_to_metric(
        generated,
        reference,
        kid_subsets=kid_subsets,
        kid_subset_size=kid_subset_size,
        rng_seed=seed % 2**32,
        verbose=False,
    )
    return {
        "fid": fid(generated, reference),
        "fid_se": float(np.std(spread, ddof=1)),
        "kid": float(kid[KEY_METRIC_KID_MEAN]),
        "kid_se": float(kid[KEY_METRIC_KID_STD]) * (kid_subset_size / len(generated)) ** 0.5,
    }


def halves(count: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split the indices 0 … count - 1 into two random halves of equal size."""
    order = np.random.default_rng(seed).permutation(count)
    return order[: count // 2], order[count // 2 : 2 * (count // 2)]
