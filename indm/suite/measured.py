"""The measurements of the stages, by their names in ``values.csv``, to which claims and published numbers refer."""

from typing import get_args

from indm.registry import DATASETS, SAMPLERS
from indm.suite.schema.studies import TOY2D
from indm.suite.schema.types import SamplerName, SweptName

IMAGE_METRICS = ["fid", "kid", "is", "confidence", "precision", "recall", "clean_fid", "legacy_fid"]
LIKELIHOODS = ["nll", "nll_uncorrected", "nelbo", "nelbo_no_reconstruction", "gap"]
SWEEP_METRICS = ["fid", "kid"]
CURVE_METRICS = ["nelbo", "nll", "gap"]
TOY2D_METRICS = ["nelbo", "nll", "gap", "valid_nelbo", "w1", "path_ratio", "latent_std", "parameters", "train_flops"]
# The metrics of each stage to which claims refer.
METRICS = {
    "fid": IMAGE_METRICS,
    "nll": LIKELIHOODS,
    "curve": CURVE_METRICS,
    "sweep": SWEEP_METRICS,
    "toy2d": TOY2D_METRICS,
}
CORRECTED = "+langevin"
# The samplers of stages that have images from several samplers.
DRAWN_BY = {
    "fid": [
        *get_args(SamplerName),
        *(f"{name}{CORRECTED}" for name in get_args(SamplerName) if SAMPLERS.literal(name, "CORRECTOR")),
    ],
    "sweep": list(get_args(SweptName)),
}


def datasets(stage: str) -> list[str]:
    """Name the datasets that a stage may measure."""
    return list(TOY2D if stage == "toy2d" else DATASETS)
