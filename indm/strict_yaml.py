"""Strict YAML: reading the files of ``params/`` before their schemas check them, and writing YAML.

It is YAML 1.2 by ruamel.yaml, with which DVC reads the same files: ``1e-3`` is a number, ``010`` is ten, ``yes`` and ``1:30`` are
texts, and keys are unique.
"""

import functools
import pickle
import reprlib
from collections.abc import Iterable
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from indm.errors import ParamsError

# Shortens the value that a message shows, because ten nested lists of ten aliases have ten thousand million values in full.
FOUND = reprlib.Repr()
FOUND.maxlevel = 3
FOUND.maxdict = FOUND.maxlist = 20
FOUND.maxstring = FOUND.maxother = FOUND.maxlong = 200


class Strict(BaseModel):
    """Base of all sections: unknown keys are errors, texts are not converted to numbers, and numbers are finite."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=Strict)


def parse_yaml(text: str) -> Any:
    """Parse a text in YAML 1.2.

    Raises:
        YAMLError: if it is not YAML, or a key is repeated.
    """
    return pickle.loads(_parsed(text))


@functools.lru_cache(maxsize=64)
def _parsed(text: str) -> bytes:
    """Parse a text once in a process, because suites are based on each other; pickled, because callers may change what they get."""
    # As a file, because errors quote lines of a text.
    return pickle.dumps(YAML(typ="safe", pure=True).load(StringIO(text)))


def yaml_text(content: Any, *, lists_in_line: bool = False) -> str:
    """Return mappings, lists and scalars as YAML, keys in their order, long lines unbroken; lists of scalars in a line if asked."""
    yaml, text = YAML(typ="safe", pure=True), StringIO()
    yaml.default_flow_style, yaml.width = None if lists_in_line else False, 1000
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(content, text)
    return text.getvalue()


def read_mapping(path: Path, model: type[Strict]) -> dict[str, Any]:
    """Read a YAML file with one mapping, without checking its values.

    Raises:
        ParamsError: if it cannot be read, is not YAML or is not a mapping; the message names the keys of ``model``.
        FileNotFoundError: if there is no such file.
    """
    try:
        raw = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read: {error.strerror}; expected a file that you may read") from None
    except (YAMLError, ValueError, LookupError, RecursionError) as error:
        # The last three: values of another type than they claim, such as 2020-99-99, invalid UTF-8, lists in lists in lists.
        problem = " ".join(str(error).replace('"<file>"', "the file").split())
        # Without ruamel.yaml's note on how to allow repeated keys.
        raise ParamsError(f"{path}: not a YAML file: {problem.partition(' To suppress this check')[0]}") from None
    if not isinstance(raw, dict):
        keys = ", ".join(model.model_fields)
        found = "an empty file" if raw is None else type(raw).__name__
        raise ParamsError(f"{path}: found {found}, expected a mapping of the keys {keys}")
    return raw


def read_valid(path: Path, model: type[Model]) -> Model:
    """Read a YAML file that a schema describes.

    Raises:
        ParamsError: one line for each mistake: file, key, the value found and the values allowed.
    """
    try:
        return model.model_validate(raw := read_mapping(path, model))
    except FileNotFoundError:
        raise ParamsError(f"{path}: missing; run from the top of a checkout") from None
    except ValidationError as error:
        lines = (f"{path}: key {_place(raw, item['loc'])}: {_mistake(item)}" for item in error.errors())
        raise ParamsError("\n".join(lines)) from None


def _place(found: Any, location: Iterable[str | int]) -> str:
    """Write where a value is, with the id of an entry of a list in place of its number."""
    parts = []
    for part in location:
        try:
            found = found[part]
        except (KeyError, TypeError):
            # The name of a schema, where several are allowed.
            found = None
        parts.append(str(found.get("id", part) if isinstance(part, int) and isinstance(found, dict) else part))
    return ".".join(parts)


def _mistake(error: Any) -> str:
    """Describe an invalid value by pydantic's error."""
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    short = {"missing": "missing", "extra_forbidden": "unknown key"}
    return short.get(error["type"], f"found {FOUND.repr(error['input'])}; allowed: {error['msg']}")
