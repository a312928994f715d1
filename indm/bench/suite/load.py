"""Reading and validating suites, and the content of a suite in full.

Both engines track a suite in full, so it has to state everything on which a result depends. Therefore fields of the schema do not
have defaults, except ``shards`` and ``kept_weights``, which do not affect results, ``failed`` and ``failed_beyond``, without which
no seed has failed, ``compile``, which affects only rounding, ``validation``, whose default the code of the dataset states, and keys
that are newer than results, such as ``train.log_det_share``, whose default is what those results did.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from indm.bench.suite.expand import BASE, FAILED, expand_suite, name_of
from indm.bench.suite.messages import describe
from indm.bench.suite.rules import mistakes
from indm.bench.suite.schema.suite import Suite
from indm.errors import ParamsError

if TYPE_CHECKING:
    from indm.report.claims import Claims

# These keys do not affect results, so a suite may change them after it was registered or run.
LEFT_OUT = {"kept_weights"}


def load_suite(path: Path, *, with_data: bool = False) -> Suite:
    """Read and validate a suite file; before the first job, its requirements on datasets too (:mod:`indm.bench.suite.sizes`).

    Raises:
        ParamsError: one line for each mistake: file, suite, run, key, the value found and the values allowed.
    """
    expanded = expand_suite(path)
    try:
        suite = Suite.model_validate(expanded.content)
    except ValidationError as error:
        name, lines = name_of(expanded.content, path), []
        for item in error.errors():
            location = [str(part) for part in item["loc"]]
            cell = [expanded.cells.get(part, part) for part in location[1:2]]
            lines.append(describe(expanded.file([location[0], *cell, *location[2:]]), name, dict(item), expanded.cells))
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
    return _sha256(suite_content(suite))


def claims_sha256(claims: "Claims") -> str:
    """Hash the content of the claims, defaults included, independent of their file's format."""
    return _sha256(claims.model_dump())


def _sha256(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
