"""Time a training step of two processes that share a batch twice as large, next to the steps of two that train separately.

    python -m benchmarks.processes [--suite SUITE] [--rounds N] [RUN ...]

Both processes do both, in turn, so that whatever else the machine does slows both alike. Prints, for each run, the medians
and the medians of the paired ratios: of the time that passed, and of the core's time, which other jobs hardly change.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import torch

from indm.process import set_up
from indm.suite.load import load_suite
from indm.training.batches import draw
from indm.training.distributed import group, launch
from indm.training.spec import build_trainer
from indm.training.trainer import Trainer
from tests.checkout import REPOSITORY

CPU = torch.device("cpu")
SHAPES = {"digits": [1, 8, 8], "cifar10": [3, 32, 32]}
# Of a round, and those before its first that is timed: PyTorch arranges its messages in them.
STEPS, WARM_UP = 4, 2
Times = tuple[float, float]


def timed(batches: Iterator[Callable[[], object]]) -> Times:
    """Take steps; return the median seconds of one, passed and of the core."""
    found = []
    for take, _ in zip(batches, range(WARM_UP + STEPS), strict=False):
        started = time.perf_counter(), time.process_time()
        take()
        found.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    passed, core = zip(*found[WARM_UP:], strict=True)
    return statistics.median(passed), statistics.median(core)


def steps(trainer: Trainer, images: torch.Tensor, levels: int, batch: int) -> Iterator[Callable[[], object]]:
    """Yield what takes a step, of the same work each time."""
    trainer.model.flow.fix_terms(round(trainer.model.flow.mean_terms))
    for step in range(WARM_UP + STEPS):
        draws = draw(images, levels, batch, ("processes", 0), step, centered=trainer.model.centered)
        yield lambda draws=draws: trainer.step(draws, 1.0)  # type: ignore[misc]


def measure(path: Path, run: str, batch: int, rounds: int) -> list[tuple[Times, Times]]:
    """Measure in one of the processes: alone with a batch, and together with two."""
    suite = load_suite(path)
    set_up("cpu", 1)
    shape, levels = SHAPES[suite.runs[run].dataset], 17
    images = torch.randint(levels, (4 * batch, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with group(CPU):
        together = build_trainer(suite, run, shape, CPU)
        with patch("torch.distributed.is_initialized", return_value=False):
            alone = build_trainer(suite, run, shape, CPU)
        found = []
        for _ in range(rounds):
            with patch("torch.distributed.is_initialized", return_value=False):
                one = timed(steps(alone, images, levels, batch))
            found.append((one, timed(steps(together, images, levels, 2 * batch))))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN", default=["digits-vp-indm-nll-s4", "digits-vp-indm-fid-s4"])
    parser.add_argument("--suite", type=Path, default=REPOSITORY / "params/digits.yaml")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(
        "| run | images of a process | alone, s | two, s | ratio | core: alone, s | two, s | ratio |\n"
        + "|---" * 8
        + "|"
    )
    for run in arguments.runs:
        rows = launch(2, measure, arguments.suite, run, arguments.batch, arguments.rounds)
        cells = []
        for kind in (0, 1):
            pairs = [(one[kind], two[kind]) for one, two in rows]
            cells += [f"{statistics.median(column):.4f}" for column in zip(*pairs, strict=True)]
            cells.append(f"{statistics.median(two / one for one, two in pairs):.2f}")
        print(f"| {run} | {arguments.batch} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
