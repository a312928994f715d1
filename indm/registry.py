"""Registries: a member of a kind is a module in the kind's folder, and is named after the module.

The members are not listed anywhere, so that a new member does not change a file on which other jobs depend.
"""

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from indm.data.dataset import Dataset
    from indm.diffusion.model import ImplicitNonlinearDiffusion
    from indm.diffusion.samplers.loops import Sampler
    from indm.diffusion.sde import SDE
    from indm.flows.base import Flow
    from indm.networks.registered.unet import ScoreUNet

Member = TypeVar("Member")
ROOT = Path(__file__).parent.parent


class Registry(Mapping[str, Member]):
    """The members of a kind, by name; a member's module is imported when the member is first used.

    Each module of the package defines the attribute, a member; with the joint ``-``, ``fashion_mnist`` is ``fashion-mnist``.
    """

    def __init__(self, package: str, attribute: str, joint: str = "-") -> None:
        self.package, self.attribute, self.joint = package, attribute, joint

    def module(self, name: str) -> str:
        """Return the name of a member's module."""
        return f"{self.package}.{name.replace(self.joint, '_')}"

    def __getitem__(self, name: str) -> Member:
        if name not in self:
            raise KeyError(name)
        member: Any = getattr(importlib.import_module(self.module(name)), self.attribute)
        return member

    def __iter__(self) -> Iterator[str]:
        files = (ROOT / self.package.replace(".", "/")).glob("[!._#]*.py")
        return iter(sorted(path.stem.replace("_", self.joint) for path in files))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in list(iter(self))


DATASETS: "Registry[Dataset]" = Registry("indm.data.registered", "DATASET")
DIFFUSIONS: "Registry[type[SDE]]" = Registry("indm.diffusion.registered", "DIFFUSION")
FAMILIES: "Registry[type[ImplicitNonlinearDiffusion]]" = Registry("indm.diffusion.families.registered", "FAMILY")
FLOWS: "Registry[type[Flow]]" = Registry("indm.flows.registered", "FLOW")
NETWORKS: "Registry[type[ScoreUNet]]" = Registry("indm.networks.registered", "NETWORK")
SAMPLERS: "Registry[Sampler]" = Registry("indm.diffusion.samplers.registered", "SAMPLER", joint="_")
