"""Strict YAML: reading the files of ``params/`` before their schemas check them, and writing YAML.

It is YAML 1.2 by ruamel.yaml, with which DVC reads the same files: ``1e-3`` is a number, ``010`` is ten, ``yes`` and ``1:30`` are
texts, and keys are unique.
"""

import errno
import stat
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from indm.errors import ParamsError

# No key needs more, and Python refuses to print numbers with some thousands of digits.
MOST_DIGITS = 100
# Values in a file with every alias written out; the largest suite has some thousands.
MOST_VALUES = 100_000
TAG = "tag:yaml.org,2002:"


class Strict(BaseModel):
    """Base of all sections: unknown keys are errors, texts are not converted to numbers, and numbers are finite."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=Strict)


class _Constructor(SafeConstructor):
    """Makes the values of a document, unless a key is repeated or is not a text, or there are too many values to print."""

    def construct_document(self, node: Node) -> Any:
        _count_values(node, {})
        return super().construct_document(node)


def _count_values(node: Node, known: dict[int, int]) -> int:
    """Count the values of a tree in full; ``known`` holds the counts of its branches, and 0 for a branch that is being counted.

    Ten nested lists of ten aliases have ten thousand million values, too many to print.
    """
    if id(node) not in known:
        known[id(node)] = 0
        known[id(node)] = 1 + sum(_count_values(part, known) for part in _parts(node))
    if (size := known[id(node)]) == 0:
        _refuse(node, "found a value within itself")
    if size > MOST_VALUES:
        _refuse(node, f"found {size} values with every alias written out, expected at most {MOST_VALUES}")
    return size


def _parts(node: Node) -> list[Node]:
    """Return the values of a list, or the keys and values of a mapping, whose keys are checked; empty for a scalar."""
    if isinstance(node, ScalarNode):
        if node.tag == f"{TAG}int" and len(node.value) > MOST_DIGITS:
            _refuse(node, f"found a whole number of {len(node.value)} digits, expected at most {MOST_DIGITS}")
        return []
    if not isinstance(node, MappingNode):
        return list(node.value)
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, ScalarNode) or key.tag not in (f"{TAG}str", f"{TAG}merge"):
            _refuse(key, f"found a key of the type {key.tag.removeprefix(TAG)}, expected a text")
        if key.value in seen:
            _refuse(key, f"key {key.value!r} is given twice")
        seen.add(key.value)
    return [part for pair in node.value for part in pair]


def _refuse(node: Node, problem: str) -> NoReturn:
    raise ConstructorError(problem=problem, problem_mark=node.start_mark)


def parse_yaml(text: str) -> Any:
    """Parse a text in YAML 1.2.

    Raises:
        YAMLError: if it is not YAML, or a key is repeated.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    # As a file, because errors quote lines of a text.
    return yaml.load(StringIO(text))


def yaml_text(content: Any) -> str:
    """Return mappings, lists and scalars as YAML, keys in their order, long lines unbroken."""
    yaml, text = YAML(typ="safe", pure=True), StringIO()
    yaml.default_flow_style, yaml.width = False, 1000
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
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            # Reading a pipe would wait for its writer.
            raise OSError(errno.EINVAL, "found a pipe or a device")
        raw = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read: {error.strerror}; expected a file that you may read") from None
    except RecursionError:
        raise ParamsError(f"{path}: not a YAML file: found values nested too deeply, expected a few levels") from None
    except (YAMLError, ValueError, LookupError) as error:
        # The last two: a value that is not of the type that it claims, such as 2020-99-99 and !!bool maybe, and invalid UTF-8.
        problem = " ".join(str(error).replace('"<file>"', "the file").split())
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
        items = [(".".join(map(str, item["loc"])), item["input"], item["msg"]) for item in error.errors()]
        lines = (f"{path}: key {key}: found {found!r}; allowed: {words}" for key, found, words in items)
        raise ParamsError("\n".join(lines)) from None
