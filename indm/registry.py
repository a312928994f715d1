"""Registries: a member of a kind is a module in the kind's folder, and its name is the module's.

No list names the members. So a new one changes no file that others depend on, and nothing that does not use it runs again.
"""

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from indm.data.dataset import Dataset
    from indm.diffusion.sde import SDE
    from indm.flows.base import Flow
    from indm.networks.registered.unet import ScoreUNet

Member = TypeVar("Member")
ROOT = Path(__file__).parent.parent


class Registry(Mapping[str, Member]):
    """The members of a kind, by name; a member's module is imported when it is asked for, and not before.

    Arguments:
        package: whose modules are the members; ``fashion_mnist`` is the member ``fashion-mnist``.
        attribute: what a member's module defines.
    """

    def __init__(self, package: str, attribute: str) -> None:
        self.package, self.attribute = package, attribute

    def definition(self, name: str) -> str:
        """Return the qualified name of a member."""
        return f"{self.package}.{name.replace('-', '_')}.{self.attribute}"

    def __getitem__(self, name: str) -> Member:
        if name not in self:
            raise KeyError(name)
        module, _, attribute = self.definition(name).rpartition(".")
        member: Any = getattr(importlib.import_module(module), attribute)
        return member

    def __iter__(self) -> Iterator[str]:
        files = (ROOT / self.package.replace(".", "/")).glob("[!._#]*.py")
        return iter(sorted(path.stem.replace("_", "-") for path in files))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in list(iter(self))


DATASETS: "Registry[Dataset]" = Registry("indm.data.registered", "DATASET")
DIFFUSIONS: "Registry[type[SDE]]" = Registry("indm.diffusion.registered", "DIFFUSION")
FLOWS: "Registry[type[Flow]]" = Registry("indm.flows.registered", "FLOW")
NETWORKS: "Registry[type[ScoreUNet]]" = Registry("indm.networks.registered", "NETWORK")
