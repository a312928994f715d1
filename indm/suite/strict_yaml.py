"""Strict YAML: reading the files of ``params/`` before their schemas check them, and writing YAML.

It is YAML 1.2, which DVC reads too: ``1e-3`` is a number, ``010`` is ten, ``yes`` and ``1:30`` are texts, and keys are unique.
PyYAML reads YAML 1.1, so its rules for scalars are replaced. ruamel.yaml follows 1.2, but takes longer, and every job reads its
suite:

=====================================  ===========  ===========  =================
Processor time, median of 7 in turn    this module  ruamel.yaml  its parser in C
=====================================  ===========  ===========  =================
``indm validate`` of digits            220 ms       269 ms       232 ms
``indm validate`` of digits-full       223 ms       309 ms       235 ms
=====================================  ===========  ===========  =================

Its parser in C, which is a separate package, does not read all of 1.2: it refuses ``{source: arXiv:2205.13699}``.
"""

import re
import reprlib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from indm.errors import ParamsError

# No key needs more, and Python refuses to print numbers with some thousands of digits.
MOST_DIGITS = 100
# PyYAML's name for text that does not come from a file.
TEXT = '"<unicode string>"'
# Values in a file with every alias written out; the largest suite has some thousands.
MOST_VALUES = 100_000


class Strict(BaseModel):
    """Base of all sections: unknown keys are errors, texts are not converted to numbers, and numbers are finite."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=Strict)
# In C if PyYAML was built with it, because every job reads its suite.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Reader(_Loader):
    """PyYAML's loader, with the scalars of YAML 1.2; a repeated key is an error, whereas PyYAML would keep the last one."""

    def get_single_node(self) -> yaml.Node | None:
        """Return the syntax tree of a document; refuse one that aliases make too large."""
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _count_values(node, {})
        return node


class _Writer(yaml.SafeDumper):
    """PyYAML's dumper, which quotes texts that are numbers in YAML 1.2, as well as in 1.1."""


def _count_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values of a tree in full; ``known`` holds the counts of its branches, and 0 for a branch that is being counted.

    Ten nested lists of ten aliases have ten thousand million values, too many to print.
    """
    if id(node) in known:
        if known[id(node)] == 0:
            raise yaml.constructor.ConstructorError(None, None, "found a value within itself", node.start_mark)
        return known[id(node)]
    known[id(node)] = 0
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    parts = [part for pair in pairs for part in pair] if pairs else node.value
    size = 1 if isinstance(node, yaml.ScalarNode) else 1 + sum(_count_values(part, known) for part in parts)
    if size > MOST_VALUES:
        problem = f"found {size} values with every alias written out, expected at most {MOST_VALUES}"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    known[id(node)] = size
    return size


def _mapping(reader: Any, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    """Return a mapping of texts, unless a key is repeated; a key that is merged in (``<<``) may be overridden."""
    seen = set()
    for key_node, _ in node.value:
        merged = key_node.tag == "tag:yaml.org,2002:merge"
        key = key_node.value if merged else reader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            problem = f"found the key {reprlib.repr(key)}, expected a text"
            raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return _Loader.construct_mapping(reader, node, deep=deep)


def _int(reader: Any, node: yaml.ScalarNode) -> int:
    """Return a whole number, decimal even with a leading 0, for which PyYAML reads octal."""
    # A list may claim to be a number, as in !!int [1].
    digits = reader.construct_scalar(node).replace("_", "")
    if len(digits) > MOST_DIGITS:
        problem = f"found a whole number of {len(digits)} digits, expected at most {MOST_DIGITS}"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    return int(digits, 0 if digits.lstrip("+-")[1:2] in ("b", "o", "x") else 10)


def _timestamp(reader: Any, node: yaml.ScalarNode) -> Any:
    """Return a date; for a text that only claims to be a date, PyYAML's own error is not helpful."""
    if not _Loader.timestamp_regexp.match(reader.construct_scalar(node)):
        problem = f"found {reprlib.repr(node.value)}, expected a date"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    return _Loader.construct_yaml_timestamp(reader, node)


# The scalars that differ between YAML 1.2 and 1.1. The expressions come from ruamel.yaml, with which DVC reads the same files.
_SCALARS = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "float": (
        r"[-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|[-+]?\.[0-9_]+([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "int": (
        r"[-+]?0b_*[01][01_]*|[-+]?0o_*[0-7][0-7_]*|[-+]?_*[0-9][0-9_]*|[-+]?0x_*[0-9a-fA-F][0-9a-fA-F_]*",
        "-+0123456789",
    ),
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
_Reader.add_constructor("tag:yaml.org,2002:timestamp", _timestamp)
_Reader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def parse_yaml(text: str) -> Any:
    """Parse a text in YAML 1.2.

    Raises:
        yaml.YAMLError: if it is not YAML, or a key is repeated.
    """
    return yaml.load(text, Loader=_Reader)


def yaml_text(content: Any) -> str:
    """Return mappings, lists and scalars as YAML, keys in their order, long lines unbroken."""
    return yaml.dump(content, Dumper=_Writer, sort_keys=False, default_flow_style=False, width=1000)


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
    except RecursionError:
        raise ParamsError(f"{path}: not a YAML file: found values nested too deeply, expected a few levels") from None
    except (yaml.YAMLError, ValueError, LookupError) as error:
        # The last two: a value that is not of the type that it claims, such as 2020-99-99 and !!bool maybe, and invalid UTF-8.
        problem = " ".join(str(error).replace(TEXT, "the file").split())
        raise ParamsError(f"{path}: not a YAML file: {problem}") from None
    if not isinstance(raw, dict):
        keys = ", ".join(model.model_fields)
        found = "an empty file" if raw is None else type(raw).__name__
        raise ParamsError(f"{path}: found {found}, expected a mapping of the keys {keys}")
    return raw


def read_valid(path: Path, model: type[Model]) -> Model:
    """Read a YAML file that a schema describes.

    Raises:
        ParamsError: one line for each mistake: file, key, the value found and the values allowed.
        FileNotFoundError: if there is no such file.
    """
    try:
        return model.model_validate(read_mapping(path, model))
    except ValidationError as error:
        raise ParamsError(
            "\n".join(
                f"{path}: key {'.'.join(map(str, item['loc']))}: found {item['input']!r}; allowed: {item['msg']}"
                for item in error.errors()
            )
        ) from None
