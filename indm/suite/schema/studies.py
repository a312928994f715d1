"""Sections ``tune`` and ``toy2d``: the search of hyper-parameters, and the study of two-dimensional data."""

from typing import Annotated, Literal

from pydantic import Field

from indm.suite.schema.train import VPParams
from indm.suite.schema.types import Count, EachOnce, Fraction, GridPoints, Positive, Rate, Seed, Tolerance, Width
from indm.suite.strict_yaml import Strict


class RangeParams(Strict):
    """The range of a hyper-parameter."""

    low: float = Field(description="smallest value")
    high: float = Field(description="largest value")
    log: bool = Field(description="sample its logarithm instead of its value")


class ConfirmParams(Strict):
    """Trials that are trained again for longer, to check whether their ranking stays."""

    steps: Count = Field(description="optimiser steps of these trainings")
    trials: int = Field(
        ge=3, le=8, description="trials trained again, spread evenly over the ranking, the best among them"
    )


class TuneParams(Strict):
    """The search of a run's hyper-parameters on the validation split."""

    trials: int = Field(ge=2, le=10**6, description="number of trials, the same for all models that are compared")
    steps: Count = Field(description="optimiser steps of a trial, the same for all models that are compared")
    seeds: Annotated[list[Seed], EachOnce()] = Field(
        min_length=1,
        description="seeds of each trial's trainings, whose mean decides; the first one is for suggestions, too; the same for all "
        "models that are compared",
    )
    space: dict[str, RangeParams] = Field(min_length=1, description="ranges of keys of the train section, by key")
    confirm: ConfirmParams | None = Field(description="trials that are trained again for longer; or null")
    lengths: Annotated[list[Count], EachOnce()] = Field(
        description="steps of further trainings with the best hyper-parameters, increasing; or []"
    )


TOY2D = ("moons", "checkerboard", "eight-gaussians")
# A pattern instead of Literal, because the stage looks names up as plain text.
Toy2dName = Annotated[str, Field(pattern=f"^({'|'.join(TOY2D)})$")]


class Toy2dDataParams(Strict):
    """A two-dimensional dataset."""

    noise: float = Field(ge=0, le=1000, description="standard deviation of the noise that blurs it")


class Toy2dTrainingParams(Strict):
    """Networks and training of the study of two-dimensional data (Adam with betas 0.9 and 0.99, cosine schedules)."""

    width: Width = Field(description="hidden units of a layer of the score network")
    layers: int = Field(ge=1, le=100, description="hidden layers of the score network")
    couplings: int = Field(ge=1, le=100, description="affine couplings of INDM's flow")
    coupling_width: Width = Field(description="hidden units of a coupling's two hidden layers")
    scales: Annotated[list[Positive], EachOnce()] = Field(
        description="constants by which DDPM++'s controls multiply the data"
    )
    steps: Count = Field(description="optimiser steps, except for the control of equal compute")
    flow_warmup_steps: int = Field(ge=0, description="first steps, which train only the flow")
    batch_size: Count = Field(description="points in a batch")
    lr: Rate = Field(description="peak learning rate of the score network")
    flow_lr: Rate = Field(description="peak learning rate of the flow")
    map_lr: Rate = Field(description="peak learning rate of the maps that DDPM++'s controls learn")
    ema_decay: Fraction = Field(description="decay of the averaged weights")


class Toy2dParams(Strict):
    """The study of two-dimensional data: INDM, DDPM++ and its controls on each dataset, with the ``nll`` objective."""

    datasets: dict[Toy2dName, Toy2dDataParams] = Field(description="two-dimensional datasets; {} for no study")
    seeds: Annotated[list[Seed], EachOnce()] = Field(
        min_length=1, description="seeds of every model, trained in one batch"
    )
    train_points: Count = Field(description="training points of a seed")
    valid_points: int = Field(ge=2, le=10**9, description="validation points of a seed, by which a scale is chosen")
    # A single point has no standard deviation.
    test_points: int = Field(ge=2, le=10**9, description="test points of a seed")
    vp: VPParams
    eps: float = Field(ge=1e-9, lt=0.1, description="truncation time")
    training: Toy2dTrainingParams
    time_draws: Count = Field(description="draws of time and noise of the bound, for each point")
    tolerance: Tolerance = Field(description="tolerance of the ODE")
    sample_steps: Annotated[list[GridPoints], EachOnce()] = Field(
        min_length=1, description="network calls of the DDIM sampler"
    )
    grid: Literal["uniform", "log_snr"] = Field(
        description="steps of the sampler are equidistant in time or in log-SNR"
    )
    samples: Count = Field(description="samples for each seed, compared with the same number of data points")
