"""FID, KID, IS, precision and recall by torch-fidelity, clean-FID by clean-fid, in float64, with standard errors.

No more than a block of rows is held in float64 at a time.

References:
    | GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017), https://arxiv.org/abs/1706.08500, equation 6
    | Demystifying MMD GANs (Binkowski et al., 2018), https://arxiv.org/abs/1801.01401, equation 4
    | Improved Techniques for Training GANs (Salimans et al., 2016), https://arxiv.org/abs/1606.03498, section 4
    | Improved Precision and Recall Metric for Assessing Generative Models (Kynkäänniemi et al., 2019),
    | https://arxiv.org/abs/1904.06991, section 3
    | On Aliased Resizing and Surprising Subtleties in GAN Evaluation (Parmar et al., 2022), https://arxiv.org/abs/2104.11222
    | High-fidelity performance metrics for generative models in PyTorch (Obukhov et al., 2020),
    | https://github.com/toshas/torch-fidelity
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric
from torch_fidelity.metric_kid import kernel_mmd
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric
from torch_fidelity.utils import extract_featuresdict_from_input_id

from indm.data import to_uint8
from indm.errors import DataError
from indm.metrics.clean import MODES, CleanExtractor
from indm.metrics.extractors import EXTRACTORS

Statistics = dict[str, NDArray[np.float64]]
"""``mu`` (F,) and ``sigma`` (F, F), as torch-fidelity names them."""

BLOCK = 4096
# Rows of a block of pairwise distances: of 10,000 columns in float64 it takes 80 MB.
DISTANCES = 1000
# Up to this many features torch-fidelity's general eigenvalues cost milliseconds, and the bootstrap uses them too.
GENERAL = 256

# How the trace of the root is found.
FORMULAS = {
    "general": "general eigenvalues, by torch-fidelity",
    "symmetric": "symmetric eigenvalues of R Sigma R, R the root of the reference's Sigma",
    "low rank": "symmetric eigenvalues of A Sigma A', A'A the covariance of fewer images than features",
    "clean-fid": "matrix square root, by clean-fid",
}


PRC = ("precision", "precision_se", "recall", "recall_se", "prc_generated", "prc_reference")
NO_CLEAN = dict.fromkeys(f"{mode}_fid{suffix}" for mode in MODES for suffix in ("", "_se", "_formula"))
"""What a result says of clean-FID where the extractor is not Inception."""


@dataclass(frozen=True)
class Reference:
    """What generated images are compared with.

    Arguments:
        statistics: mean and covariance of its features.
        features: the features, shape (M, F), or ``None`` where the statistics are all that is known.
    """

    statistics: Statistics
    features: Tensor | None

    @classmethod
    def of(cls, features: Tensor) -> "Reference":
        """Make a reference of features (M, F)."""
        return cls(statistics(features), features)

    @cached_property
    def root(self) -> NDArray[np.float64]:
        """The symmetric root of the covariance, which many distances share."""
        return symmetric_root(self.statistics["sigma"])


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
        return torch.from_numpy(self.image(index))

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return an image, levels 0 … 255."""
        return to_uint8(self.images[index : index + 1], self.levels)[0]


class ResizedArray(ImageArray):
    """Images as clean-fid's networks take them, float32 (3, 299, 299), one at a time.

    Arguments:
        images: levels, uint8, shape (N, C, H, W).
        levels: number of levels.
        extractor: resizes them.
    """

    def __init__(self, images: NDArray[np.uint8], levels: int, extractor: CleanExtractor) -> None:
        super().__init__(images, levels)
        self.extractor = extractor

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(self.extractor.resize(self.image(index)))


def features(
    extractor: FeatureExtractorBase,
    images: NDArray[np.uint8],
    levels: int = 256,
    batch_size: int | None = None,
    device: torch.device | None = None,
) -> tuple[Tensor, ...]:
    """Extract features, a batch of images at a time, without TensorFloat-32.

    Arguments:
        extractor: a torch-fidelity extractor.
        images: levels, uint8, shape (N, C, H, W); an array or a memory map.
        levels: number of levels of the images.
        batch_size: images in a batch; 32 for Inception and 256 for small extractors where it is ``None``.
        device: where to extract; the CPU where it is ``None``.

    Returns:
        Each layer that the extractor was built for, (N, F), on the CPU: float32 of Inception, which halves the 800 MB of
        50,000 images, and float64 of others.
    """
    cuda = device is not None and device.type == "cuda"
    batch_size = batch_size or (256 if extractor.get_name() in EXTRACTORS else 32)
    resized = isinstance(extractor, CleanExtractor)
    dataset = ResizedArray(images, levels, extractor) if resized else ImageArray(images, levels)
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
    return tuple(found[layer] for layer in extractor.get_requested_features_list())


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


def frechet(generated: Tensor, reference: Reference) -> tuple[float, str]:
    r"""Fréchet distance of the Gaussians fitted to two sets of features.

    .. math:: \|\mu_1-\mu_2\|^2 + \mathrm{tr}\big(\Sigma_1 + \Sigma_2 - 2(\Sigma_1\Sigma_2)^{1/2}\big)

    Arguments:
        generated: features, shape (N, F).
        reference: the other set.

    Returns:
        The distance, and the key of ``FORMULAS`` that says how it was found; all agree up to rounding.

    References:
        | GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017)
        | https://arxiv.org/abs/1706.08500, equation 6
    """
    if generated.shape[1] <= GENERAL:
        return _general(statistics(generated), reference.statistics), "general"
    return _frechet_symmetric(generated, reference)


def _general(first: Statistics, second: Statistics) -> float:
    return fid_statistics_to_metric(first, second, verbose=False)[KEY_METRIC_FID]


def _frechet_symmetric(
    generated: Tensor, reference: Reference, counts: NDArray[np.intp] | None = None
) -> tuple[float, str]:
    """Choose the cheaper one of the two symmetric forms."""
    if generated.shape[0] <= generated.shape[1]:
        return fid_low_rank(generated, reference.statistics, counts), "low rank"
    return fid_symmetric(statistics(generated, counts), reference.statistics, reference.root), "symmetric"


def frechet_clean(generated: Tensor, reference: Reference) -> tuple[float, str]:
    """Fréchet distance by clean-fid; of fewer images than features, whose product of covariances has no stable root, ours.

    Arguments:
        generated: features, shape (N, F).
        reference: the other set.

    Returns:
        The distance, and the key of ``FORMULAS`` that says how it was found.
    """
    if generated.shape[0] <= generated.shape[1]:
        return _frechet_symmetric(generated, reference)
    from cleanfid.fid import frechet_distance  # Imported here: it imports torchvision, which takes seconds.

    found, real = statistics(generated), reference.statistics
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # An argument that SciPy 1.18 will not have.
        return float(frechet_distance(found["mu"], found["sigma"], real["mu"], real["sigma"])), "clean-fid"


def fid_low_rank(generated: Tensor, reference: Statistics, counts: NDArray[np.intp] | None = None) -> float:
    r"""Fréchet distance of no more images than features, without their covariance.

    .. math:: \mathrm{tr}(\Sigma_1\Sigma_2)^{1/2} = \mathrm{tr}(A\,\Sigma_2 A^\top)^{1/2}, \qquad \Sigma_1 = A^\top A

    Both products have the same eigenvalues but for zeros.

    Arguments:
        generated: features, shape (N, F), N at most F.
        reference: statistics of the reference.
        counts: how often each row counts, shape (N,); once where it is ``None``.

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
    generated: Tensor, reference: Reference, draws: int, rng: np.random.Generator, general: int = GENERAL
) -> float:
    """Standard deviation of FID over bootstrap draws of the generated images.

    Arguments:
        generated: features, shape (N, F).
        reference: the reference, held fixed.
        draws: number of draws.
        rng: source of the draws.
        general: number of features up to which torch-fidelity's own formula is used.
    """
    count, dims = generated.shape
    indices = (rng.integers(count, size=count) for _ in range(draws))
    if dims <= general:
        spread = [_general(statistics(generated[index]), reference.statistics) for index in indices]
    else:
        counts = (np.bincount(index, minlength=count) for index in indices)
        spread = [_frechet_symmetric(generated, reference, count)[0] for count in counts]
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


def inception_score(logits: Tensor, *, splits: int, seed: int) -> tuple[float, float]:
    r"""Inception score: its mean over torch-fidelity's splits, and the standard error of that mean.

    .. math:: \exp \mathbb{E}_x \mathrm{KL}\big(p(y|x) \,\|\, p(y)\big), \qquad \mathrm{se} = \mathrm{std}/\sqrt{\mathrm{splits}}

    One split at a time is given to torch-fidelity, which would take several times 400 MB for 50,000 images of 1008 classes.

    Arguments:
        logits: shape (N, classes).
        splits: number of splits, at most N.
        seed: seed of the order in which images are split.

    References:
        | Improved Techniques for Training GANs (Salimans et al., 2016)
        | https://arxiv.org/abs/1606.03498, section 4
    """
    count = len(logits)
    order = np.random.RandomState(seed).permutation(count)  # torch-fidelity's own order
    bounds = [i * count // splits for i in range(splits + 1)]
    scores = [
        isc_features_to_metric(logits[order[first:last]], splits=1, shuffle=False)[KEY_METRIC_ISC_MEAN]
        for first, last in pairwise(bounds)
    ]
    return float(np.mean(scores)), float(np.std(scores, ddof=1) / splits**0.5)


def precision_recall(
    generated: Tensor, reference: Tensor, *, neighbours: int, images: int, seed: int
) -> dict[str, float | int]:
    r"""Improved precision and recall by torch-fidelity, in float64, and their binomial standard errors.

    Precision is the share of generated images within the k-th neighbour's distance of some reference image, recall the share of
    reference images within that of some generated image. Each is a mean of zeros and ones over the images on one side, so that
    a bootstrap of that side, the other held fixed, has the standard deviation :math:`\sqrt{p(1-p)/N}`.

    Arguments:
        generated: features, shape (N, F).
        reference: features, shape (M, F).
        neighbours: k, less than N and M.
        images: images used of each side at most, chosen at random.
        seed: seed of that choice.

    Returns:
        ``precision``, ``recall``, each with ``_se``, and ``prc_generated`` and ``prc_reference``: how many images were used.

    References:
        | Improved Precision and Recall Metric for Assessing Generative Models (Kynkäänniemi et al., 2019)
        | https://arxiv.org/abs/1904.06991, equations 1 and 2
    """
    rng = np.random.default_rng([seed, 1])
    sides = [_choose(rows, images, rng).double() for rows in (generated, reference)]
    found = prc_features_to_metric(
        *sides, prc_neighborhood=neighbours, prc_batch_size=DISTANCES, save_cpu_ram=True, verbose=False
    )
    result: dict[str, float | int] = {}
    for name, key, rows in zip(("precision", "recall"), (KEY_METRIC_PRECISION, KEY_METRIC_RECALL), sides, strict=True):
        share = found[key]
        result |= {name: share, f"{name}_se": (share * (1 - share) / len(rows)) ** 0.5}
    return result | {"prc_generated": len(sides[0]), "prc_reference": len(sides[1])}


def _choose(rows: Tensor, images: int, rng: np.random.Generator) -> Tensor:
    """Choose at most ``images`` rows, (N, F), at random."""
    return rows if len(rows) <= images else rows[rng.choice(len(rows), images, replace=False)]


def compare(
    generated: Tensor,
    logits: Tensor,
    reference: Reference,
    *,
    kid_subsets: int,
    kid_subset_size: int,
    is_splits: int,
    prc_neighbours: int,
    prc_images: int,
    bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    r"""Compare generated features with a reference.

    ``fid_se`` is the standard deviation of FID over bootstrap draws of the generated images. ``kid_se`` follows from the
    spread of torch-fidelity's subsets of size m: :math:`\mathrm{std}\sqrt{m/N}`. Both hold the reference fixed.

    Arguments:
        generated: features, shape (N, F).
        logits: their logits, shape (N, classes).
        reference: the reference, of M images.
        kid_subsets: number of subsets of KID.
        kid_subset_size: images in a subset, at most N and M.
        is_splits: splits of the inception score, at most N.
        prc_neighbours: neighbourhood of precision and recall, less than N and M.
        prc_images: images of each side used for precision and recall, at most.
        bootstrap: bootstrap draws of the standard error of FID.
        seed: seed of subsets, splits, choices and the bootstrap.

    Returns:
        ``fid``, ``kid``, ``is``, ``precision``, ``recall``, each with ``_se``, ``fid_formula``, ``prc_generated`` and
        ``prc_reference``. What needs the reference's features is ``None`` where they are not known.

    Raises:
        DataError: if there are too few images.
    """
    few = max(kid_subset_size, is_splits, prc_neighbours + 1)
    for side, rows in (("generated", generated), ("reference", reference.features)):
        if rows is not None and len(rows) < few:
            raise DataError(
                f"metrics: found {len(rows)} {side} images, expected at least {few}; make fid.kid_subset_size, "
                "fid.is_splits and fid.prc_neighbours smaller in the suite"
            )
    value, formula = frechet(generated, reference)
    error = bootstrap_fid(generated, reference, bootstrap, np.random.default_rng(seed))
    score, score_error = inception_score(logits, splits=is_splits, seed=seed % 2**32)
    result: dict[str, Any] = {"fid": value, "fid_se": error, "fid_formula": FORMULAS[formula]}
    result |= {"kid": None, "kid_se": None, "is": score, "is_se": score_error}
    if reference.features is None:
        return result | dict.fromkeys(PRC)
    mean, std = kid(generated, reference.features, subsets=kid_subsets, subset_size=kid_subset_size, seed=seed % 2**32)
    return (
        result
        | {"kid": mean, "kid_se": std * (kid_subset_size / len(generated)) ** 0.5}
        | precision_recall(generated, reference.features, neighbours=prc_neighbours, images=prc_images, seed=seed)
    )


def compare_clean(mode: str, generated: Tensor, reference: Reference, *, bootstrap: int, seed: int) -> dict[str, Any]:
    """Compare features of images that clean-fid resized.

    Arguments:
        mode: a key of :data:`~indm.metrics.clean.MODES`.
        generated: features, shape (N, F).
        reference: the reference; its statistics are all that is needed.
        bootstrap: bootstrap draws of the standard error.
        seed: seed of the bootstrap.

    Returns:
        ``<mode>_fid``, with ``_se`` and ``_formula``.
    """
    value, formula = frechet_clean(generated, reference)
    error = bootstrap_fid(generated, reference, bootstrap, np.random.default_rng(seed))
    return {f"{mode}_fid": value, f"{mode}_fid_se": error, f"{mode}_fid_formula": FORMULAS[formula]}


def protocol(
    kid_subsets: int, kid_subset_size: int, is_splits: int, prc_neighbours: int, prc_images: int, bootstrap: int
) -> dict[str, str]:
    """Say how the numbers of :func:`compare` and :func:`compare_clean` are found; the arguments are theirs."""
    return {
        "fid_se": f"bootstrap of the generated images, {bootstrap} draws; so those of clean_fid and legacy_fid",
        "kid": f"mean of {kid_subsets} subsets of {kid_subset_size} images; se: std over subsets x sqrt(size / images)",
        "is": f"mean of {is_splits} splits; se: std over splits / sqrt(splits)",
        "precision_recall": f"{prc_neighbours} neighbours, at most {prc_images} images of each side; "
        "se: binomial, over generated images for precision and over reference images for recall",
        **{f"{mode}_fid": f"clean-fid, mode {name}" for mode, name in MODES.items()},
    }


def halves(count: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split the indices 0 … count - 1 into two random halves of equal size."""
    order = np.random.default_rng(seed).permutation(count)
    return order[: count // 2], order[count // 2 : 2 * (count // 2)]
