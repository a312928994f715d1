"""Reading and validating suites, and the content of a suite in full.

Both engines track a suite in full, so it has to state everything on which a result depends. Therefore fields of the schema do not
have defaults, except ``shards`` and ``kept_weights``, which do not affect results, ``failed`` and ``failed_beyond``, without which
no seed has failed, ``compile``, which affects only rounding, ``validation``, whose default the code of the dataset states, and keys
that are newer than results, such as ``train.log_det_share``, whose default is what those results did.
"""

import difflib
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError

from indm.bench.suite.expand import BASE, FAILED, expand_suite, name_of
from indm.bench.suite.removed import removed, with_stated, without_removed
from indm.bench.suite.rules import mistakes
from indm.bench.suite.schema.suite import Suite
from indm.errors import ParamsError
from indm.strict_yaml import FOUND, Strict

if TYPE_CHECKING:
    from indm.report.claims import Claims

# These keys do not affect results, so a suite may change them after it was registered or run.
LEFT_OUT = {"kept_weights"}
# Pydantic's errors for a value that should be a section.
SECTION = ("model_type", "dict_type")
NAMES = "lower-case letters, digits and hyphens, at most 150"
_SIGNS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
_SIGNS |= {"multipleOf": "multiple of"}


def load_suite(path: Path, *, with_data: bool = False, earlier: bool = False) -> Suite:
    """Read and validate a suite file; before the first job, its requirements on datasets too (:mod:`indm.bench.suite.sizes`).

    Suites of an earlier commit may have keys that were removed since, if these have their one value.

    Raises:
        ParamsError: one line for each mistake: file, suite, run, key, the value found and the values allowed.
    """
    expanded = expand_suite(path)
    try:
        suite = Suite.model_validate(without_removed(expanded.content) if earlier else expanded.content)
    except ValidationError as error:
        name, lines = name_of(expanded.content, path), []
        for item in error.errors():
            location = [str(part) for part in item["loc"]]
            cell = [expanded.cells.get(part, part) for part in location[1:2]]
            lines.append(
                _describe(expanded.file([location[0], *cell, *location[2:]]), name, dict(item), expanded.cells)
            )
        # A mistake in a cell with seeds is a mistake in each of its runs.
        raise ParamsError("\n".join(dict.fromkeys([*expanded.mistakes, *lines]))) from None
    found = mistakes(suite, path, expanded.cells)
    if not found and with_data:
        from indm.bench.suite.sizes import sizes

        found = list(sizes(suite, expanded.cells))
    if found or expanded.mistakes:
        # A mistake may concern several keys from several files.
        place = f"{', based on '.join(map(str, expanded.files))}: suite {suite.suite}"
        raise ParamsError("\n".join([*expanded.mistakes, *(f"{place}, {mistake}" for mistake in dict.fromkeys(found))]))
    return suite


def _describe(path: Path, suite: object, error: dict[str, Any], cells: Mapping[str, str]) -> str:
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
    if (gone := removed(tuple(location))) and error["type"] == "extra_forbidden":
        found = f"found {FOUND.repr(error['input'])}; allowed: no value, because this key is gone"
        return f"{place}: {found}: {gone.instead}; remove it"
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


def load_params(path: Path, *, with_data: bool = False) -> Suite:
    """Read and validate a suite file, and claims, published numbers and registrations in its folder; see :func:`load_suite`.

    Raises:
        ParamsError: one line for each mistake.
    """
    # Imported here, because stages read only the files that they need.
    from indm.bench.suite.claims import load_claims
    from indm.report.literature import load_published
    from indm.report.registrations import load_registrations

    suite = load_suite(path, with_data=with_data)
    load_claims(path.parent / "claims.yaml")
    load_published(path.parent / "published.csv")
    load_registrations(path.parent / "registrations.yaml")
    return suite


def expanded_path(path: Path) -> Path:
    """Return the path of the expanded file of a suite file."""
    return path.parent / "expanded" / f"{path.stem}.json"


def expanded_text(suite: Suite) -> str:
    """Return the text of a suite's expanded file: JSON with a section or a run per line, which DVC reads once per job."""
    content = suite_content(suite)
    runs = ",\n".join(f'    "{name}": {json.dumps(run)}' for name, run in content["runs"].items())
    texts = {key: json.dumps(value) for key, value in content.items()} | {"runs": f"{{\n{runs}\n  }}"}
    return "{\n" + ",\n".join(f'  "{key}": {text}' for key, text in texts.items()) + "\n}\n"


def json_schema() -> str:
    """Return the JSON schema of a suite file, for editors; ``params/schema.json`` is this text.

    All keys are optional, because an editor cannot know which keys come from the suite on which a file is based.
    """
    schema = _without_required(Suite.model_json_schema())
    words = "suite from which this one takes all keys that it does not set"
    schema["properties"][BASE] = {"type": "string", "description": words}
    runs = schema["$defs"]["RunParams"]["properties"]
    words = "instead of seed: one run for each seed, whose name ends in -s and the seed"
    runs["seeds"] = {"type": "array", "items": runs["seed"], "description": words}
    # In a file, a cell lists its failed seeds; the section is made from these lists.
    del schema["properties"][FAILED]
    words = "seeds that cannot be trained or evaluated, which claims count as failed"
    runs[FAILED] = runs["seeds"] | {"description": words}
    return json.dumps(schema, indent=2) + "\n"


def _without_required(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_required(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key != "required" or not isinstance(value, list)}
    return {key: _without_required(value) for key, value in kept.items()}


def suite_content(suite: Suite) -> dict[str, Any]:
    """Return the content of a suite in full, except the keys that are left out."""
    return suite.model_dump(exclude_unset=True, exclude=LEFT_OUT)


def suite_sha256(suite: Suite) -> str:
    """Hash the content of a suite in full, independent of its files' format."""
    return _sha256(with_stated(suite_content(suite)))


def claims_sha256(claims: "Claims") -> str:
    """Hash the content of the claims, defaults included, independent of their file's format."""
    return _sha256(claims.model_dump())


def _sha256(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
