"""Means of likelihoods with the fixed decoder, and the choice between it and the learned one."""

import pandas as pd

from indm.diffusion.fixed_decoder import FIXED
from indm.report.catalogue import CELL


def fixed_means(images: pd.DataFrame, wanted: pd.DataFrame) -> pd.DataFrame:
    """Average the numbers with the fixed decoder over images, with standard errors.

    Arguments:
        images: likelihoods of images, from :func:`~indm.diffusion.fixed_decoder.with_fixed`.
        wanted: the keys of the wanted means; its index becomes the index of the result.
    """
    found = images.groupby([*wanted])[[*FIXED]].agg(["mean", "sem"])
    found.columns = pd.Index([f"{key}{end}" for key in FIXED for end in ("", "_se")])
    return found.reindex(pd.MultiIndex.from_frame(wanted)).set_axis(wanted.index)


def decoders(values: pd.DataFrame, rule: str) -> dict[tuple[str, ...], str]:
    """Return the decoder of each cell: the learned one, or the one with the lower mean NELBO at the end of training.

    The rule names the images: validation images, or the test images of suites whose validation numbers have no fixed decoder.
    A cell without numbers of both decoders is left out.
    """
    if rule == "learned":
        return dict.fromkeys(values[CELL].drop_duplicates().itertuples(index=False, name=None), rule)
    stage = {"validation": "curve", "test": "nll"}[rule]
    found = values[(values["stage"] == stage) & values["metric"].isin(["nelbo", "nelbo_fixed"])].fillna({"x": 0.0})
    last = found[found["x"] == found.groupby([*CELL, "seed"])["x"].transform("max")]
    means = last.pivot_table("value", CELL, "metric").reindex(columns=["nelbo", "nelbo_fixed"]).dropna()
    return {cell: "learned" if learned <= fixed else "fixed" for cell, learned, fixed in means.itertuples(name=None)}
