"""Time training steps in turn, one thread each: of two checkouts and several shares of the log-determinant, or of a suite's models.

    python -m benchmarks.steps [--before CHECKOUT] [--rounds N] [--shares SHARE ...] [SIZE ...]
    python -m benchmarks.steps --suite SUITE [--rounds N]

Prints a table: for each step its operations, the median of its processor time, and its ratio to the first row in the same
round: median, smallest and largest. The first row is INDM, by the checkout ``--before`` if there is one, or the suite's first
model. Each step has a process of its own, and processes take turns, so that another load of the machine meets all of them.
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
    """A step to time.

    Arguments:
        name: what the table calls it.
        checkout: takes the step.
        suite, run: whose model takes it.
        batch: number of images.
        share: of the log-determinant.
    """

    name: str
    checkout: Path
    suite: str
    run: str
    batch: int
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
    images = torch.randint(dataset.levels, (IMAGES, *dataset.shape), dtype=torch.uint8)
    # A fixed map cannot take a step before it is fitted; checkouts before these maps have no argument for it.
    fixed = getattr(settings.train_params(run).latent, "fixed", None)
    fitted = {"batches": lambda: [images / (dataset.levels - 1) * 2 - 1]} if fixed else {}
    trainer = build_trainer(settings, run, list(dataset.shape), torch.device("cpu"), **fitted)
    options: dict[str, Any] = {} if share == 1 else {"log_det_share": share}
    print(begin.step_flops(trainer, draw(images, dataset.levels, batch, ("bench",), 0, **options)), flush=True)
    for step, _ in enumerate(sys.stdin):
        draws = draw(images, dataset.levels, batch, ("bench",), step, **options)
        started = time.process_time()
        trainer.step(draws, 1.0)
        print(time.process_time() - started, flush=True)


@contextlib.contextmanager
def started(step: Step) -> Iterator["subprocess.Popen[str]"]:
    """Start the process that takes a step."""
    settings = json.dumps([step.suite, step.run, step.batch, step.share])
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


def steps_of_size(size: Size, before: Path | None, shares: list[float]) -> list[Step]:
    """List INDM's and DDPM++'s step by both checkouts."""

    def step(name: str, checkout: Path, run: str, share: float = 1.0) -> Step:
        return Step(name, checkout, size.suite, run, size.batch, share)

    earlier = [step("INDM before", before, size.indm)] if before else []
    now = [step(f"INDM, share {share:g}", REPOSITORY, size.indm, share) for share in shares]
    ddpmpp = [step("DDPM++ before", before, size.ddpmpp)] if before else []
    return [*earlier, *now, *ddpmpp, step("DDPM++", REPOSITORY, size.ddpmpp)]


def steps_of_suite(name: str) -> list[Step]:
    """List a step of each model of a suite, by its first seed, batch and share."""
    from indm.bench.suite.load import load_suite

    suite = load_suite(Path(f"params/{name}.yaml"))
    first = {run.cell: run_name for run_name, run in reversed(suite.runs.items())}
    steps = []
    for cell in dict.fromkeys(run.cell for run in suite.runs.values()):
        train = suite.train_params(first[cell])
        steps.append(Step(cell, REPOSITORY, name, first[cell], train.batch_size, train.log_det_share))
    return steps


def measure(name: str, taken: list[Step], rounds: int) -> Iterator[str]:
    """Time steps in turn, and yield the rows of the table."""
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(started(step)) for step in taken]
        flops = [answer(process) for process in processes]
        rows = [[ask(process) for process in processes] for _ in range(WARM_UP + rounds)][WARM_UP:]
    for index, step in enumerate(taken):
        ratios = [row[index] / row[0] for row in rows]
        seconds = statistics.median(row[index] for row in rows)
        cells = [name, str(step.batch), step.name, f"{flops[index] / 1e9:.4g}", f"{flops[index] / flops[0]:.3f}"]
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
    parser.add_argument("--suite", help="time a step of each model of this suite instead of sizes")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(*json.loads(arguments.serve))
        return
    columns = ["size", "batch", "step", "GFLOP", "ratio", "ms", "ratio, median", "smallest to largest"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    if arguments.suite:
        tables = {arguments.suite: steps_of_suite(arguments.suite)}
    else:
        before = arguments.before and arguments.before.resolve()
        tables = {name: steps_of_size(SIZES[name], before, arguments.shares) for name in arguments.sizes or SIZES}
    for name, taken in tables.items():
        for row in measure(name, taken, arguments.rounds):
            print(row, flush=True)


if __name__ == "__main__":
    main()
