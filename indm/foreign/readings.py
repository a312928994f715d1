"""Ways to read a network: kind and sign of its output, its second argument, range and look of its data, and its diffusion."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import torch

from indm.diffusion.registered.ve import VE
from indm.diffusion.registered.vp import VP
from indm.diffusion.sde import SDE
from indm.foreign.conventions import CONVENTIONS, COUNTED, own_second
from indm.foreign.kinds import SECONDS
from indm.foreign.tabulated import Tabulated, cosine_table, sigmoid_table

Ends = tuple[float, float]
"""Both ends of the range to which images are scaled."""
CENTRED, UNIT = (-1.0, 1.0), (0.0, 1.0)
# Diffusions of published networks: DDPM and score_sde; a shorter one; score_sde on CIFAR-10, CelebA and FFHQ; EDM; Improved DDPM;
# and the default of denoising-diffusion-pytorch.
SCHEDULES: tuple[SDE, ...] = (
    VP(),
    VP(beta_max=10.0),
    VE(),
    VE(sigma_max=90.0),
    VE(sigma_max=348.0),
    VE(0.002, 80.0),
    Tabulated(cosine_table(1000)),
    Tabulated(sigmoid_table(1000)),
)
# Second arguments in [0, 1], which stay within any table.
WITHIN_A_TABLE = ("t", "t/999", "1-t", "alpha_bar")


@dataclass(frozen=True)
class View:
    """Another look of the same images, which the network may have been trained on.

    Arguments:
        words: what the images are then.
        remedy: what makes them so.
        of: maps images in [-1, 1] to them, (N, *) to (N, *).
    """

    words: str
    remedy: str
    of: Callable[[torch.Tensor], torch.Tensor]


REVERSED = View("images with reversed channels", "reverse the images' channels (BGR for RGB)", lambda x: x.flip(1))
TRANSPOSED = View("transposed images", "transpose the images", lambda x: x.mT)
INVERTED = View("inverted images", "invert the images (L - 1 - k for a level k of L)", lambda x: -x)


def views(shape: tuple[int, ...]) -> list[View]:
    """List the other looks of images of a shape (*)."""
    found = [INVERTED]
    if len(shape) == 3 and shape[0] > 1:
        found.append(REVERSED)
    if len(shape) == 3 and shape[1] == shape[2] > 1:
        found.append(TRANSPOSED)
    return found


@dataclass(frozen=True)
class Reading:
    """A way to call a network and to read its output.

    Arguments:
        kind: the convention, a key of :data:`~indm.foreign.conventions.CONVENTIONS`.
        sde: the diffusion.
        ends: both ends of the range of its data; ``None`` for data that stay as they are.
        sign: 1, or -1 for the opposite of the output.
        second: the second argument, a key of :data:`~indm.foreign.conventions.SECOND`; ``None`` for the one of the kind.
        view: another look of the images; ``None`` for their own.
    """

    kind: str
    # Somebody's diffusion may have no hash.
    sde: SDE = field(hash=False)
    ends: Ends | None = CENTRED
    sign: int = 1
    second: str | None = None
    view: View | None = None

    @property
    def width(self) -> float:
        """The width of the range over the width of [-1, 1]; 1 for data that stay as they are."""
        return 1.0 if self.ends is None else (self.ends[1] - self.ends[0]) / 2

    def scaled(self, x: torch.Tensor) -> torch.Tensor:
        """Scale data in [-1, 1] to the range, in the look of the reading, (N, *) to (N, *)."""
        x = x if self.view is None else self.view.of(x)
        return x if self.ends is None else self.ends[0] + self.width * (x + 1)

    def changes(self, other: "Reading") -> int:
        """Count the parts in which two readings differ."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return sum(mine != theirs for mine, theirs in pairs)

    def words(self, described: "Reading") -> str:
        """Name the reading, and what it changes in the description besides the kind."""
        data = f" of data in {_interval(self.ends)}" if self.ends != described.ends else ""
        data += f" of {self.view.words}" if self.view is not None else ""
        diffusion = f" under {self.sde}" if self.sde != described.sde else ""
        second = f" with {self._second} as second argument" if self.second != described.second else ""
        return f"{'-' if self.sign < 0 else ''}{self.kind}{data}{diffusion}{second}"

    def remedy(self, described: "Reading") -> str:
        """Tell which arguments change the description into this reading."""
        parts = {
            f"set the kind to {self.kind}": self.kind != described.kind,
            self._range(described): self.ends != described.ends,
            f"set the sde to {self.sde}": self.sde != described.sde,
            f"set second to '{self._second}'": self.second != described.second,
            "change the sign of the output": self.sign != described.sign,
        }
        if self.view is not None:
            parts[self.view.remedy] = True
        return ", ".join(words for words, is_needed in parts.items() if is_needed)

    @property
    def _second(self) -> str:
        """The name of the second argument."""
        return self.second or own_second(self.kind)

    def _range(self, described: "Reading") -> str:
        """Tell which argument sets the range: ``data_range`` takes the place of ``centered``."""
        known = {CENTRED: "set centered to True", UNIT: "set centered to False"}
        if self.ends in known and described.ends in known:
            return known[self.ends]
        return f"set data_range to {_pair(self.ends)}"

    @property
    def call(self) -> tuple[Any, ...]:
        """What decides how the network is called; readings with one call share its output."""
        return CONVENTIONS[self.kind].inputs, self.second, id(self.sde), self.ends, self.view


def _pair(ends: Ends | None) -> str:
    return "none" if ends is None else f"({ends[0]:.3g}, {ends[1]:.3g})"


def _interval(ends: Ends | None) -> str:
    return "none" if ends is None else f"[{ends[0]:.3g}, {ends[1]:.3g}]"


def other_readings(
    described: Reading, device: torch.device, standardised: Ends | None = None, shape: tuple[int, ...] | None = None
) -> Iterator[Reading]:
    """List all readings but the description.

    Arguments:
        described: the description.
        device: where the network works.
        standardised: the ends of standardised data; ``None`` if they have no range.
        shape: the shape (*) of an image; ``None`` for data that have no other look.
    """
    for view in [] if shape is None else views(shape):
        yield replace(described, view=view)
    for kind, sign in product(CONVENTIONS, (1, -1)):
        for other in _calls(kind, sign, described, standardised):
            if other != described and _fails_softly(other, described, device):
                yield other


def _calls(kind: str, sign: int, described: Reading, standardised: Ends | None) -> Iterator[Reading]:
    """List the readings of a kind and sign: other ranges with all diffusions, and other second arguments."""
    ranges = [described.ends]
    if described.ends is not None:
        ranges += [ends for ends in (CENTRED, UNIT) if ends != described.ends]
    for ends, sde in product(ranges, _schedules(kind, described)):
        yield Reading(kind, sde, ends, sign, described.second)
    if standardised is not None:
        yield Reading(kind, described.sde, standardised, sign, described.second)
    for second in (None, *SECONDS):
        if second not in (described.second, own_second(kind)):
            yield Reading(kind, described.sde, described.ends, sign, second)


def _schedules(kind: str, described: Reading) -> list[SDE]:
    """List the diffusions for a kind: the one described, and others if the kind gets the time of the diffusion."""
    gets_time = CONVENTIONS[kind].inputs is CONVENTIONS["noise"].inputs and _follows_time(described.second)
    return [described.sde, *(sde for sde in SCHEDULES if gets_time and sde != described.sde)]


def _follows_time(second: str | None) -> bool:
    """Return whether a second argument follows from the time, and so depends on the diffusion."""
    return second in (None, "t", "t/999", "1-t") or COUNTED.fullmatch(second) is not None


def _fails_softly(other: Reading, described: Reading, device: torch.device) -> bool:
    """Return whether a failed call can be caught: on a GPU, an index out of the range of a table ends the whole process."""
    if device.type == "cpu":
        return True
    if other.second is not None and other.second != described.second:
        return other.second in WITHIN_A_TABLE
    return "denoiser" not in {other.kind, described.kind} or other.kind == described.kind
