r"""Likelihoods with the fixed reconstruction decoder.

With :math:`R` the cost of the learned decoder, which is ``nelbo - nelbo_no_reconstruction``, and in bits/dim,

.. math::
    \mathrm{NELBO}_\mathrm{fixed} = \mathrm{NELBO} - R - \log_2\alpha_\epsilon, \qquad
    \mathrm{NLL}_\mathrm{fixed} = \mathrm{NLL} - R - \log_2\alpha_\epsilon ,

so that their difference, the gap, does not depend on the decoder. See :mod:`indm.diffusion.decoder`.
"""

import numpy as np
import pandas as pd

BARE = "nelbo_no_reconstruction"
FIXED = ("nelbo_fixed", "nll_fixed")


def with_fixed(images: pd.DataFrame, alpha: "pd.Series[float]") -> pd.DataFrame:
    r"""Replace ``nelbo_no_reconstruction`` by the numbers with the fixed decoder, absent where it or alpha is.

    Arguments:
        images: likelihoods in bits/dim, a row per image.
        alpha: :math:`\alpha_\epsilon` of the model of each row; NaN where it is unknown.
    """
    shift = images[BARE] - images["nelbo"] - np.log2(alpha)
    fixed = {f"{key}_fixed": images[key] + shift for key in ("nelbo", "nll")}
    return images.drop(columns=BARE).assign(**fixed)
