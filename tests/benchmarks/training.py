"""Time a training step of the paper's size beside that of the released code, in turn, one thread; not a test.

    python -m tests.benchmarks.training [--released CHECKOUT] [--rounds N] [WORK ...]

Prints a table: medians, the median of the paired ratios, and the share of the rate of a 2048 x 2048 matrix product that the
counted operations reach. Without a checkout of the released code its columns are empty.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from indm.params import load_suite
from indm.stages.common import set_up
from indm.stages.train import build_trainer
from indm.training import Trainer, draw, step_flops
from tests.benchmarks import released
from tests.checkout import REPOSITORY

CPU = torch.device("cpu")
SHAPE = [3, 32, 32]


class Work(NamedTuple):
    """A step, by run of the suite ``paper``.

    Arguments:
        run: of the suite.
        batch: images.
        model: name of the same model in the released code, and its objective.
        precision: of the score network's products.
    """

    run: str
    batch: int
    model: tuple[str, str]
    precision: str = "float32"


WORKS = {
    "ddpmpp": Work("cifar10-vp-ddpmpp-nll-s0", 4, ("ddpmpp", "nll")),
    "ddpmpp-bfloat16": Work("cifar10-vp-ddpmpp-nll-s0", 4, ("ddpmpp", "nll"), "bfloat16"),
    "indm": Work("cifar10-vp-indm-nll-s0", 2, ("wolf", "nll")),
    "indm-fid": Work("cifar10-vp-indm-fid-s0", 2, ("wolf", "fid")),
}


def trainer(work: Work) -> Trainer:
    """Build the trainer of a run."""
    suite = load_suite(REPOSITORY / "params/paper.yaml")
    suite = suite.model_copy(update={"train": suite.train.model_copy(update={"precision": work.precision})})
    torch.manual_seed(0)
    return build_trainer(suite, work.run, SHAPE, CPU)


def seconds(function: Callable[[], object]) -> float:
    """Time one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def in_turn(functions: list[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Time functions in turn, after a call of each to warm up: the machine's speed drifts for all of them alike."""
    for function in functions:
        function()
    return [[seconds(function) for function in functions] for _ in range(rounds)]


def matmul_rate() -> float:
    """Operations a second of a matrix product."""
    a = torch.randn(2048, 2048)
    return 2 * 2048**3 / statistics.median(row[0] for row in in_turn([lambda: a @ a], 7))


def measure(name: str, checkout: Path | None, rounds: int) -> str:
    """Measure a step, and return its row of the table."""
    work = WORKS[name]
    own, images = trainer(work), torch.randint(256, (64, *SHAPE), dtype=torch.uint8)
    draws = [draw(images, 256, work.batch, ("bench", 0), step, CPU) for step in range(rounds + 1)]
    flops = step_flops(own, draws[0])
    steps = iter(draws)
    functions: list[Callable[[], object]] = [lambda: own.step(next(steps), 1.0)]
    if checkout:
        step = released.step(checkout, *work.model)
        batches = iter(draws)
        functions.append(lambda: step(next(batches).x))
    rows = in_turn(functions, rounds)
    ours = statistics.median(row[0] for row in rows)
    rate = flops / ours / matmul_rate()
    theirs = statistics.median(row[1] for row in rows) if checkout else float("nan")
    ratio = statistics.median(row[0] / row[1] for row in rows) if checkout else float("nan")
    return f"| {name} | {work.batch} | {ours:.2f} | {theirs:.2f} | {ratio:.2f} | {flops / 1e9:.0f} | {rate:.0%} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "works", nargs="*", choices=[*WORKS, []], metavar="WORK", help=f"of {', '.join(WORKS)}; default: all"
    )
    parser.add_argument("--released", type=Path, help="a checkout of github.com/byeonghu-na/INDM")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    set_up("cpu", 1)
    print(
        "| step | batch | s | released code, s | ratio | GFLOP | of the matrix product's rate |\n|---|---|---|---|---|---|---|"
    )
    for name in arguments.works or WORKS:
        print(measure(name, arguments.released, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
