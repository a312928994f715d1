"""Strict YAML: how the files of ``params/`` are read, before their schemas look at them, and how YAML is written.

It is YAML 1.2, which DVC reads too: ``1e-3`` is a number, ``010`` is ten, ``yes`` and ``1:30`` are texts, and a key stands once.
PyYAML reads 1.1, so its rules of scalars are replaced. ruamel.yaml has those of 1.2, but every job reads its suite, and pays:

=====================================  ===========  ===========  =================
Processor time, median of 7 in turn    this module  ruamel.yaml  its parser in C
=====================================  ===========  ===========  =================
``indm validate`` of digits            220 ms       269 ms       232 ms
``indm validate`` of digits-full       223 ms       309 ms       235 ms
=====================================  ===========  ===========  =================

Its parser in C, which is a package of its own, does not read all of 1.2: it refuses ``{source: arXiv:2205.13699}``.
"""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from indm.errors import ParamsError

# No key takes more, and Python refuses to write what has some thousands.
MOST_DIGITS = 100


class Strict(BaseModel):
    """Base of all sections: unknown keys are errors, a text is never taken for a number, and a number is finite."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


# Read in C where PyYAML was built with it, as every job reads its suite.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Reader(_Loader):
    """PyYAML's loader, with the scalars of YAML 1.2, and a repeated key an error, of which PyYAML would keep the last."""


class _Writer(yaml.SafeDumper):
    """PyYAML's dumper, which quotes texts that YAML 1.2 takes for numbers, as well as those that 1.1 does."""


def _mapping(reader: Any, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    """Return a mapping, unless a key is given twice; one that is merged in (``<<``) may be given anew."""
    seen = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = reader.construct_object(key_node, deep=deep)
        if not isinstance(key, Hashable):
            break  # which the loader itself refuses
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return _Loader.construct_mapping(reader, node, deep=deep)


def _int(_: Any, node: yaml.ScalarNode) -> int:
    """Return a whole number; PyYAML takes one with a leading 0 for octal."""
    digits = node.value.replace("_", "")
    if len(digits) > MOST_DIGITS:
        problem = f"found a whole number of {len(digits)} digits, expected at most {MOST_DIGITS}"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    return int(digits, 0 if digits.lstrip("+-")[1:2] in ("b", "o", "x") else 10)


# The scalars that YAML 1.2 has otherwise than 1.1. The expressions are those of ruamel.yaml, by which DVC reads the same files.
_SCALARS = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "float": (
        r"[-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|[-+]?\.[0-9][0-9_]*([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "int": (r"[-+]?0b[01][01_]*|[-+]?0o[0-7][0-7_]*|[-+]?[0-9][0-9_]*|[-+]?0x[0-9a-fA-F][0-9a-fA-F_]*", "-+0123456789"),
}
_TAGS = {f"tag:yaml.org,2002:{name}": scalar for name, scalar in _SCALARS.items()}
_Reader.yaml_implicit_resolvers = {
    first: [(tag, expression) for tag, expression in rules if tag not in _TAGS]
    for first, rules in _Loader.yaml_implicit_resolvers.items()
}
for _tag, (_expression, _first) in _TAGS.items():
    for _class in (_Reader, _Writer):
        _class.add_implicit_resolver(_tag, re.compile(f"(?:{_expression})$"), list(_first))
_Reader.add_constructor("tag:yaml.org,2002:int", _int)
_Reader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def parse_yaml(text: str) -> Any:
    """Return what a text of YAML 1.2 says.

    Raises:
        yaml.YAMLError: if it is not YAML, or gives a key twice.
    """
    return yaml.load(text, Loader=_Reader)


def yaml_text(content: Any) -> str:
    """Return mappings, lists and scalars as YAML, keys in their order, long lines unbroken."""
    return yaml.dump(content, Dumper=_Writer, sort_keys=False, default_flow_style=False, width=1000)


def read_mapping(path: Path, model: type[Strict]) -> dict[str, Any]:
    """Read a YAML file that holds one mapping, its values not yet checked.

    Raises:
        ParamsError: if it is not YAML, or not a mapping; the message names the keys of ``model``.
        FileNotFoundError: if there is no such file.
    """
    try:
        raw = parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        keys = ", ".join(model.model_fields)
        raise ParamsError(f"{path}: found {type(raw).__name__}, expected a mapping of the keys {keys}")
    return raw
