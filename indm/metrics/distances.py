"""FID and KID of generated images, as all stages measure them."""

from typing import Any

import numpy as np
from torch import Tensor

from indm.metrics.bootstrap import bootstrap_fid
from indm.metrics.frechet import FORMULAS, Reference, frechet
from indm.metrics.kid import kid


def distances(
    generated: Tensor,
    reference: Reference,
    *,
    kid_subsets: int,
    kid_subset_size: int,
    bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """Measure FID and KID, each with its standard error over the generated images, the reference held fixed.

    Arguments:
        generated: features, shape (N, F).
        reference: the reference, of M images.
        kid_subsets: number of subsets of KID.
        kid_subset_size: images in a subset, at most N and M.
        bootstrap: bootstrap draws of the standard error of FID.
        seed: seed of the subsets and the bootstrap.

    Returns:
        ``fid`` and ``kid``, each with ``_se``, and ``fid_formula``; KID ``None`` where the reference has no features.
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
