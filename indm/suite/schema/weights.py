"""Sections ``weights`` and ``kept_weights``: which weights of a trained run are evaluated, and which of them outlive it."""

from typing import Annotated, Literal

from pydantic import Field

from indm.suite.schema.types import Count
from indm.suite.strict_yaml import Strict

Kind = Literal["ema", "raw"]


class WeightsParams(Strict):
    """The weights of each network that images and likelihoods come from: averaged over the training, or as they are after it."""

    score: Annotated[Kind, Field(description="of the score network; raw needs train.snapshots [], which hold none")]
    flow: Annotated[Kind, Field(description="of the flow; raw, as in the released evaluation, or averaged")]


class KeptWeightsParams(Strict):
    """Whose averaged weights ``indm keep`` keeps with the archives, so that an evaluation can be corrected without a training."""

    variants: Annotated[list[str], Field(min_length=1, description="variants of the models; empty: the plain ones")]
    seeds: Annotated[Count, Field(description="how many seeds of each cell: the first ones")]
