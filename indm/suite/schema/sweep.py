"""Section ``sweep``: images by several samplers and numbers of steps."""

from typing import Annotated, Literal

from pydantic import Field

from indm.suite.schema.names import SweptName
from indm.suite.schema.types import Count, EachOnce, GridPoints
from indm.suite.strict_yaml import Strict


class SweepParams(Strict):
    """Images of a run by several samplers and numbers of steps, at temperature 1; what is not here is as in its sample section."""

    objectives: Annotated[
        list[Literal["nll", "fid"]],
        EachOnce(),
        Field(description="of the runs that are swept; others have no sweep"),
    ]
    samplers: Annotated[
        list[SweptName],
        EachOnce(),
        Field(
            min_length=1, description="pc: reverse_diffusion, with the Langevin corrector of the run's sample section"
        ),
    ]
    steps: Annotated[
        list[GridPoints],
        EachOnce(),
        Field(min_length=1, description="grid points, of which a sampler steps between"),
    ]
    grid: Annotated[Literal["uniform", "log_snr"], Field(description="what the grid points are equidistant in")]
    denoise: Annotated[Literal["tweedie", "none"], Field(description="last step, the same for all that are compared")]
    num_samples: Annotated[int, Field(ge=2, le=10**9, description="images drawn for each sampler and number of steps")]
    batch_size: Annotated[Count, Field(description="images drawn at once")]
