"""Section ``train.sde``: the linear diffusions."""

from typing import Annotated

from pydantic import Field

from indm.suite.schema.types import Positive
from indm.suite.strict_yaml import Strict


class VPParams(Strict):
    """The variance preserving SDE."""

    beta_min: Annotated[Positive, Field(description="beta(0)")]
    beta_max: Annotated[Positive, Field(description="beta(1)")]


class VEParams(Strict):
    """The variance exploding SDE."""

    sigma_min: Annotated[Positive, Field(description="sigma(0)")]
    sigma_max: Annotated[Positive, Field(description="sigma(1)")]


class SDEParams(Strict):
    """Both diffusions, and the time at which training, sampling and likelihoods are truncated."""

    vp: VPParams
    ve: VEParams
    eps: Annotated[float, Field(gt=0, lt=0.1, description="truncation time")]
