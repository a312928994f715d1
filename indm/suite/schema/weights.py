"""Section ``weights``: which weights of a trained run are evaluated."""

from typing import Annotated, Literal

from pydantic import Field

from indm.suite.strict_yaml import Strict

Kind = Literal["ema", "raw"]


class WeightsParams(Strict):
    """The weights of each network that images and likelihoods come from: averaged over the training, or as they are after it."""

    score: Annotated[Kind, Field(description="of the score network; raw needs train.snapshots [], which hold none")]
    flow: Annotated[Kind, Field(description="of the flow; raw, as in the released evaluation, or averaged")]
