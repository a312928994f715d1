"""Time training steps of two checkouts and of several shares of the log-determinant, in turn, one thread each.

    python -m benchmarks.steps [--before CHECKOUT] [--rounds N] [--shares SHARE ...] [SIZE ...]

Prints a table: for each step its operations, the median of its processor time, and its ratio to the first row in the same
round: median, smallest and largest. The first row is INDM, by the checkout ``--before`` if there is one. Each step has a process
of its own, and processes take turns, so that another load of the machine meets all of them.
"""

import argparse
import contextlib
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]
# Steps in which memory is still being taken.
WARM_UP = 2
# Images from which batches are drawn, at least as many as a batch has.
IMAGES = 64


class Size(NamedTuple):
    """Networks of a suite, and the batch of a step.

    Arguments:
        suite: name of the suite.
        indm: the run of INDM.
        ddpmpp: the run of DDPM++.
        batch: number of images.
    """

    suite: str
    indm: str
    ddpmpp: str
    batch: int


SIZES = {
    "digits": Size("digits", "digits-vp-indm-nll-s4", "digits-vp-ddpmpp-nll-s4", 64),
    "cifar10-1000": Size("cifar10-1000", "cifar10-vp-indm-nll-s311", "cifar10-vp-ddpmpp-nll-s311", 32),
    "fashion-full": Size("fashion-full", "fashion-mnist-vp-indm-nll-s121", "fashion-mnist-vp-ddpmpp-nll-s121", 32),
    # A batch of the paper has 128 images; operations, and nearly the time, are proportional to it.
    "paper": Size("paper", "cifar10-vp-indm-nll-s0", "cifar10-vp-ddpmpp-nll-s0", 8),
}


class Step(NamedTuple):
    """A step to time: its name, the checkout that takes it, the run and the share of the log-determinant."""

    name: str
    checkout: Path
    run: str
    share: float


def imported(*names: str) -> Any:
    """Import the first of these modules that a checkout has: its name now comes last.

    An editable installation finds what a checkout lacks in its own.
    """
    for name in names[:-1]:
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(name)
    return importlib.import_module(names[-1])


def serve(suite: str, run: str, batch: int, share: float) -> None:
    """Print the operations of a step, then take a step for each line of the input and print its processor time in seconds."""
    # Of the checkout in PYTHONPATH.
    from indm.process import set_up

    set_up("cpu", 1)
    import torch

    from indm.registry import DATASETS
    from indm.training.batches import draw

    begin = imported("indm.training.begin", "indm.bench.models.begin")
    build_trainer = imported("indm.training.spec", "indm.bench.models.spec").build_trainer
    suites = imported("indm.suite.load", "indm.bench.suite.load")
    with_trial = imported("indm.trials", "indm.bench.trials").with_trial

    # Checkouts before the key do not have it.
    changes = {"batch_size": batch} | ({} if share == 1 else {"log_det_share": share})
    loaded = suites.load_suite(Path(f"params/{suite}.yaml"))
    dataset, settings = DATASETS[loaded.runs[run].dataset], with_trial(loaded, run, 0, changes)
    torch.manual_seed(0)
    trainer = build_trainer(settings, run, list(dataset.shape), torch.device("cpu"))
    images = torch.randint(dataset.levels, (IMAGES, *dataset.shape), dtype=torch.uint8)
    options: dict[str, Any] = {} if share == 1 else {"log_det_share": share}
    print(begin.step_flops(trainer, draw(images, dataset.levels, batch, ("bench",), 0, **options)), flush=True)
    for step, _ in enumerate(sys.stdin):
        draws = draw(images, dataset.levels, batch, ("bench",), step, **options)
        started = time.process_time()
        trainer.step(draws, 1.0)
        print(time.process_time() - started, flush=True)


@contextlib.contextmanager
def started(size: Size, step: Step) -> Iterator["subprocess.Popen[str]"]:
    """Start the process that takes a step."""
    settings = json.dumps([size.suite, step.run, size.batch, step.share])
    environment = os.environ | {"PYTHONPATH": str(step.checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), "--serve", settings]
    with subprocess.Popen(
        command, cwd=step.checkout, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process


def answer(process: "subprocess.Popen[str]") -> float:
    """Read a number that a process prints."""
    assert process.stdout
    return float(process.stdout.readline())


def ask(process: "subprocess.Popen[str]") -> float:
    """Ask for a step, and return its seconds."""
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()
    return answer(process)


def steps(size: Size, before: Path | None, shares: list[float]) -> list[Step]:
    """List the steps of a table."""
    earlier = [Step("INDM before", before, size.indm, 1.0)] if before else []
    now = [Step(f"INDM, share {share:g}", REPOSITORY, size.indm, share) for share in shares]
    ddpmpp = [Step("DDPM++ before", before, size.ddpmpp, 1.0)] if before else []
    return [*earlier, *now, *ddpmpp, Step("DDPM++", REPOSITORY, size.ddpmpp, 1.0)]


def measure(name: str, before: Path | None, shares: list[float], rounds: int) -> Iterator[str]:
    """Time the steps of a size, and yield the rows of the table."""
    size, taken = SIZES[name], steps(SIZES[name], before, shares)
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(started(size, step)) for step in taken]
        flops = [answer(process) for process in processes]
        rows = [[ask(process) for process in processes] for _ in range(WARM_UP + rounds)][WARM_UP:]
    for index, step in enumerate(taken):
        ratios = [row[index] / row[0] for row in rows]
        seconds = statistics.median(row[index] for row in rows)
        cells = [name, str(size.batch), step.name, f"{flops[index] / 1e9:.3g}", f"{flops[index] / flops[0]:.3f}"]
        cells += [
            f"{1000 * seconds:.1f}",
            f"{statistics.median(ratios):.3f}",
            f"{min(ratios):.3f} to {max(ratios):.3f}",
        ]
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table, or serve one of its steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "sizes", nargs="*", choices=[*SIZES, []], metavar="SIZE", help=f"of {', '.join(SIZES)}; default: all"
    )
    parser.add_argument("--before", type=Path, help="another checkout of this code")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--shares", type=float, nargs="+", default=[1.0, 0.125])
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(*json.loads(arguments.serve))
        return
    columns = ["size", "batch", "step", "GFLOP", "ratio", "ms", "ratio, median", "smallest to largest"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for name in arguments.sizes or SIZES:
        for row in measure(name, arguments.before and arguments.before.resolve(), arguments.shares, arguments.rounds):
            print(row, flush=True)


if __name__ == "__main__":
    main()
