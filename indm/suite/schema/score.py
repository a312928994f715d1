"""Section ``train.score``: the score network."""

from typing import Annotated, Literal

from pydantic import Field

from indm.suite.schema.names import NetworkName
from indm.suite.schema.types import Count, EachOnce, Fraction, Positive
from indm.suite.strict_yaml import Strict


class ScoreParams(Strict):
    """The score network."""

    name: Annotated[NetworkName, Field(description="registered network")]
    channels: Annotated[int, Field(ge=8, le=4096, multiple_of=4, description="channels at full resolution")]
    multipliers: Annotated[
        list[Annotated[int, Field(ge=1, le=64)]],
        Field(min_length=1, description="channel multiplier of each resolution"),
    ]
    blocks: Annotated[int, Field(ge=1, le=1000, description="residual blocks at each resolution")]
    attention_resolutions: Annotated[
        list[Count], EachOnce(), Field(description="image sizes at which attention is applied")
    ]
    dropout: Annotated[Fraction, Field(description="dropout rate in the residual blocks")]
    embedding: Annotated[
        Literal["positional", "fourier", "log_snr"], Field(description="how the network is told the time")
    ]
    fourier_scale: Annotated[Positive, Field(description="standard deviation of the Fourier frequencies")]
    fir: Annotated[bool, Field(description="resample with the filter (1, 3, 3, 1)")]
    progressive_input: Annotated[
        Literal["none", "residual"], Field(description="feed the downsampled input to every resolution")
    ]
    scale_by_sigma: Annotated[bool, Field(description="the network divides its output by sigma: it predicts the score")]
    normalise_input: Annotated[
        Literal["none", "unit", "running"],
        Field(
            description="divide z_t by sqrt(alpha^2 s^2 + sigma^2) first, with s = 1 (unit) or the running deviation of the latent "
            "(running), as c_in of EDM (arXiv:2206.00364); none: not"
        ),
    ]
