r"""Likelihoods with the fixed reconstruction decoder, and the choice between it and the learned one.

With :math:`R` the cost of the learned decoder, which is ``nelbo - nelbo_no_reconstruction``, and in bits/dim,

.. math::
    \mathrm{NELBO}_\mathrm{fixed} = \mathrm{NELBO} - R - \log_2\alpha_\epsilon, \qquad
    \mathrm{NLL}_\mathrm{fixed} = \mathrm{NLL} - R - \log_2\alpha_\epsilon ,

so that their difference, the gap, does not depend on the decoder. See :mod:`indm.diffusion.decoder`.
"""

import numpy as np
import pandas as pd

from indm.report.catalogue import CELL

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


def fixed_means(images: pd.DataFrame, wanted: pd.DataFrame) -> pd.DataFrame:
    """Average the numbers with the fixed decoder over images, with standard errors.

    Arguments:
        images: likelihoods of images, from :func:`with_fixed`.
        wanted: the keys of the wanted means; its index becomes the index of the result.
    """
    found = images.groupby([*wanted])[[*FIXED]].agg(["mean", "sem"])
    found.columns = pd.Index([f"{key}{end}" for key in FIXED for end in ("", "_se")])
    return found.reindex(pd.MultiIndex.from_frame(wanted)).set_axis(wanted.index)


def chosen_decoders(curve: pd.DataFrame) -> dict[tuple[str, ...], str]:
    """Choose the decoder of each cell: ``learned`` or ``fixed``, by the lower NELBO on validation images.

    The NELBO of a cell is the mean over its seeds, each at its last snapshot. Cells without them are left out.

    Arguments:
        curve: the rows of learning curves.
    """
    known = curve[curve["split"] == "valid"].dropna(subset=["nelbo_fixed"])
    last = known[known["step"] == known.groupby([*CELL, "seed"])["step"].transform("max")]
    means = last.groupby(CELL)[["nelbo", "nelbo_fixed"]].mean()
    return dict(zip(means.index, np.where(means["nelbo_fixed"] < means["nelbo"], "fixed", "learned"), strict=True))
