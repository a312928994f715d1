"""Sections ``tune`` and ``toy2d``: the search of hyper-parameters, and the study of known densities."""

from typing import Annotated, Literal

from pydantic import Field

from indm.bench.suite.schema.train import VPParams
from indm.fields import (
    Count,
    EachOnce,
    Fraction,
    GridPoints,
    Positive,
    Rate,
    RunName,
    Seed,
    Width,
)
from indm.strict_yaml import Strict


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


# Names without a number of dimensions have two.
SHAPES = Literal["moons", "checkerboard", "eight-gaussians", "mixture-2d", "mixture-8d"]
TOY2D = Literal[SHAPES, "coupled-2d", "coupled-8d", "swirled-2d", "swirled-8d", "white-8d", "steep-8d"]
MODELS = Literal[
    "ddpmpp", "indm", "same-compute", "best-scale", "learned-linear", "frozen-flow", "learned-range", "mulan", "diffenc"
]


class Toy2dDataParams(Strict):
    """A known density at one length of training with some of the seeds: a job."""

    density: TOY2D = Field(description="the density")
    length: str = Field(pattern="^[a-z0-9]+$", description="a key of toy2d.lengths")
    scale: Positive = Field(description="constant by which best-scale multiplies the data, chosen beforehand")
    seeds: Annotated[list[Seed], EachOnce()] = Field(
        min_length=1, description="seeds of every model, trained in one batch"
    )

    @property
    def label(self) -> str:
        """The name of density and length as a dataset, in tables."""
        return f"{self.density}-{self.length}"

    @property
    def is_plane(self) -> bool:
        """Whether the density has two dimensions."""
        return not self.density.endswith("-8d")


class Toy2dRatesParams(Strict):
    """Learning rates of a model, at their peaks."""

    lr: Rate = Field(description="rate of the score network")
    map_lr: float = Field(
        ge=0, le=1, description="rate of INDM's flow, the learned linear map or a rival's path; 0 without one"
    )


class Toy2dLengthParams(Strict):
    """A length of training, and the models with their rates."""

    steps: Count = Field(description="optimiser steps, except for the control of equal compute")
    rates: dict[MODELS, Toy2dRatesParams] = Field(
        description="rates of each model; a model without rates is not trained"
    )


class Toy2dTrainingParams(Strict):
    """Networks and training of the study of known densities (Adam with betas 0.9 and 0.99, cosine schedules)."""

    width: Width = Field(description="hidden units of a layer of the score network")
    layers: int = Field(ge=1, le=100, description="hidden layers of the score network")
    couplings: int = Field(ge=1, le=100, description="affine couplings of INDM's flow")
    coupling_width: Width = Field(description="hidden units of a coupling's two hidden layers")
    batch_size: Count = Field(description="points in a batch, fresh in every step")
    ema_decay: Fraction = Field(description="decay of the averaged weights")


class Toy2dImportanceParams(Strict):
    """The variational gap of DDPM++ and INDM in two dimensions, by importance weights."""

    points: int = Field(ge=2, le=200, description="points, the first of the test points")
    paths: Count = Field(description="paths of the reverse process for each point, and four times as many")
    steps: Count = Field(description="steps of a path")


class Toy2dParams(Strict):
    """The study of known densities: INDM, DDPM++ and its controls on each density, with the ``nll`` objective."""

    datasets: dict[RunName, Toy2dDataParams] = Field(description="jobs by name; {} for no study")
    lengths: dict[str, Toy2dLengthParams] = Field(description="lengths of training by name")
    test_points: int = Field(ge=2, le=10**9, description="test points of a seed")
    vp: VPParams
    eps: float = Field(ge=1e-9, lt=0.1, description="truncation time")
    training: Toy2dTrainingParams
    time_draws: Count = Field(description="draws of time and noise of the bound, for each point")
    importance: Toy2dImportanceParams
    sample_steps: Annotated[list[GridPoints], EachOnce()] = Field(
        min_length=1, description="network calls of the DDIM sampler"
    )
    samples: int = Field(ge=2, le=10**6, description="samples of a seed, compared with the same number of fresh points")
