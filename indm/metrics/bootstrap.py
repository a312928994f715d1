"""How far a Fréchet distance moves with the images that were generated."""

import numpy as np
from torch import Tensor

from indm.metrics.frechet import GENERAL, Reference, frechet_general, frechet_symmetric, statistics


def bootstrap_fid(generated: Tensor, reference: Reference, draws: int, rng: np.random.Generator) -> float:
    """Standard deviation of FID over bootstrap draws of the generated images.

    Arguments:
        generated: features, shape (N, F).
        reference: the reference, held fixed.
        draws: number of draws.
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
