"""The samplers and datasets of measurements to which claims may refer."""

from typing import get_args

from indm.registry import DATASETS, SAMPLERS
from indm.suite.schema.types import SamplerName, SweptName

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
    """Name the datasets that a stage may measure; the jobs of the study of known densities are the suite's own."""
    return [] if stage == "toy2d" else list(DATASETS)
