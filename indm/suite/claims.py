"""The schema of ``params/claims.yaml``: the paper's claims, as statements that numbers can decide."""

from collections.abc import Iterable, Iterator
from itertools import combinations, product
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, ValidationError, model_validator

from indm.errors import ParamsError
from indm.measured import METRICS
from indm.suite.expand import variants_of
from indm.suite.measured import DRAWN_BY, datasets
from indm.suite.schema.types import DiffusionName, EachOnce, FamilyName, Shown
from indm.suite.strict_yaml import Strict, read_mapping
from indm.suite.variants import CONTROLS, FROZEN_FLOW, SCALE

Word = Annotated[Shown, Field(pattern=r"^[a-z0-9-]+$")]
Objective = Literal["nll", "fid"]


def _known(key: str, found: Iterable[str], names: Iterable[str], stage: str) -> None:
    """Refuse a name that a stage does not have, because its numbers would be missing silently."""
    if unknown := [name for name in found if name not in names]:
        allowed = ", ".join(names) + f", of stage {stage}" if names else f"no name, since stage {stage} has none"
        raise ValueError(f"{key}: found {', '.join(map(repr, unknown))}; allowed: {allowed}")


class Metric(Strict):
    """A number in the tidy table."""

    stage: Annotated[Literal["fid", "nll", "curve", "sweep", "toy2d"], Field(description="column stage")]
    name: Annotated[str, Field(description="column metric")]
    sampler: Annotated[
        Annotated[list[str], EachOnce(), Field(min_length=1)] | None,
        Field(description="the mean over these of column sampler; null: over all; each with its like"),
    ] = None
    x: Annotated[
        Annotated[list[float], Field(min_length=2, max_length=2)] | Literal["last"] | None,
        Field(description="the mean over column x from first to second; its last; null: each with its like"),
    ] = None
    transform: Annotated[
        Literal["signed", "log"], Field(description="of each number; log makes differences relative")
    ] = "signed"

    @model_validator(mode="after")
    def _names(self) -> Self:
        _known("name", [self.name], METRICS[self.stage], self.stage)
        _known("sampler", self.sampler or [], DRAWN_BY.get(self.stage, []), self.stage)
        return self

    @model_validator(mode="after")
    def _range(self) -> Self:
        if isinstance(self.x, list) and self.x[0] > self.x[1]:
            raise ValueError(
                f"x: found {self.x}; allowed: the smaller number first, since otherwise no row is between them"
            )
        return self


class Side(Strict):
    """One side of a comparison."""

    model: FamilyName
    variant: Annotated[str, Field(pattern=r"^[a-z0-9-]*$", description="column variant; '': the plain model")] = ""
    objective: Annotated[Objective | None, Field(description="null: the treatment's")] = None


class Bound(Strict):
    """A fixed number instead of a baseline, before the transform."""

    value: float


class Control(Strict):
    """A simpler model than the treatment that might perform equally well."""

    model: FamilyName = "ddpmpp"
    variants: Annotated[
        list[str],
        EachOnce(),
        Field(min_length=1, description="one variant, or the variants from which choose_by chooses"),
    ]
    objective: Annotated[Objective | None, Field(description="null: the treatment's")] = None
    choose_by: Annotated[
        Metric | None, Field(description="validation metric whose smallest mean over seeds chooses, for each dataset")
    ] = None
    sampler: Annotated[
        str | None,
        Field(description="sampler of its images, for each of the treatment's samplers; null: the treatment's"),
    ] = None

    @model_validator(mode="after")
    def _choice(self) -> Self:
        if (self.choose_by is None) != (len(self.variants) == 1):
            raise ValueError(
                f"choose_by: found variants {self.variants}; allowed: a metric if there are several, else null"
            )
        return self


class Where(Strict):
    """Where the claim is graded: once for each listed dataset, SDE and objective; an empty list means all."""

    datasets: Annotated[list[str], EachOnce()] = Field(default_factory=list)
    sdes: Annotated[list[DiffusionName], EachOnce()] = Field(default_factory=list)
    objectives: Annotated[list[Objective], EachOnce()] = Field(default_factory=list)


class Smallest(Strict):
    """The smallest difference from the baseline that counts."""

    effect: Annotated[float, Field(ge=0, description="in the unit of the metric, transformed")]
    unit: Annotated[Shown, Field(description="of the effect")]
    why: Annotated[Shown, Field(description="reason of the smallest effect")]


class Claim(Strict):
    """One claim of the paper."""

    id: Word
    family: Annotated[
        Literal["primary", "exploratory"],
        Field(description="primary: its intervals hold simultaneously for all primary rows of a suite"),
    ]
    question: Annotated[Shown, Field(description="question of a reader that the claim answers")]
    statement: Annotated[Shown, Field(description="in words")]
    source: Annotated[Shown, Field(description="its place in the paper")]
    metric: Metric
    treatment: Side = Side(model="indm")
    baseline: Side | Bound = Side(model="ddpmpp")
    controls: Annotated[
        list[Word],
        EachOnce(),
        Field(description="simpler models; if the treatment beats all of them, the gain is due to the flow"),
    ] = Field(default_factory=list)
    where: Where = Where()
    direction: Annotated[Literal["lower", "higher"], Field(description="of the treatment's number")] = "lower"
    floor: Annotated[
        float | None, Field(description="a gain counts down to this number only, of means over seeds; null: always")
    ] = None
    smallest: Smallest

    @model_validator(mode="after")
    def _bound(self) -> Self:
        if isinstance(self.baseline, Bound) and self.metric.transform == "log" and self.baseline.value <= 0:
            raise ValueError(
                f"baseline: found {self.baseline.value:g}; allowed: above 0, since metric.transform is log"
            )
        return self

    @model_validator(mode="after")
    def _floor(self) -> Self:
        if self.floor is not None and (self.metric.transform, self.direction) != ("signed", "lower"):
            raise ValueError(f"floor: found {self.floor:g}; allowed: null, unless signed numbers are to be lower")
        if self.floor:
            raise ValueError(f"floor: found {self.floor:g}; allowed: 0, below which a gap is not a merit, or null")
        return self

    @model_validator(mode="after")
    def _places(self) -> Self:
        _known("where.datasets", self.where.datasets, datasets(self.metric.stage), self.metric.stage)
        if self.metric.stage == "toy2d":
            for key in ("sdes", "objectives"):
                _known(f"where.{key}", getattr(self.where, key), [], "toy2d")
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

    @model_validator(mode="after")
    def _arms(self) -> Self:
        for claim in self.claims:
            stage, controls = claim.metric.stage, {name: self.controls[name] for name in claim.controls}
            for name, control in controls.items():
                own = [control.sampler] if control.sampler else []
                _known(f"controls.{name}.sampler, in claim {claim.id}", own, DRAWN_BY.get(stage, []), stage)
            arms = {"treatment": claim.treatment, "baseline": claim.baseline, **controls}
            for (name, arm), (other, another) in combinations(arms.items(), 2):
                if both := _numbers_of(claim, arm) & _numbers_of(claim, another):
                    model = ", ".join(filter(None, min(both)))
                    raise ValueError(
                        f"claim {claim.id}: found the same numbers, from {model}, for {name} and {other}; allowed: another "
                        "model, variant, objective or sampler, since a model differs from itself by 0"
                    )
        return self


def _numbers_of(claim: Claim, arm: Side | Bound | Control) -> set[tuple[str, str, str, str]]:
    """List the possible origins of one side's numbers, wherever a claim is graded: model, variant, objective and samplers."""
    if isinstance(arm, Bound):
        return set()
    own = claim.treatment.objective
    objectives = [own] if own else claim.where.objectives or get_args(Objective)
    variants = [arm.variant] if isinstance(arm, Side) else arm.variants
    sampler = [arm.sampler] if isinstance(arm, Control) and arm.sampler else claim.metric.sampler or []
    return set(product([arm.model], variants, [arm.objective] if arm.objective else objectives, [" ".join(sampler)]))


def load_claims(path: Path) -> Claims:
    """Read and validate the claims.

    Raises:
        ParamsError: one line for each mistake: file, claim, key, the value found and the values allowed.
    """
    try:
        raw = read_mapping(path, Claims)
        claims = Claims.model_validate(raw)
    except FileNotFoundError:
        raise ParamsError(f"{path}: missing; run from the top of a checkout") from None
    except ValidationError as error:
        raise ParamsError("\n".join(_describe(path, raw, dict(item)) for item in error.errors())) from None
    if unknown := list(_unknown_variants(claims, path.parent)):
        raise ParamsError("\n".join(f"{path}: {mistake}" for mistake in unknown))
    return claims


def _unknown_variants(claims: Claims, folder: Path) -> Iterator[str]:
    """List the variants of which no suite in a folder can have numbers, because these would be missing silently."""
    arms = {f"key controls.{name}.variants": (each.model, each.variants) for name, each in claims.controls.items()}
    for claim in claims.claims:
        sides = {"treatment": claim.treatment, "baseline": claim.baseline}
        sides = {f"claim {claim.id}, key {name}.variant": side for name, side in sides.items()}
        arms |= {name: (side.model, [side.variant]) for name, side in sides.items() if isinstance(side, Side)}
    for place, (model, variants) in arms.items():
        named = [name for name in CONTROLS if (name == FROZEN_FLOW) == (model == "indm")]
        if unknown := [name for name in variants if name and name not in named and not SCALE.fullmatch(name)]:
            known = sorted({*named, *variants_of(model, folder)})
            allowed = f"{', '.join(known)}, or scale-2 and the like, which are the variants of model {model} here"
            yield from (f"{place}: found {name!r}; allowed: {allowed}" for name in unknown if name not in known)


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
