"""Strict YAML: how the files of ``params/`` are read, before their schemas look at them."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from indm.errors import ParamsError


class Strict(BaseModel):
    """Base of all sections: unknown keys are errors, and a text is never taken for a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


# In C where PyYAML was built with it: every job reads its suite, which takes a few milliseconds then instead of some twenty.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _UniqueKeyLoader(_Loader):
    """YAML in which a repeated key is an error; PyYAML alone would silently keep the last one."""


def _unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=deep)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return _Loader.construct_mapping(loader, node, deep=deep)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def read_mapping(path: Path, model: type[Strict]) -> dict[str, Any]:
    """Read a YAML file that holds one mapping, its values not yet checked.

    Raises:
        ParamsError: if it is not YAML, or not a mapping; the message names the keys of ``model``.
        FileNotFoundError: if there is no such file.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        keys = ", ".join(model.model_fields)
        raise ParamsError(f"{path}: found {type(raw).__name__}, expected a mapping of the keys {keys}")
    return raw
