"""Sections ``nll`` and ``curve``: how likelihoods are evaluated."""

from typing import Annotated, Literal

from pydantic import Field

from indm.suite.schema.types import Count, Positive, Tolerance
from indm.suite.strict_yaml import Strict


class LikelihoodParams(Strict):
    """How likelihoods are evaluated."""

    images: Annotated[
        Annotated[int, Field(ge=2)] | None, Field(description="images, the first of the split; null: all of them")
    ]
    batch_size: Annotated[Count, Field(description="images in a batch")]
    time_draws: Annotated[Count, Field(description="stratified times of the bound, for each image")]
    tolerance: Annotated[Tolerance | None, Field(description="tolerance of the adaptive ODE; null: fixed steps")]
    ode_steps: Annotated[
        Count | None,
        Field(description="fixed steps of fifth order (Adams-Bashforth), equidistant in log-SNR; null: adaptive ones"),
    ]
    log_det: Annotated[
        Literal["exact", "series"],
        Field(description="the flow's log-determinant: of its whole Jacobian, or of a power series with random probes"),
    ]
    log_det_tolerance: Annotated[
        Positive | None,
        Field(
            description="bound on what the series leaves out of each image, in bits/dim; null: exact, it has no rest"
        ),
    ]


class NllParams(LikelihoodParams):
    """How the likelihood numbers of a trained run are evaluated."""

    uncorrected: Annotated[
        bool, Field(description="whether nll_uncorrected is evaluated too: a second ODE, of the same time")
    ]
