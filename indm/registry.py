"""Registries: a member of a kind is a module in the kind's folder, and is named after the module.

The members are not listed anywhere, so that a new member does not change a file on which other jobs depend.
"""

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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


DATASETS = Registry("indm.data.registered", "DATASET")
DIFFUSIONS = Registry("indm.diffusion.registered", "DIFFUSION")
FAMILIES = Registry("indm.diffusion.families.registered", "FAMILY")
FLOWS = Registry("indm.flows.registered", "FLOW")
NETWORKS = Registry("indm.networks.registered", "NETWORK")
SAMPLERS = Registry("indm.diffusion.samplers.registered", "SAMPLER", joint="_")
