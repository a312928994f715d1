r"""The effect of its protocol on FID: paired bootstrap draws, images without rounding or as JPEG, infinitely many images.

References:
    | On Aliased Resizing and Surprising Subtleties in GAN Evaluation (Parmar et al., 2022)
    | https://arxiv.org/abs/2104.11222: FID moves with rounding, compression and the implementation
    | Effectively Unbiased FID and Inception Score and Where to Find Them (Chong & Forsyth, 2020)
    | https://arxiv.org/abs/1911.07023: FID is biased by the number of images, about linearly in 1/N
"""

import io
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from indm.metrics.frechet import Reference, fid_symmetric, statistics
from indm.process import float32_products


def fid_draws(generated: Tensor, reference: Reference, draws: int, seed: int) -> NDArray[np.float64]:
    """Compute FID of generated features and of their bootstrap draws, which are the same for any two sets of equal size.

    Because the draws are paired, they give the standard error of the difference between two FIDs whose images come from the
    same noise, or differ only in their rounding: the standard deviation of the differences of their draws, from which the
    noise that both FIDs share cancels.

    Arguments:
        generated: features, shape (N, F).
        reference: the reference, held fixed; only its statistics are needed.
        draws: number B of draws.
        seed: seed of the draws.

    Returns:
        FIDs, which have no unit, shape (1 + B,): first the FID of all features, each counted once.
    """
    count = len(generated)
    rng = np.random.default_rng(seed)
    counts = [None, *(np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(draws))]
    return np.array([_fid(generated, reference, weights) for weights in counts])


def fid_by_size(generated: Tensor, reference: Reference, sizes: Sequence[int], repeats: int) -> NDArray[np.float64]:
    """Compute FID for sets of several sizes, averaged over the disjoint sets in each of R disjoint groups of features.

    Arguments:
        generated: features, shape (N, F).
        reference: the reference; only its statistics are needed.
        sizes: the S sizes, each at most N / R.
        repeats: number R of groups.

    Returns:
        FIDs, which have no unit, shape (R, S): the rows are independent, but the entries of a row are not.

    Raises:
        ValueError: if the largest size does not fit in a group.
    """
    group = len(generated) // repeats
    if max(sizes) > group:
        raise ValueError(
            f"sizes: found {max(sizes)}, expected at most {group}, the number of features in one of {repeats} groups; "
            "lower the sizes or repeats"
        )
    parts = [generated[r * group : (r + 1) * group] for r in range(repeats)]
    return np.array([[np.mean([_fid(s, reference) for s in _sets(part, n)]) for n in sizes] for part in parts])


def _fid(generated: Tensor, reference: Reference, counts: NDArray[np.intp] | None = None) -> float:
    return fid_symmetric(statistics(generated, counts), reference.statistics, reference.root)


def _sets(rows: Tensor, size: int) -> list[Tensor]:
    return [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]


def extrapolate(sizes: Sequence[int], fids: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""Extrapolate FIDs to infinitely many images by least squares, separately for each repeat.

    .. math:: \mathrm{FID}(N) = \mathrm{FID}_\infty + \frac{b}{N}

    The mean over the repeats is the least-squares fit to all of them, and their spread gives its standard error.

    Arguments:
        sizes: the S sizes, at least two different ones.
        fids: FIDs, shape (R, S).

    Returns:
        :math:`\mathrm{FID}_\infty`, which has no unit, shape (R,).

    References:
        | Effectively Unbiased FID and Inception Score and Where to Find Them (Chong & Forsyth, 2020)
        | https://arxiv.org/abs/1911.07023, section 4
    """
    return np.polyfit(1 / np.array(sizes), fids.T, 1)[1]


def pixel_features(extractor: FeatureExtractorBase, pixels: Tensor, device: torch.device) -> Tensor:
    """Extract features of images that are not rounded, as :func:`indm.metrics.features` does for rounded images.

    Arguments:
        extractor: a torch-fidelity extractor.
        pixels: images, 0 … 255, float32, shape (N, 3, H, W).
        device: where to extract.

    Returns:
        Features, shape (N, F), on the CPU, float32 from Inception and float64 from other extractors.
    """
    extractor = extractor.to(device)
    inception = isinstance(extractor, FeatureExtractorInceptionV3)
    forward = _inception_forward if inception else lambda extractor, batch: extractor(batch)[0]
    with torch.no_grad(), float32_products():
        batches = pixels.split(32 if inception else 256)
        return torch.cat([forward(extractor, batch.to(device)).cpu() for batch in batches])


def _inception_forward(extractor: FeatureExtractorInceptionV3, pixels: Tensor) -> Tensor:
    """Run Inception, whose ``forward`` takes only uint8, with its resized input replaced by the resized ``pixels``."""

    def replace(_: torch.nn.Module, __: tuple[Tensor]) -> Tensor:
        size = (extractor.INPUT_IMAGE_SIZE, extractor.INPUT_IMAGE_SIZE)
        resized = interpolate_bilinear_2d_like_tensorflow1x(pixels, size=size, align_corners=False)
        return (resized - 128) / 128

    hook = extractor.Conv2d_1a_3x3.register_forward_pre_hook(replace)
    try:
        return extractor(pixels.to(torch.uint8))[0]
    finally:
        hook.remove()


def jpeg(images: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Store images, levels 0 … 255, shape (N, 3, H, W), as JPEG with Pillow's ``quality``, and read them again."""
    return np.stack([_jpeg(image.transpose(1, 2, 0), quality).transpose(2, 0, 1) for image in images])


def _jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality)
    return np.asarray(Image.open(buffer))
