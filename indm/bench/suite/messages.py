"""Messages for values that the schema refuses: the place, the value found, the values allowed and their meaning."""

import difflib
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from indm.bench.suite.schema.suite import Suite
from indm.strict_yaml import FOUND, Strict


def describe(path: Path, suite: object, error: dict[str, Any], cells: Mapping[str, str]) -> str:
    """Describe an invalid value, by pydantic's error for the suite in full, and the values that are allowed."""
    location = [str(part) for part in error["loc"]]
    run, key = (location[1], location[2:]) if location[0] == "runs" and len(location) > 1 else (None, location)
    run = cells.get(run, run) if run else None
    place = f"{path}: suite {suite}, " + (f"run {run}, " if run else "") + f"key {'.'.join(key) or '(the run)'}"
    if location[-1] == "[key]":
        # An invalid name in a mapping.
        named, section = cells.get(location[-2], location[-2]), ".".join(location[:-2])
        choices = error["msg"].removeprefix("Input should be ").replace("'", "")
        allowed = NAMES if section in ("runs", "tune") else choices
        return f"{path}: suite {suite}, key {section}: found the name {named!r}; allowed: {allowed}"
    if error["type"] == "extra_forbidden":
        return f"{place}: unknown key; allowed: {_keys(_model_at(location[:-1]), near=location[-1])}"
    if error["type"] == "repeated":
        found = f"found {error['ctx']['value']} twice in {FOUND.repr(error['input'])}"
        return f"{place}: {found}; allowed: each value once; remove the repeats"
    if error["type"] == "missing":
        return f"{place}: missing; expected {_expected(location)}"
    allowed = _expected(location) or error["msg"]
    if error["type"] in SECTION:
        model = _model_at(location)
        allowed = f"a section of the keys {_keys(model)}" if hasattr(model, "model_fields") else "a section of names"
    return f"{place}: found {FOUND.repr(error['input'])}; allowed: {allowed}"


def _model_at(location: list[str]) -> type[Strict]:
    """Find the model to which a location in a suite file belongs."""
    model: Any = Suite
    for part in location:
        model = model.model_fields[part].annotation if hasattr(model, "model_fields") else get_args(model)[1]
        # An optional section, Section | None.
        model = next(
            (kind for kind in get_args(model) if hasattr(kind, "model_fields") and type(None) in get_args(model)), model
        )
    return model


def _keys(model: type[Strict], near: str = "") -> str:
    names = list(model.model_fields)
    close = difflib.get_close_matches(near, names, n=1)
    return ", ".join(names) + (f" (did you mean {close[0]}?)" if close else "")


# Pydantic's errors for a value that should be a section.
SECTION = ("model_type", "dict_type")
NAMES = "lower-case letters, digits and hyphens, at most 150"
_SIGNS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
_SIGNS |= {"multipleOf": "multiple of"}


def _expected(location: list[str]) -> str:
    """Describe the allowed values of a key: type, range or choices, and meaning, from its JSON schema."""
    model = _model_at(location[:-1])
    if not hasattr(model, "model_fields") or location[-1] not in model.model_fields:
        return ""
    schema = _schema(model)["properties"][location[-1]]
    meaning = f" ({schema['description']})" if "description" in schema else ""
    return ", ".join(_words(schema)) + meaning


@functools.cache
def _schema(model: type[Strict]) -> dict[str, Any]:
    """Return a model's JSON schema, made once, because it takes a tenth of a second for the whole suite."""
    return model.model_json_schema()


def _words(schema: Mapping[str, Any]) -> list[str]:
    """List the values that a schema allows: choices, or a type and its range, and null if it is allowed."""
    if "anyOf" in schema:
        return [word for option in schema["anyOf"] for word in _words(option)]
    if "enum" in schema:
        return [str(choice) for choice in schema["enum"]]
    words = [schema["type"]] if "type" in schema else []
    return words + [f"{sign} {schema[key]}" for key, sign in _SIGNS.items() if key in schema]
