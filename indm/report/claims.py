"""The schema of ``params/claims.yaml``: the paper's claims, as statements that numbers can decide; how a suite grades them."""

from collections.abc import Iterable
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from indm.facts import REFERENCE
from indm.fields import Count, DiffusionName, EachOnce, FamilyName, Shown, SweptName
from indm.measured import METRICS
from indm.registry import DATASETS
from indm.strict_yaml import Strict

Word = Annotated[Shown, Field(pattern=r"^[a-z0-9-]+$")]
Objective = Literal["nll", "fid"]
# In place of a sampler: of each side its own. In place of a control: the scale of the data that was chosen beforehand.
CHOSEN, BEST_SCALE = "chosen", "best-scale"


def _known(key: str, found: Iterable[str], names: Iterable[str], stage: str) -> None:
    """Refuse a name that a stage does not have, because its numbers would be missing silently."""
    if unknown := [name for name in found if name not in names]:
        allowed = ", ".join(names) + f", of stage {stage}" if names else f"no name, since stage {stage} has none"
        raise ValueError(f"{key}: found {', '.join(map(repr, unknown))}; allowed: {allowed}")


class Metric(Strict):
    """A number in the tidy table."""

    stage: Literal["fid", "nll", "curve", "sweep", "toy2d"] = Field(description="column stage")
    name: str = Field(
        description="column metric; nelbo and nll of stage nll: with the decoder that the suite's grading states"
    )
    sampler: str | None = Field(
        default=None,
        description="column sampler, of both sides; chosen: of each side its own, which the suite's grading states",
    )
    x: Annotated[list[float], Field(min_length=2, max_length=2)] | None = Field(
        default=None, description="the mean over column x from first to second; null: each with its like"
    )
    transform: Literal["signed", "log"] = Field(
        default="signed", description="of each number; log makes differences relative"
    )

    @model_validator(mode="after")
    def _names(self) -> Self:
        _known("name", [self.name], METRICS[self.stage], self.stage)
        sampler = [self.sampler] if self.sampler else []
        _known("sampler", sampler, [CHOSEN, *get_args(SweptName)] if self.stage == "sweep" else [], self.stage)
        return self

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.x and self.x[0] > self.x[1]:
            raise ValueError(
                f"x: found {self.x}; allowed: the smaller number first, since otherwise no row is between them"
            )
        return self


class Side(Strict):
    """One side of a comparison."""

    model: FamilyName
    variant: str = Field(default="", pattern=r"^[a-z0-9-]*$", description="column variant; '': the plain model")
    objective: Objective | None = Field(default=None, description="null: the treatment's")


class Bound(Strict):
    """A fixed number instead of a model, before the transform."""

    value: float


class Where(Strict):
    """Where the claim is graded: once for each listed dataset, SDE and objective; an empty list means all."""

    datasets: Annotated[list[str], EachOnce()] = Field(default_factory=list)
    sdes: Annotated[list[DiffusionName], EachOnce()] = Field(default_factory=list)
    objectives: Annotated[list[Objective], EachOnce()] = Field(default_factory=list)


class Smallest(Strict):
    """The smallest difference that counts."""

    effect: float = Field(ge=0, description="in the unit of the metric, transformed")
    unit: Shown = Field(description="of the effect")
    why: Shown = Field(description="reason of the smallest effect")


class Claim(Strict):
    """One claim of the paper."""

    id: Word
    family: Literal["primary", "exploratory"] = Field(
        description="primary: its comparisons share the error rate of their question"
    )
    question: Shown = Field(description="question of a reader that the claim answers")
    statement: Shown = Field(description="in words")
    source: Shown = Field(description="its place in the paper")
    metric: Metric
    treatment: Side = Side(model="indm")
    baseline: Side | Bound | None = Field(
        default=None,
        description="the only comparison; null: DDPM++ at equal steps, at equal compute, and a simple control",
    )
    controls: Annotated[list[Word], EachOnce()] = Field(
        default_factory=list, description="variants with which INDM is also compared, as an exploration"
    )
    where: Where = Where()
    direction: Literal["lower", "higher"] = Field(default="lower", description="of the treatment's number")
    smallest: Smallest

    @model_validator(mode="after")
    def _bound(self) -> Self:
        if isinstance(self.baseline, Bound) and self.metric.transform == "log" and self.baseline.value <= 0:
            raise ValueError(
                f"baseline: found {self.baseline.value:g}; allowed: above 0, since metric.transform is log"
            )
        return self

    @model_validator(mode="after")
    def _sides(self) -> Self:
        objectives = {self.treatment.objective, *self.where.objectives} - {None}
        if self.baseline is None and self.treatment.model == REFERENCE:
            raise ValueError(
                f"baseline: found null; allowed: a model or a number, since the treatment is {self.treatment.model} itself"
            )
        if isinstance(self.baseline, Side):
            own, other = (side.model_dump(exclude={"objective"}) for side in (self.treatment, self.baseline))
            if own == other and self.baseline.objective in {None, *objectives}:
                raise ValueError(
                    f"claim {self.id}: found the same numbers, from {self.baseline.model}, for treatment and baseline; allowed: "
                    "another model, variant or objective, since a model differs from itself by 0"
                )
        if self.baseline and self.controls:
            raise ValueError(
                f"controls: found {', '.join(self.controls)}; allowed: [], since the claim has its own baseline"
            )
        return self

    @model_validator(mode="after")
    def _places(self) -> Self:
        # The jobs of the study of known densities are the suite's own.
        is_toy2d = self.metric.stage == "toy2d"
        _known("where.datasets", self.where.datasets, [] if is_toy2d else list(DATASETS), self.metric.stage)
        for key in ("sdes", "objectives") if is_toy2d else ():
            _known(f"where.{key}", getattr(self.where, key), [], "toy2d")
        return self


class Claims(Strict):
    """The file."""

    claims: list[Claim] = Field(min_length=1)

    @model_validator(mode="after")
    def _references(self) -> Self:
        names = [claim.id for claim in self.claims]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"claims: found the id {', '.join(twice)} twice; allowed: each once")
        return self


class ControlsParams(Strict):
    """The controls of a comparison that were chosen before the graded runs."""

    simple: str | None = Field(
        description="variant of the simple control, a simpler model than a flow; null: the suite does not have one"
    )
    scale: str | None = Field(
        description="variant of the best scale of the data, such as scale-5 (known densities: best-scale); null: not searched"
    )


class GradingParams(Strict):
    """How claims are graded, fixed before the runs."""

    question: str = Field(
        pattern=r"^[a-z0-9-]+$", description="question of the suite; suites with the same question share an error rate"
    )
    rows: Count = Field(
        description="primary rows of all suites of this question: claims times datasets, SDEs and objectives"
    )
    decoder: Literal["learned", "validation", "test"] = Field(
        description="decoder of likelihoods in claims; validation, test: of each cell the one with the lower NELBO on that split"
    )
    samplers: dict[FamilyName, SweptName] | None = Field(
        description="sampler at few steps of each model, chosen on the search's seeds and validation images; null: not chosen"
    )
    images: ControlsParams
    toy2d: ControlsParams
