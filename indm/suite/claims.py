"""The schema of ``params/claims.yaml``: what the paper claims, as statements that numbers can decide."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from indm.errors import ParamsError
from indm.suite.schema.names import DiffusionName
from indm.suite.schema.types import EachOnce
from indm.suite.strict_yaml import Strict, read_mapping

Word = Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]


class Metric(Strict):
    """Which number of the tidy table."""

    stage: Annotated[Literal["fid", "nll", "curve", "sweep", "toy2d"], Field(description="column stage")]
    name: Annotated[str, Field(min_length=1, description="column metric")]
    sampler: Annotated[
        Annotated[list[str], EachOnce(), Field(min_length=1)] | None,
        Field(description="the mean over these of column sampler; null: over all; each with its like"),
    ]
    x: Annotated[
        Annotated[list[float], Field(min_length=2, max_length=2)] | Literal["last"] | None,
        Field(description="the mean over column x from first to second; its last; null: each with its like"),
    ]
    transform: Annotated[
        Literal["signed", "abs", "log"], Field(description="of each number; log makes differences relative")
    ]

    @model_validator(mode="after")
    def _range(self) -> Self:
        if isinstance(self.x, list) and self.x[0] > self.x[1]:
            raise ValueError(f"x: found {self.x}; allowed: the smaller number first, or no row lies between them")
        return self


class Arm(Strict):
    """One side of a comparison."""

    model: Literal["ddpmpp", "indm"]
    variant: Annotated[str, Field(pattern=r"^[a-z0-9-]*$", description="column variant; '': the plain model")]
    objective: Annotated[Literal["nll", "fid"] | None, Field(description="null: the treatment's")]


class Bound(Strict):
    """A fixed number instead of a baseline, before the transform."""

    value: float


class Control(Strict):
    """Something simpler than the treatment that might do as well."""

    model: Literal["ddpmpp", "indm"]
    variants: Annotated[
        list[str], EachOnce(), Field(min_length=1, description="one variant, or those that choose_by chooses from")
    ]
    objective: Annotated[Literal["nll", "fid"] | None, Field(description="null: the treatment's")]
    choose_by: Annotated[
        Metric | None, Field(description="validation metric whose smallest mean over seeds chooses, for each dataset")
    ]
    sampler: Annotated[
        str | None, Field(description="sampler of its images, beside each of the treatment's; null: the treatment's")
    ] = None

    @model_validator(mode="after")
    def _choice(self) -> Self:
        if (self.choose_by is None) != (len(self.variants) == 1):
            raise ValueError(f"choose_by: a metric where there are several variants, else null; found {self.variants}")
        return self


class Where(Strict):
    """Where the claim is graded: once for each dataset, SDE and objective that is listed; an empty list is any."""

    datasets: Annotated[list[str], EachOnce()]
    sdes: Annotated[list[DiffusionName], EachOnce()]
    objectives: Annotated[list[Literal["nll", "fid"]], EachOnce()]


class Claim(Strict):
    """One claim of the paper."""

    id: Word
    family: Annotated[
        Literal["primary", "exploratory"],
        Field(description="primary: shown only where Holm's adjustment over a suite's primary rows leaves it"),
    ]
    question: Annotated[str, Field(min_length=1, description="what a reader would ask")]
    statement: Annotated[str, Field(min_length=1, description="in words")]
    source: Annotated[str, Field(min_length=1, description="where the paper says it")]
    metric: Metric
    treatment: Arm
    baseline: Arm | Bound
    controls: Annotated[list[Word], EachOnce(), Field(description="controls that the treatment must beat too")]
    where: Where
    direction: Annotated[Literal["lower", "higher"], Field(description="of the treatment's number")]
    smallest_effect: Annotated[float, Field(ge=0, description="smallest difference from the baseline worth a claim")]
    unit: Annotated[str, Field(min_length=1, description="of the effect")]
    why: Annotated[str, Field(min_length=1, description="reason of the smallest effect")]

    @model_validator(mode="after")
    def _bound(self) -> Self:
        if isinstance(self.baseline, Bound) and self.metric.transform == "log" and self.baseline.value <= 0:
            raise ValueError(
                f"baseline: found {self.baseline.value:g}; allowed: above 0, since metric.transform is log"
            )
        return self


class Claims(Strict):
    """The file."""

    controls: dict[Word, Control]
    claims: Annotated[list[Claim], Field(min_length=1)]

    @model_validator(mode="after")
    def _references(self) -> Self:
        names = [claim.id for claim in self.claims]
        twice = sorted({name for name in names if names.count(name) > 1})
        unknown = sorted({name for claim in self.claims for name in claim.controls} - set(self.controls))
        if twice:
            raise ValueError(f"claims: found the id {', '.join(twice)} twice; allowed: each once")
        if unknown:
            raise ValueError(f"claims: found no control {', '.join(unknown)}; controls: {', '.join(self.controls)}")
        return self


def load_claims(path: Path) -> Claims:
    """Read and validate the claims.

    Raises:
        ParamsError: one line for each mistake: file, claim, key, what was found and what is allowed.
    """
    try:
        raw = read_mapping(path, Claims)
        return Claims.model_validate(raw)
    except FileNotFoundError:
        raise ParamsError(f"{path}: missing; run from the top of a checkout") from None
    except ValidationError as error:
        raise ParamsError("\n".join(_describe(path, raw, dict(item)) for item in error.errors())) from None


def _describe(path: Path, raw: dict[str, Any], error: dict[str, Any]) -> str:
    location = list(error["loc"])
    place = f"{path}: "
    if location[:1] == ["claims"] and len(location) > 1:
        entry = raw["claims"][location[1]]
        place += f"claim {entry.get('id', location[1]) if isinstance(entry, dict) else location[1]}, "
        location = location[2:]
    place += f"key {'.'.join(map(str, location)) or 'claims'}"
    if error["type"] == "extra_forbidden":
        return f"{place}: unknown key"
    if error["type"] == "missing":
        return f"{place}: missing"
    if error["type"] == "value_error":
        return f"{place}: {error['ctx']['error']}"
    return f"{place}: found {error['input']!r}; allowed: {error['msg']}"
