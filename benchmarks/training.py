"""Time a training step of the paper's size beside that of the released code, in turn, one thread each.

    python -m benchmarks.training [--released CHECKOUT] [--rounds N] [WORK ...]

Prints a table: medians, the median of the paired ratios, the share of the rate of a 2048 x 2048 matrix product that the
counted operations reach, and the peak memory. Each code has a process of its own, so that neither's memory settings are the
other's. Without a checkout of the released code its columns are left out.
"""

import argparse
import contextlib
import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks import released
from indm.bench.models.begin import step_flops
from indm.bench.models.spec import build_trainer
from indm.bench.suite.load import load_suite
from indm.process import set_up
from indm.training.batches import Draws, draw
from indm.training.trainer import Trainer
from tests.checkout import REPOSITORY

CPU = torch.device("cpu")
SHAPE = [3, 32, 32]
# Steps in which memory is still being taken.
WARM_UP = 2


class Work(NamedTuple):
    """A step, by run of the suite ``paper``.

    Arguments:
        run: of the suite.
        batch: images.
        model: name of the same model in the released code, and its objective.
        precision: of the score network's products.
        flow_alone: whether the flow alone is trained, as a normalizing flow; the released code has no such step, and one is
            made of its parts.
    """

    run: str
    batch: int
    model: tuple[str, str]
    precision: str = "float32"
    flow_alone: bool = False


Build = Callable[[Work, Path | None], Callable[[Draws], object]]

WORKS = {
    "ddpmpp": Work("cifar10-vp-ddpmpp-nll-s0", 4, ("ddpmpp", "nll")),
    "ddpmpp-bfloat16": Work("cifar10-vp-ddpmpp-nll-s0", 4, ("ddpmpp", "nll"), "bfloat16"),
    "wolf": Work("cifar10-vp-indm-nll-s0", 2, ("wolf", "nll"), flow_alone=True),
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


def matmul_rate() -> float:
    """Operations a second of a matrix product."""
    a = torch.randn(2048, 2048)
    return 2 * 2048**3 / statistics.median(seconds(lambda: a @ a) for _ in range(9))


def batches(work: Work) -> Iterator[Draws]:
    """Draw what each step takes."""
    images = torch.randint(256, (64, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return (draw(images, 256, work.batch, ("bench", 0), step) for step in itertools.count())


def own_step(work: Work, _: Path | None) -> Callable[[Draws], object]:
    """Build this code's step."""
    own = trainer(work)
    return lambda draws: own.step(draws, 1.0, flow_alone=work.flow_alone)


def released_step(work: Work, checkout: Path | None) -> Callable[[Draws], object]:
    """Build the released code's step."""
    assert checkout
    step = (released.flow_step if work.flow_alone else released.step)(checkout, *work.model)
    return lambda draws: step(draws.x)


def peak_memory() -> float:
    """Peak of this process in MiB; what ``getrusage`` gives may be that of the process that started it."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024


def serve(connection: Connection, build: Build, work: Work, checkout: Path | None) -> None:
    """Take a step whenever asked to; answer with its seconds and the peak memory in MiB."""
    set_up("cpu", 1) if build is own_step else torch.set_num_threads(1)
    draws, step = batches(work), build(work, checkout)
    while connection.recv():
        elapsed = seconds(partial(step, next(draws)))
        connection.send((elapsed, peak_memory()))


@contextlib.contextmanager
def process(build: Build, work: Work, checkout: Path | None) -> Iterator[Callable[[], tuple[float, float]]]:
    """Start a process that takes steps, and return what asks it for one."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    server = context.Process(target=serve, args=(there, build, work, checkout))
    server.start()
    there.close()  # so that the end of the process is seen here

    def ask() -> tuple[float, float]:
        here.send(True)
        return here.recv()

    try:
        yield ask
    finally:
        with contextlib.suppress(BrokenPipeError):
            here.send(False)
        server.join()


def measure(name: str, checkout: Path | None, rounds: int) -> str:
    """Measure a step, and return its row of the table."""
    work = WORKS[name]
    flops = step_flops(trainer(work), next(batches(work)), flow_alone=work.flow_alone)
    with contextlib.ExitStack() as stack:
        builds = [own_step, *([released_step] if checkout else [])]
        steps = [stack.enter_context(process(build, work, checkout)) for build in builds]
        rows = [[step() for step in steps] for _ in range(WARM_UP + rounds)][WARM_UP:]
    ours, memory = statistics.median(row[0][0] for row in rows), rows[-1][0][1]
    cells = [f"{ours:.2f}", f"{flops / 1e9:.0f}", f"{flops / ours / matmul_rate():.0%}", f"{memory:.0f}"]
    if checkout:
        theirs, ratio = (
            statistics.median(f(row) for row in rows) for f in (lambda r: r[1][0], lambda r: r[0][0] / r[1][0])
        )
        cells += [f"{theirs:.2f}", f"{ratio:.2f}", f"{rows[-1][1][1]:.0f}"]
    return f"| {name} | {work.batch} | " + " | ".join(cells) + " |"


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
    columns = ["step", "batch", "s", "GFLOP", "of the matrix product's rate", "peak MiB"]
    columns += ["released code, s", "ratio", "released code, peak MiB"] if arguments.released else []
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for name in arguments.works or WORKS:
        print(measure(name, arguments.released, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
