"""Registries: a member of a kind is a module in the kind's folder, and is named after the module.

The members are not listed anywhere, so that a new member does not change a file on which other jobs depend.
"""

import ast
import contextlib
import functools
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from indm.errors import ArtifactError

ROOT = Path(__file__).parent.parent


class Registry(Mapping[str, Any]):
    """The members of a kind, by name; a member's module is imported when the member is first used.

    Each module of the package defines the attribute, a member; with the joint ``-``, ``fashion_mnist`` is ``fashion-mnist``.
    """

    def __init__(self, package: str, attribute: str, joint: str = "-") -> None:
        self.package, self.attribute, self.joint = package, attribute, joint

    def module(self, name: str) -> str:
        """Return the name of a member's module."""
        return f"{self.package}.{name.replace(self.joint, '_')}"

    def literal(self, name: str, constant: str) -> Any:
        """Read a constant of a member's module without importing the module, since the import may load torch.

        Raises:
            ArtifactError: if the module does not assign a literal to it.
        """
        file = f"{self.module(name).replace('.', '/')}.py"
        if constant not in (found := _literals(file)):
            raise ArtifactError(
                f"{file}: found no {constant}, expected it as a literal, as in the other modules of this folder"
            )
        return found[constant]

    def has_literal(self, name: str, constant: str) -> bool:
        """Return whether a member's module assigns a literal to a constant, without importing the module."""
        return constant in _literals(f"{self.module(name).replace('.', '/')}.py")

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise KeyError(name)
        return getattr(importlib.import_module(self.module(name)), self.attribute)

    def __iter__(self) -> Iterator[str]:
        files = (ROOT / self.package.replace(".", "/")).glob("[!._#]*.py")
        return iter(sorted(path.stem.replace("_", self.joint) for path in files))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in list(iter(self))


@functools.cache
def _literals(file: str) -> dict[str, Any]:
    try:
        body = ast.parse((ROOT / file).read_bytes()).body
    except (SyntaxError, ValueError) as error:
        raise ArtifactError(f"{file}: found {error}, expected a Python module") from None
    found = {}
    for node in body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                with contextlib.suppress(ValueError, TypeError):
                    found[name] = ast.literal_eval(value)
    return found


DATASETS = Registry("indm.data.registered", "DATASET")
DIFFUSIONS = Registry("indm.diffusion.registered", "DIFFUSION")
FAMILIES = Registry("indm.diffusion.families.registered", "FAMILY")
FLOWS = Registry("indm.flows.registered", "FLOW")
NETWORKS = Registry("indm.networks.registered", "NETWORK")
SAMPLERS = Registry("indm.diffusion.samplers.registered", "SAMPLER", joint="_")


def goes_with(family: str, kind: str) -> list[str]:
    """List the members of a kind (``sde``, ``objective``, ``sampler``) that a model family supports; empty if it supports all."""
    return list((FAMILIES.literal(family, "ONLY") or {}).get(kind, []))
