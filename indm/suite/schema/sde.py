"""Section ``train.sde``: the linear diffusions."""

from typing import Annotated

from pydantic import Field

from indm.suite.schema.types import Positive
from indm.suite.strict_yaml import Strict


class VPParams(Strict):
    """The variance preserving SDE."""

    beta_min: Annotated[Positive, Field(description="beta(0)")]
    # The latent's part at T is exp(-(beta_min + beta_max) / 4), by which samplers divide in float32.
    beta_max: Annotated[float, Field(ge=1e-6, le=100, description="beta(1)")]


class TrainedVPParams(VPParams):
    """The variance preserving SDE of a training, which may learn its range."""

    learned_range: Annotated[
        bool,
        Field(
            description="train the log-SNR at eps and at 1, which start at those of this schedule (arXiv:2107.00630); "
            "of objective nll with train.reconstruction alone"
        ),
    ]


class VEParams(Strict):
    """The variance exploding SDE."""

    sigma_min: Annotated[Positive, Field(description="sigma(0)")]
    sigma_max: Annotated[Positive, Field(description="sigma(1)")]


class SDEParams(Strict):
    """Both diffusions, and the time at which training, sampling and likelihoods are truncated."""

    vp: TrainedVPParams
    ve: VEParams
    eps: Annotated[float, Field(ge=1e-9, lt=0.1, description="truncation time")]
