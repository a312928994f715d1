"""The one reader and validator of suites, and what a suite says in full.

No field of the schema has a default, but ``shards`` and ``kept_weights``, on which no result depends, ``failed`` and
``failed_beyond``, without which no seed has failed, and ``compile``, on which rounding alone does: what a suite says, in full,
is everything a result depends on, so both engines can track it.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from indm.errors import ParamsError
from indm.suite.expand import BASE, FAILED, Expanded, expand_suite, name_of
from indm.suite.messages import describe
from indm.suite.rules import mistakes
from indm.suite.schema.suite import Suite

if TYPE_CHECKING:
    from indm.suite.claims import Claims

# On these keys no result depends, so a suite may change them after it was registered or run.
LEFT_OUT = {"kept_weights"}


def load_suite(path: Path, *, with_data: bool = False) -> Suite:
    """Read and validate a suite file.

    Arguments:
        with_data: whether to check what it asks of its datasets too (:mod:`indm.suite.sizes`), as is done before the first job.

    Returns:
        The suite.

    Raises:
        ParamsError: one line for each mistake: file, suite, run, key, what was found and what is allowed.
    """
    expanded = expand_suite(path)
    try:
        suite = Suite.model_validate(expanded.content)
    except ValidationError as error:
        name = name_of(expanded.content, path)
        lines = [describe(_file(expanded, dict(item)), name, dict(item), expanded.cells) for item in error.errors()]
        # A mistake in a cell with seeds is one of each of its runs.
        raise ParamsError("\n".join(dict.fromkeys(lines))) from None
    found = mistakes(suite, path, expanded.cells)
    if not found and with_data:
        from indm.suite.sizes import sizes

        found = list(sizes(suite, expanded.cells))
    if found:
        # Of several keys, which may be of several files.
        place = f"{', based on '.join(map(str, expanded.files))}: suite {suite.suite}"
        raise ParamsError("\n".join(f"{place}, {mistake}" for mistake in dict.fromkeys(found)))
    return suite


def load_params(path: Path, *, with_data: bool = False) -> Suite:
    """Read and validate a suite file, and what lies beside it: claims, published numbers and registrations; see :func:`load_suite`.

    Raises:
        ParamsError: one line for each mistake.
    """
    # Imported here: stages read their own.
    from indm.suite.claims import load_claims
    from indm.suite.published import load_published
    from indm.suite.registrations import load_registrations

    suite = load_suite(path, with_data=with_data)
    load_claims(path.parent / "claims.yaml")
    load_published(path.parent / "published.csv")
    load_registrations(path.parent / "registrations.yaml")
    return suite


def _file(expanded: Expanded, error: dict[str, Any]) -> Path:
    """Find the file in which a value stands that the schema refuses."""
    location = [str(part) for part in error["loc"]]
    return expanded.file([location[0], *(expanded.cells.get(part, part) for part in location[1:2]), *location[2:]])


def expanded_path(path: Path) -> Path:
    """Return where the expanded file of a suite file lies."""
    return path.parent / "expanded" / f"{path.stem}.json"


def expanded_text(suite: Suite) -> str:
    """Return the text of a suite's expanded file: JSON, which DVC reads once a job, a section or a run on a line."""
    lines = [f'  "{key}": {_set(key, value)}' for key, value in suite_content(suite).items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _set(key: str, value: Any) -> str:
    if key != "runs":
        return json.dumps(value)
    return "{\n" + ",\n".join(f'    "{name}": {json.dumps(run)}' for name, run in value.items()) + "\n  }"


def json_schema() -> str:
    """Return the JSON schema of a suite file, for editors; ``params/schema.json`` is this text.

    Nothing in it is required: what a file may leave to the suite that it builds on, an editor cannot know.
    """
    schema = _without_required(Suite.model_json_schema())
    schema["properties"][BASE] = {
        "type": "string",
        "description": "the suite whose keys this one takes over where it does not have its own",
    }
    runs = schema["$defs"]["RunParams"]["properties"]
    runs["seeds"] = {
        "type": "array",
        "items": runs["seed"],
        "description": "instead of seed: one run for each, whose name ends in -s and the seed",
    }
    # In a file, a cell lists its failed seeds; the section is made from these lists.
    del schema["properties"][FAILED]
    runs[FAILED] = runs["seeds"] | {
        "description": "the seeds that cannot be trained or evaluated: claims count them as failed"
    }
    return json.dumps(schema, indent=2) + "\n"


def _without_required(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: _without_required(value)
            for key, value in schema.items()
            if key != "required" or not isinstance(value, list)
        }
    return [_without_required(item) for item in schema] if isinstance(schema, list) else schema


def suite_content(suite: Suite) -> dict[str, Any]:
    """Return what the file of a suite says, in full, but for the keys that are left out."""
    return suite.model_dump(exclude_unset=True, exclude=LEFT_OUT)


def suite_sha256(suite: Suite) -> str:
    """Hash what a suite says, however its file says it."""
    return _sha256(suite_content(suite))


def claims_sha256(claims: "Claims") -> str:
    """Hash what the claims say, however their file says it, with what stands where it says nothing."""
    return _sha256(claims.model_dump())


def _sha256(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
