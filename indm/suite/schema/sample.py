"""Section ``sample``: how images are drawn."""

from typing import Annotated, Literal

from pydantic import Field

from indm.suite.schema.names import SamplerName
from indm.suite.schema.types import Count, GridPoints, Positive, Tolerance
from indm.suite.strict_yaml import Strict


class SampleParams(Strict):
    """How images are drawn."""

    sampler: Annotated[
        SamplerName,
        Field(
            description="predictor of the reverse SDE, or the probability-flow ODE: adaptive, or one step an interval"
        ),
    ]
    steps: Annotated[GridPoints, Field(description="grid points; the adaptive ODE chooses its own")]
    grid: Annotated[Literal["uniform", "log_snr"], Field(description="what the grid points are equidistant in")]
    corrector_snr: Annotated[
        Annotated[list[Positive], Field(min_length=2, max_length=2)] | None,
        Field(description="first and last signal-to-noise ratio of a Langevin corrector, or null"),
    ]
    corrector_steps: Annotated[Count, Field(description="Langevin corrections at each grid point")]
    tolerance: Annotated[Tolerance, Field(description="tolerance of the adaptive ODE")]
    denoise: Annotated[
        Literal["tweedie", "none", "released_ve"],
        Field(
            description="last step; released_ve: 8.5 times Tweedie's step, from the uncorrected mean of the last predictor "
            "step, as in the released VE runs on CIFAR-10"
        ),
    ]
    centre_prior: Annotated[
        bool, Field(description="centre the prior on alpha_T times the mean latent of the training images")
    ]
    temperature: Annotated[Positive, Field(description="factor of the latent before the flow's inverse")]
    rounding: Annotated[
        Literal["nearest", "floor"],
        Field(
            description="of images to L levels; nearest: undoes dequantisation; floor: of L - 1 times them, as released"
        ),
    ]
    num_samples: Annotated[Count, Field(description="images drawn")]
    batch_size: Annotated[Count, Field(description="images drawn at once")]
