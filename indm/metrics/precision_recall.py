"""Improved precision and recall, by torch-fidelity."""

import numpy as np
from torch import Tensor
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

# Rows of a block of pairwise distances, which for 10,000 columns takes 80 MB in float64.
DISTANCES = 1000
PRC = ("precision", "precision_se", "recall", "recall_se", "prc_generated", "prc_reference")


def precision_recall(
    generated: Tensor, reference: Tensor, *, neighbours: int, images: int, seed: int
) -> dict[str, float | int]:
    r"""Compute improved precision and recall by torch-fidelity, in float64, and their binomial standard errors.

    Precision is the share of generated images within the k-th neighbour's distance of some reference image, and recall is
    the share of reference images within the k-th neighbour's distance of some generated image. Each is a mean of zeros and
    ones over the images on one side, so that a bootstrap of that side, with the other side held fixed, has the standard
    deviation :math:`\sqrt{p(1-p)/N}`.

    Arguments:
        generated: features, shape (N, F).
        reference: features, shape (M, F).
        neighbours: k, less than N and M.
        images: largest number of images from each side, chosen at random.
        seed: seed of the choice.

    Returns:
        ``precision`` and ``recall``, which are shares, each with ``_se``, and the numbers of images used, ``prc_generated``
        and ``prc_reference``.

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
