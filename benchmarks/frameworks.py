"""Run the referee on the networks of examples/frameworks, described rightly and with planted mistakes.

    python -m benchmarks.frameworks [diffusers_ddpm edm score_sde flow_matching] [--images 32] [--time-draws 10]

Trains each network for seconds, and prints a table in Markdown: the user's lines, the numbers of the right description, and what
the report says first about each mistake. The first row needs the package ``diffusers``.
"""

import argparse
import runpy
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from torch import Tensor

import indm
from indm.diffusion.sde import SDE, build_sde
from indm.errors import IndmError
from indm.foreign.conventions import Network
from indm.foreign.likelihood import referee
from indm.foreign.markdown import table
from indm.foreign.report import Report
from indm.process import set_up

EXAMPLES = Path(__file__).parents[1] / "examples/frameworks"
HEADING = "| framework | your lines | NELBO | report | NELBO at that eps | planted mistake | report |"


@dataclass(frozen=True)
class Call:
    """A call of the referee: its arguments, and the modules of the network.

    Arguments:
        network: the network.
        sde: its diffusion.
        images: test images, levels, (N, C, H, W).
        given: all other arguments.
        names: the names of the example, among them its modules.
    """

    network: Network
    sde: SDE
    images: Tensor
    given: dict[str, Any]
    names: dict[str, Any]

    def report(self, images: int, **changes: Any) -> Report:
        """Run the referee on the first images."""
        return referee(self.network, self.sde, self.images[:images], **self.given | changes)


def with_given(**changes: Any) -> Callable[[Call], Call]:
    """Return a mistake in the arguments."""
    return lambda call: replace(call, given=call.given | changes)


def in_training_mode(call: Call) -> Call:
    """Forget ``.eval()``."""
    call.names["unet"].train()
    return call


def with_sign(call: Call) -> Call:
    """Forget the sign of the velocity."""
    return replace(call, network=lambda x, tau: -call.network(x, tau))


Mistakes = dict[str, Callable[[Call], Call]]
MISTAKES: dict[str, Mistakes] = {
    "diffusers_ddpm": {"noise read as v": with_given(kind="v"), "`.eval()` forgotten": in_training_mode},
    "edm": {"data said to be in [0, 1]": with_given(centered=False)},
    "score_sde": {"beta_max=10 instead of 20": lambda call: replace(call, sde=build_sde("vp", beta_max=10.0))},
    "flow_matching": {"sign of the velocity": with_sign},
}
"""Mistakes of each example, by words; the last of them may change the network."""


def lines_of(name: str) -> int:
    """Count the lines of an example that a user writes: neither blank lines nor its first line, which says what it is."""
    return len(list(filter(None, (EXAMPLES / f"{name}.py").read_text().splitlines()))) - 1


def call_of(name: str) -> Call:
    """Train the network of an example, and return the call with which the example ends."""
    path = mock.patch.object(sys, "path", [str(EXAMPLES), *sys.path])
    # The example prints the report, which is not there yet.
    with mock.patch.object(indm, "referee", create=True) as called, path, redirect_stdout(None):
        names = runpy.run_path(str(EXAMPLES / f"{name}.py"))
    network, sde, images = called.call_args.args
    return Call(network, sde, images, dict(called.call_args.kwargs), names)


def first_words(call: Call, images: int) -> str:
    """Return what the referee says first about a call: its refusal, or the beginning of its report; empty if it has no doubts."""
    try:
        report = call.report(images, time_draws=1, ode_steps=1)
    except IndmError as error:
        return f"refused: {error}"
    return " ".join(report.warnings())


def nelbo(report: Report) -> str:
    """Write the bound."""
    values = report.images["nelbo"].to_numpy(float)
    return f"{values.mean():.3f} ± {values.std(ddof=1) / len(values) ** 0.5:.3f}"


def rows(name: str, images: int, time_draws: int) -> list[str]:
    """Write the rows of an example: its bound, at the eps that the report names, too, and a row for each mistake."""
    call, again = call_of(name), "–"
    # By one step of the ODE, because its numbers are not read.
    report = call.report(images, time_draws=time_draws, ode_steps=1)
    says = report.warnings() or [report.comparison.words()]
    if report.untrained is not None:
        says.append(f"{report.untrained.words()}.")
        again = nelbo(call.report(images, time_draws=time_draws, ode_steps=1, eps=report.untrained.first))
    found, begin = [], [name, str(lines_of(name)), nelbo(report), " ".join(says), again]
    for words, plant in MISTAKES[name].items():
        found.append(f"| {' | '.join([*begin, words, first_words(plant(call), images)])} |")
        begin = [""] * len(begin)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("names", nargs="*", default=[*MISTAKES], metavar="NAME", help=", ".join(MISTAKES))
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--time-draws", type=int, default=10)
    given = parser.parse_args()
    set_up("cpu", 1)
    found = [row for name in given.names for row in rows(name, given.images, given.time_draws)]
    print("\n".join(table(HEADING, found)))


if __name__ == "__main__":
    main()
