"""All metrics of generated images against a reference, each with its standard error, and their protocol."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from indm.errors import DataError
from indm.metrics.clean import MODES
from indm.metrics.frechet import FORMULAS, Reference, bootstrap_fid, frechet, frechet_clean
from indm.metrics.kid import JACKKNIFE, kid
from indm.metrics.logits import confidence, inception_score
from indm.metrics.precision_recall import PRC, precision_recall

NO_CLEAN = dict.fromkeys(f"{mode}_fid{suffix}" for mode in MODES for suffix in ("", "_se", "_formula"))
"""The note on clean-FID in results whose extractor is not Inception."""


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
    """Compare generated features with a reference.

    Arguments:
        generated: features, shape (N, F).
        logits: logits of the generated images, shape (N, classes), in nats.
        reference: the reference, from M images, with F features.
        kid_subsets: number of subsets for KID.
        kid_subset_size: number of images in a subset, at most N and M.
        is_splits: number of splits for the inception score, at most N.
        prc_neighbours: number of neighbours for precision and recall, less than N and M.
        prc_images: largest number of images from each side for precision and recall.
        bootstrap: number of bootstrap draws for the standard error of FID.
        seed: seed of the subsets, the splits, the choice of images and the bootstrap.

    Returns:
        ``fid``, ``kid``, ``is``, ``confidence``, ``precision``, ``recall``, each with ``_se``, ``fid_formula``,
        ``prc_generated`` and ``prc_reference``. No metric has a unit. Metrics that need the reference's features are ``None``
        without them.

    Raises:
        DataError: if there are too few images.
    """
    few = max(kid_subset_size, is_splits, prc_neighbours + 1)
    # The compared images may also be real ones, for the floors.
    for side, rows in (("compared", generated), ("reference", reference.features)):
        if rows is not None and len(rows) < few:
            raise DataError(
                f"metrics: found {len(rows)} {side} images, expected at least {few}; lower fid.kid_subset_size, "
                "fid.is_splits and fid.prc_neighbours in the suite"
            )
    result = distances(
        generated, reference, kid_subsets=kid_subsets, kid_subset_size=kid_subset_size, bootstrap=bootstrap, seed=seed
    )
    score, score_error = inception_score(logits, splits=is_splits, seed=seed % 2**32)
    result |= {"is": score, "is_se": score_error} | confidence(logits)
    if reference.features is None:
        return result | dict.fromkeys(PRC)
    return result | precision_recall(
        generated, reference.features, neighbours=prc_neighbours, images=prc_images, seed=seed
    )


def distances(
    generated: Tensor, reference: Reference, *, kid_subsets: int, kid_subset_size: int, bootstrap: int, seed: int
) -> dict[str, Any]:
    """Measure FID and KID, with standard errors over the generated images for a fixed reference.

    Arguments:
        generated: features, shape (N, F).
        reference: the reference, from M images, with F features.
        kid_subsets, kid_subset_size, bootstrap: see :func:`compare`.
        seed: seed of the subsets and the bootstrap.

    Returns:
        ``fid`` and ``kid``, which have no unit, each with ``_se``, and ``fid_formula``; KID is ``None`` if the reference has
        no features.

    Raises:
        ValueError: if a subset for KID is larger than N or M.
    """
    value, formula = frechet(generated, reference)
    error = bootstrap_fid(generated, reference, bootstrap, np.random.default_rng(seed))
    distance, distance_error = None, None
    if reference.features is not None:
        distance, distance_error = kid(
            generated, reference.features, subsets=kid_subsets, subset_size=kid_subset_size, seed=seed % 2**32
        )
    found = {"fid": value, "fid_se": error, "fid_formula": FORMULAS[formula]}
    return found | {"kid": distance, "kid_se": distance_error}


def compare_clean(mode: str, generated: Tensor, reference: Reference, *, bootstrap: int, seed: int) -> dict[str, Any]:
    """Compare the features of images that clean-fid resized.

    Arguments:
        mode: a key of :data:`~indm.metrics.clean.MODES`.
        generated: features, shape (N, 2048).
        reference: the reference; only its statistics are needed.
        bootstrap: number of bootstrap draws for the standard error.
        seed: seed of the bootstrap.

    Returns:
        ``<mode>_fid``, which has no unit, with ``_se`` and ``_formula``.
    """
    value, formula = frechet_clean(generated, reference)
    error = bootstrap_fid(generated, reference, bootstrap, np.random.default_rng(seed))
    return {f"{mode}_fid": value, f"{mode}_fid_se": error, f"{mode}_fid_formula": FORMULAS[formula]}


def protocol(
    kid_subsets: int, kid_subset_size: int, is_splits: int, prc_neighbours: int, prc_images: int, bootstrap: int
) -> dict[str, str]:
    """Describe the protocol of :func:`compare` and :func:`compare_clean`, which take the same arguments."""
    return {
        "fid_se": f"bootstrap of the generated images, {bootstrap} draws; so those of clean_fid and legacy_fid",
        "kid": f"mean of {kid_subsets} subsets of {kid_subset_size} images; se: jackknife of the generated images, at most "
        f"{JACKKNIFE} of them left out, and std over subsets / sqrt(subsets), squares added",
        "is": f"mean of {is_splits} splits; se: std over splits / sqrt(splits)",
        "confidence": "mean probability of the likeliest class; se: over images",
        "precision_recall": f"{prc_neighbours} neighbours, at most {prc_images} images of each side; "
        "se: binomial, over generated images for precision and over reference images for recall",
        **{f"{mode}_fid": f"clean-fid, mode {name}" for mode, name in MODES.items()},
    }


def halves(count: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split the indices 0 … count - 1 into two random halves of equal size, each with shape (floor(count / 2),)."""
    order = np.random.default_rng(seed).permutation(count)
    return order[: count // 2], order[count // 2 : 2 * (count // 2)]
