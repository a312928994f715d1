"""Numbers, names and rules that several sections share."""

from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

Positive = Annotated[float, Field(gt=0, le=1e6)]
# Of a learning rate or an ODE: what is larger means nothing, and below the least an ODE's steps underflow.
Rate = Annotated[float, Field(gt=0, le=1)]
Tolerance = Annotated[float, Field(ge=1e-12, le=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# Also a folder, a word of a command and, for DVC, a part of a dotted key.
RunName = Annotated[str, Field(pattern=r"^[a-z0-9-]+$", max_length=150)]


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
