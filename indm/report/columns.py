"""The columns of the published tables, each described once: its heading, which values are better, where it is written.

A table's stage chooses its columns; :mod:`indm.report.catalogue` says which of them a terminal shows. A column that is not listed
has its name as heading. Errors, differences and numbers by step or band are named after the column to which they belong.
"""

import re
from typing import NamedTuple

LOWER, HIGHER = "lower", "higher"


class Column(NamedTuple):
    """A column: its heading, or else its name; which values are better; and whether a caption has it if all rows agree."""

    heading: str = ""
    better: str = ""
    shared: bool = False


COLUMNS = {
    "sde": Column("SDE", shared=True),
    "fid": Column("FID", better=LOWER),
    "log_fid": Column("log FID"),
    "fid_infinity": Column("FID, infinite N", better=LOWER),
    "fid_low": Column("FID, low"),
    "fid_high": Column("FID, high"),
    "kid": Column("KID", better=LOWER),
    "is": Column("IS", better=HIGHER),
    "clean_fid": Column("clean-FID", better=LOWER),
    "legacy_fid": Column("legacy FID", better=LOWER),
    "nll": Column("NLL", better=LOWER),
    "nll_median": Column("NLL, median"),
    "nll_trimmed": Column("NLL, trimmed mean"),
    "nll_beyond": Column("NLL > NELBO + 0.5"),
    "nelbo": Column("NELBO", better=LOWER),
    "gap": Column("NELBO − NLL"),
    "nelbo_excess": Column("NELBO + log p", better=LOWER),
    "nll_excess": Column("NLL + log p", better=LOWER),
    "true_gap": Column("variational gap"),
    "true_gap_fewer": Column("variational gap, a quarter of the paths"),
    "ess": Column("effective share of paths"),
    "midpoint": Column("midpoint test"),
    "moved": Column("moved from DDPM++"),
    "step_flops": Column("FLOPs of a step"),
    "nfe": Column("NFE", shared=True),
    "lr": Column("learning rate"),
    "flow_lr": Column("flow’s learning rate"),
    "train_nelbo": Column("NELBO, training images"),
    "valid_nelbo": Column("NELBO, validation images"),
    "valid_nelbo_raw_flow": Column("NELBO, validation images, raw flow"),
    "at_end": Column("at the end of the values tried"),
    "rank_agreement_p": Column("rank agreement, p"),
    "gain_per_doubling": Column("gain per doubling"),
    "flops": Column("FLOPs"),
    "train_flops": Column("training FLOPs"),
    "train_flops_per_step": Column("FLOPs per step"),
    "ms_per_step": Column("ms per step"),
    "nll_uncorrected": Column("NLL, uncorrected"),
    "num_samples": Column("images", shared=True),
    "published_fid": Column("published FID"),
    "published_nll": Column("published NLL"),
    "published_source": Column("source"),
    "skip": Column("why absent"),
    "id": Column("claim"),
    "failed_treatment": Column("failed, treatment"),
    "failed_against": Column("failed, against"),
    "sd": Column("SD over seeds"),
    "nelbo_fixed": Column(better=LOWER),
    "nll_fixed": Column(better=LOWER),
    "target": Column(better=LOWER),
    "precision": Column(better=HIGHER),
    "recall": Column(better=HIGHER),
    "dataset": Column(shared=True),
    "objective": Column(shared=True),
    "seeds": Column(shared=True),
    "sampler": Column(shared=True),
    "images": Column(shared=True),
    "extractor": Column(shared=True),
    "split": Column(shared=True),
    "machine": Column(shared=True),
}


def heading(name: str) -> str:
    """Write the name of a column or metric."""
    if name.endswith("_difference"):
        return f"{heading(name.removesuffix('_difference'))}, difference"
    if "_fixed" in name:
        return f"{heading(name.replace('_fixed', ''))}, fixed"
    if match := re.fullmatch(r"energy_(\d+)(.*)", name):
        return f"energy distance, {match[1]} steps{match[2].replace('_', ' ')}"
    return described(name).heading or name.replace("_", " ")


def described(name: str) -> Column:
    """Look up a column; energy distances have one for each number of steps, and are better if they are low."""
    return COLUMNS.get(name, Column(better=LOWER if name.startswith("energy_") else ""))
