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
import reprlib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from indm.errors import ParamsError

# No key takes more, and Python refuses to write what has some thousands.
MOST_DIGITS = 100
# PyYAML's name of what it was not given as a file.
TEXT = '"<unicode string>"'
# Of a file in full, every alias written out: the largest suite has some thousands.
MOST_VALUES = 100_000


class Strict(BaseModel):
    """Base of all sections: unknown keys are errors, a text is never taken for a number, and a number is finite."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=Strict)
# Read in C where PyYAML was built with it, as every job reads its suite.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Reader(_Loader):
    """PyYAML's loader, with the scalars of YAML 1.2, and a repeated key an error, of which PyYAML would keep the last."""

    def get_single_node(self) -> yaml.Node | None:
        """Return the tree of a document, before anything is made of it; one that aliases make too large is refused."""
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _count_values(node, {})
        return node


class _Writer(yaml.SafeDumper):
    """PyYAML's dumper, which quotes texts that YAML 1.2 takes for numbers, as well as those that 1.1 does."""


def _count_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values of a tree in full; ``known`` holds those of its branches, 0 of one that is being counted.

    Ten lists of ten aliases of each other are ten thousand million values, which nobody could print.
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
    """Return a mapping of texts, unless a key is given twice; one that is merged in (``<<``) may be overridden."""
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
    """Return a whole number; PyYAML takes one with a leading 0 for octal."""
    # A list may claim to be one, as in !!int [1].
    digits = reader.construct_scalar(node).replace("_", "")
    if len(digits) > MOST_DIGITS:
        problem = f"found a whole number of {len(digits)} digits, expected at most {MOST_DIGITS}"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    return int(digits, 0 if digits.lstrip("+-")[1:2] in ("b", "o", "x") else 10)


def _timestamp(reader: Any, node: yaml.ScalarNode) -> Any:
    """Return a date; of a text that only claims to be one, PyYAML's own reader says nothing of use."""
    if not _Loader.timestamp_regexp.match(reader.construct_scalar(node)):
        problem = f"found no date in {reprlib.repr(node.value)}"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    return _Loader.construct_yaml_timestamp(reader, node)


# The scalars that YAML 1.2 has otherwise than 1.1. The expressions are those of ruamel.yaml, by which DVC reads the same files.
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
        ParamsError: if it cannot be read, is not YAML, or not a mapping; the message names the keys of ``model``.
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
        # The last two: a value that is not of the type that it claims, as 2020-99-99 and !!bool maybe, and no UTF-8.
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
        ParamsError: one line for each mistake: file, key, what was found and what is allowed.
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
