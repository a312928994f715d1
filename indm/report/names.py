"""Names of columns and their texts for readers, the same in figures, tables and on the page."""

import re

from indm.registry import FAMILIES, SAMPLERS

HEADINGS = {
    "sde": "SDE",
    "fid": "FID",
    "log_fid": "log FID",
    "fid_infinity": "FID, infinite N",
    "fid_low": "FID, low",
    "fid_high": "FID, high",
    "kid": "KID",
    "is": "IS",
    "clean_fid": "clean-FID",
    "legacy_fid": "legacy FID",
    "nll": "NLL",
    "nll_median": "NLL, median",
    "nll_trimmed": "NLL, trimmed mean",
    "nll_beyond": "NLL > NELBO + 0.5",
    "nelbo": "NELBO",
    "gap": "NELBO − NLL",
    "nelbo_excess": "NELBO + log p",
    "nll_excess": "NLL + log p",
    "true_gap": "variational gap",
    "true_gap_fewer": "variational gap, a quarter of the paths",
    "ess": "effective share of paths",
    "midpoint": "midpoint test",
    "moved": "moved from DDPM++",
    "step_flops": "FLOPs of a step",
    "nfe": "NFE",
    "lr": "learning rate",
    "flow_lr": "flow’s learning rate",
    "train_nelbo": "NELBO, training images",
    "valid_nelbo": "NELBO, validation images",
    "valid_nelbo_raw_flow": "NELBO, validation images, raw flow",
    "at_end": "at the end of the values tried",
    "rank_agreement_p": "rank agreement, p",
    "gain_per_doubling": "gain per doubling",
    "flops": "FLOPs",
    "train_flops": "training FLOPs",
    "train_flops_per_step": "FLOPs per step",
    "ms_per_step": "ms per step",
    "nll_uncorrected": "NLL, uncorrected",
    "num_samples": "images",
    "published_fid": "published FID",
    "published_nll": "published NLL",
    "published_source": "source",
    "skip": "why absent",
    "id": "claim",
    "failed_treatment": "failed, treatment",
    "failed_against": "failed, against",
    "sd": "SD over seeds",
}
NAMES = {
    "ve": "VE",
    "vp": "VP",
    "pc": "predictor–corrector",
    "num_samples": "images",
    **{member: kind.literal(member, "LABEL") for kind in (FAMILIES, SAMPLERS) for member in kind},
}
# The model with which the others are compared.
REFERENCE = next(family for family in FAMILIES if FAMILIES.literal(family, "REFERENCE"))


def heading(column: str) -> str:
    """Write the name of a column or metric."""
    if column.endswith("_difference"):
        return f"{heading(column.removesuffix('_difference'))}, difference"
    if "_fixed" in column:
        return f"{heading(column.replace('_fixed', ''))}, fixed"
    if match := re.fullmatch(r"energy_(\d+)(.*)", column):
        return f"energy distance, {match[1]} steps{match[2].replace('_', ' ')}"
    return HEADINGS.get(column, column.replace("_", " "))


def name(text: str) -> str:
    """Write a cell's text: names of models, SDEs and samplers as their papers do."""
    return NAMES.get(text, text)


def names(*texts: str) -> str:
    """Write several texts as one label, absent ones left out."""
    return ", ".join(name(text) for text in texts if text)


def cell_name(*cell: str) -> str:
    """Write a dataset, an SDE and an objective, of which the last two may be absent, as one label."""
    return names(*cell[:2], *(f"{objective} objective" for objective in cell[2:] if objective))


def arm(model: str, variant: str) -> str:
    """Name a model: a variant of the baseline by its variation alone, such as same compute or learned filter."""
    varied = variant.replace("-", " ")
    return varied if variant and model == REFERENCE else names(model, varied)


def comparator(text: str) -> str:
    """Name a compared model, or a fixed number."""
    model, _, variant = text.partition(" ")
    return f"{name(model)} {variant}" if variant in ("nll", "fid") else arm(model, variant)


def written(column: str, text: str) -> str:
    """Write a text of a table's column for readers."""
    return {"metric": heading, "against": comparator, "protocol": _protocol}.get(column, name)(text)


def _protocol(text: str) -> str:
    return " against ".join(map(name, text.split(" against ")))
