"""Numbers, names and rules that several sections share."""

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from indm.registry import DATASETS, DIFFUSIONS, FLOWS, NETWORKS, SAMPLERS

# What float32 computes with; smaller and larger numbers would vanish, or be infinite, within a product.
Positive = Annotated[float, Field(ge=1e-6, le=1e6)]
# Of a learning rate: what is larger means nothing.
Rate = Annotated[float, Field(gt=0, le=1)]
# Of an ODE in float32, whose rounding makes the steps of a smaller one so short that it never ends.
Tolerance = Annotated[float, Field(ge=1e-8, le=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]
# Of a grid of times, which lies in memory; between more of them, float32 sees no difference.
GridPoints = Annotated[int, Field(ge=2, le=10**6)]
# Of a layer: wider ones than any network in use take all of the memory.
Width = Annotated[int, Field(ge=1, le=4096)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# Also a folder, a word of a command and, for DVC, a part of a dotted key.
RunName = Annotated[str, Field(pattern=r"^[a-z0-9-]+$", max_length=150)]

# What pandas takes for an absent text when it reads a table.
ABSENT = re.compile(r"(#?N/?A|#N/A N/A|<NA>|n/a|-?(nan|NaN|1\.#IND|1\.#QNAN)|NULL|null|None)?")


def _shown(text: str) -> str:
    if ABSENT.fullmatch(text):
        raise PydanticCustomError("absent", "another text, since tables would be read without it")
    return text


# A text that a table shows.
Shown = Annotated[str, AfterValidator(_shown)]


class EachOnce:
    """Rule of a list: no value stands twice. What is measured twice would be averaged as if by two seeds."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(_each_once, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(schema) | {"uniqueItems": True}


def first_repeat(values: list[Any]) -> Any:
    """Return the first value of a list that stood in it before, or ``None``."""
    return next((value for i, value in enumerate(values) if value in values[:i]), None)


def _each_once(values: list[Any]) -> list[Any]:
    if (value := first_repeat(values)) is not None:
        raise PydanticCustomError("repeated", "each value once, and {value} stands there twice", {"value": repr(value)})
    return values


# The flow of a DDPM++, which no suite names, and the maps that it can have in its place: those of train.latent.learned.
IDENTITY = "identity"
LEARNED = ("scale", "affine", "linear")
# Draws the points of stage toy2d.
DDIM = "ddim"
# Of a sweep, and the sampler that it is, with the Langevin corrector.
PC, PREDICTOR = "pc", "reverse_diffusion"

if TYPE_CHECKING:
    DatasetName = str
    DiffusionName = str
    FlowName = str
    NetworkName = str
    SamplerName = str
    SweptName = str
else:
    DatasetName = Literal[tuple(DATASETS)]
    DiffusionName = Literal[tuple(DIFFUSIONS)]
    FlowName = Literal[tuple(name for name in FLOWS if name not in (IDENTITY, *LEARNED))]
    NetworkName = Literal[tuple(NETWORKS)]
    SamplerName = Literal[tuple(SAMPLERS)]
    # Those that take as many steps as they are told.
    SweptName = Literal[
        tuple(PC if name == PREDICTOR else name for name in SAMPLERS if SAMPLERS.literal(name, "CALLS"))
    ]
