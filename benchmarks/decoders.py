"""Measure what a bound owes to its decoder, eps and steps, on a network of known weights.

    python -m benchmarks.decoders [--run digits-vp-ddpmpp-nll-s4] [--images 100] [--time-draws 80] [--steps 100 1000]

Prints two tables in Markdown, in bits/dim with standard errors over the first images of the test set: the bound with each of the
four decoders at several truncation times, and the bounds of so many steps with what separates them from the first row. Levels
without dequantisation lie at the centres of their cells, around which the weights were trained.
"""

import argparse

import torch

from indm.foreign.likelihood import referee
from indm.foreign.markdown import table
from indm.foreign.report import Report
from indm.library import Run, load_run
from indm.process import set_up
from indm.registry import DATASETS

EPS = (1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 2e-2, 4e-2)
DECODERS = {
    "nelbo": "learned",
    "nelbo_fixed": "fixed",
    "lossless_ddpm": "levels, DDPM",
    "lossless_vdm": "levels, VDM",
}


def evaluated(run: Run, images: torch.Tensor, draws: int, eps: float, steps: int | None = None) -> Report:
    """Evaluate bounds, and the ODE by one step, because its numbers are not read."""
    return referee(
        run.model.noise,
        run.model.sde,
        images,
        levels=run.levels,
        centered=run.model.centered,
        eps=eps,
        time_draws=draws,
        ode_steps=1,
        steps=steps,
        grid="centres",
    )


def row(report: Report, eps: float) -> str:
    """Write the bounds of all decoders at eps."""
    summary = report.summary()
    cells = [f"{summary['mean'][key]:.3f} ± {summary['se'][key]:.3f}" for key in DECODERS]
    return f"| {eps:g} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--run", default="digits-vp-ddpmpp-nll-s4")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--time-draws", type=int, default=80)
    parser.add_argument("--steps", type=int, nargs="*", default=[100, 1000])
    given = parser.parse_args()
    set_up("cpu", 1)
    run = load_run(given.run)
    test = DATASETS[run.dataset].load(split_seed=0)["test"]
    images = torch.from_numpy(next(test.pieces())[: given.images])
    rows = [row(evaluated(run, images, given.time_draws, eps), eps) for eps in EPS]
    print("\n".join(table(f"| eps | {' | '.join(DECODERS.values())} |", rows)))
    for count in given.steps:
        steps = evaluated(run, images, given.time_draws, EPS[0], count).steps
        assert steps is not None
        print("\n" + "\n".join(steps.lines()))


if __name__ == "__main__":
    main()
