"""Section ``tune``: a search of hyper-parameters, the same for every arm."""

from typing import Annotated

from pydantic import Field

from indm.suite.schema.types import Count, EachOnce, Seed
from indm.suite.strict_yaml import Strict


class RangeParams(Strict):
    """Where a hyper-parameter is looked for."""

    low: Annotated[float, Field(description="smallest value")]
    high: Annotated[float, Field(description="largest value")]
    log: Annotated[bool, Field(description="draw its logarithm instead of the value")]


class ConfirmParams(Strict):
    """Trials that are trained again for longer, to see whether their ranking stays."""

    steps: Annotated[Count, Field(description="optimiser steps of these trainings")]
    trials: Annotated[
        int, Field(ge=3, le=8, description="trials trained again, spread evenly over the ranking, the best among them")
    ]


class TuneParams(Strict):
    """The search of an arm: a run whose hyper-parameters are chosen on the validation split."""

    trials: Annotated[int, Field(ge=2, le=10**6, description="trials; arms that are compared have equally many")]
    steps: Annotated[Count, Field(description="optimiser steps of a trial; arms that are compared have equally many")]
    seed: Annotated[
        Seed,
        Field(description="of all trials: images, noise and suggestions; arms that are compared have the same"),
    ]
    space: Annotated[
        dict[str, RangeParams], Field(min_length=1, description="ranges of keys of the train section, by key")
    ]
    confirm: Annotated[ConfirmParams | None, Field(description="trials that are trained again for longer; or null")]
    lengths: Annotated[
        list[Count],
        EachOnce(),
        Field(description="steps of further trainings by the best hyper-parameters, increasing; or []"),
    ]
