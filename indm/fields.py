"""Numbers, names and rules that several sections share."""

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from indm import facts
from indm.registry import DATASETS, DIFFUSIONS, FAMILIES, FLOWS, NETWORKS, SAMPLERS

# The range for float32, in which products of smaller and larger numbers would vanish or be infinite.
Positive = Annotated[float, Field(ge=1e-6, le=1e6)]
# Learning rates; larger ones are not meaningful.
Rate = Annotated[float, Field(gt=0, le=1)]
# Tolerances of an ODE in float32; with a smaller one, rounding makes steps so short that it never ends.
Tolerance = Annotated[float, Field(ge=1e-8, le=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]
# Points of a grid of times, which is held in memory; more points are not distinct in float32.
GridPoints = Annotated[int, Field(ge=2, le=10**6)]
# Width of a layer; layers that are wider than in any network in use take all of the memory.
Width = Annotated[int, Field(ge=1, le=4096)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# A run's name is also a folder, an argument of a command and, for DVC, a part of a dotted key.
RunName = Annotated[str, Field(pattern=r"^[a-z0-9-]+$", max_length=150)]

# Texts that pandas reads from a table as absent.
ABSENT = re.compile(r"(#?N/?A|#N/A N/A|<NA>|n/a|-?(nan|NaN|1\.#IND|1\.#QNAN)|NULL|null|None)?")


def _shown(text: str) -> str:
    if ABSENT.fullmatch(text):
        raise PydanticCustomError("absent", "another text, since tables would be read without it")
    return text


# A text that a table shows.
Shown = Annotated[str, AfterValidator(_shown)]


class EachOnce:
    """The rule that values in a list are unique, because a repeated value would be averaged as if by two seeds."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(_each_once, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(schema) | {"uniqueItems": True}


def first_repeat(values: list[Any]) -> Any:
    """Return the first value of a list that repeats an earlier one, or ``None``."""
    return next((value for i, value in enumerate(values) if value in values[:i]), None)


def _each_once(values: list[Any]) -> list[Any]:
    if (value := first_repeat(values)) is not None:
        raise PydanticCustomError("repeated", "each value once, but {value} is repeated", {"value": repr(value)})
    return values


def cell_name(dataset: str, sde: str, model: str, variant: str, objective: str) -> str:
    """Name a cell, whose runs differ in their seeds alone."""
    return "-".join(filter(None, (dataset, sde, model, variant, objective)))


# The flow of DDPM++, which suites do not name, and the maps of train.latent.learned.
IDENTITY = "identity"
LEARNED = ("scale", "affine", "linear", "filter", "curve")
# The sampler of the toy2d stage.
# A name of a sweep, and the sampler for which it stands, with the Langevin corrector.
PC, PREDICTOR = "pc", "reverse_diffusion"

if TYPE_CHECKING:
    DatasetName = str
    DiffusionName = str
    FamilyName = str
    FlowName = str
    NetworkName = str
    SamplerName = str
    SweptName = str
else:
    DatasetName = Literal[tuple(DATASETS)]
    DiffusionName = Literal[tuple(DIFFUSIONS)]
    FamilyName = Literal[tuple(FAMILIES)]
    FlowName = Literal[tuple(name for name in FLOWS if name not in (IDENTITY, *LEARNED))]
    NetworkName = Literal[tuple(NETWORKS)]
    SamplerName = Literal[tuple(SAMPLERS)]
    # The samplers with a fixed number of steps.
    SweptName = Literal[tuple(PC if name == PREDICTOR else name for name in SAMPLERS if facts.sampler(name).calls)]
