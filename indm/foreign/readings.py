"""Ways to read a network: the kind and the sign of its output, the range of its data, and its diffusion."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch

from indm.diffusion.registered.ve import VE
from indm.diffusion.registered.vp import VP
from indm.diffusion.sde import SDE
from indm.foreign.conventions import CONVENTIONS
from indm.foreign.tabulated import Tabulated, cosine_table

# Diffusions of published networks: DDPM and score_sde; a shorter one; score_sde on CIFAR-10, CelebA and FFHQ; EDM; Improved DDPM.
SCHEDULES: tuple[SDE, ...] = (
    VP(),
    VP(beta_max=10.0),
    VE(),
    VE(sigma_max=90.0),
    VE(sigma_max=348.0),
    VE(0.002, 80.0),
    Tabulated(cosine_table(1000)),
)


@dataclass(frozen=True)
class Reading:
    """A way to call a network and to read its output.

    Arguments:
        kind: the convention, a key of :data:`~indm.foreign.conventions.CONVENTIONS`.
        sde: the diffusion.
        centered: whether its data are in [-1, 1]; otherwise they are in [0, 1].
        sign: 1, or -1 for the opposite of the output.
    """

    kind: str
    # Somebody's diffusion may have no hash.
    sde: SDE = field(hash=False)
    centered: bool
    sign: int = 1

    def changes(self, other: "Reading") -> int:
        """Count the parts in which two readings differ."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return sum(mine != theirs for mine, theirs in pairs)

    def words(self, described: "Reading") -> str:
        """Name the reading, and what it changes in the description besides the kind."""
        data = f" of data in [{-1 if self.centered else 0}, 1]" if self.centered != described.centered else ""
        diffusion = f" under {self.sde}" if self.sde != described.sde else ""
        return f"{'-' if self.sign < 0 else ''}{self.kind}{data}{diffusion}"

    def remedy(self, described: "Reading") -> str:
        """Tell which arguments change the description into this reading."""
        parts = {
            f"set the kind to {self.kind}": self.kind != described.kind,
            f"set centered to {self.centered}": self.centered != described.centered,
            f"set the sde to {self.sde}": self.sde != described.sde,
            "change the sign of the output": self.sign != described.sign,
        }
        return ", ".join(words for words, is_needed in parts.items() if is_needed)

    @property
    def call(self) -> tuple[Any, ...]:
        """What decides how the network is called; readings with one call share its output."""
        return CONVENTIONS[self.kind].inputs, id(self.sde), self.centered


def other_readings(described: Reading, device: torch.device, has_range: bool) -> Iterator[Reading]:
    """List all readings but the description; with its range of data only, unless the data has a range."""
    ranges = (described.centered, not described.centered) if has_range else (described.centered,)
    for kind, sign, centered in product(CONVENTIONS, (1, -1), ranges):
        for sde in _schedules(kind, described):
            other = Reading(kind, sde, centered, sign)
            if other != described and _fails_softly(other, described, device):
                yield other


def _schedules(kind: str, described: Reading) -> list[SDE]:
    """List the diffusions for a kind: the one described, and others if the kind gets the time of the diffusion."""
    gets_time = CONVENTIONS[kind].inputs is CONVENTIONS["noise"].inputs
    return [described.sde, *(sde for sde in SCHEDULES if gets_time and sde != described.sde)]


def _fails_softly(other: Reading, described: Reading, device: torch.device) -> bool:
    """Return whether a failed call can be caught: on a GPU, a condition out of the range of a table ends the whole process."""
    return device.type == "cpu" or "denoiser" not in {other.kind, described.kind} or other.kind == described.kind
