"""Measure how the cost of a training step and of a network call grows, on one thread of this machine.

    python -m benchmarks.growth

Networks are those of the suite ``paper``. Prints seconds beside the counted operations and their rate: where the rate stays, cost
grows as the operations do, which benchmarks/scaling.py counts.
"""

import statistics

import torch

from benchmarks.scaling import passes
from benchmarks.training import CPU, seconds
from indm.process import set_up
from indm.suite.load import load_suite
from indm.suite.schema.suite import Suite
from indm.training.batches import draw
from indm.training.begin import step_flops
from indm.training.spec import build_trainer
from tests.checkout import REPOSITORY

DDPMPP, INDM = "cifar10-vp-ddpmpp-nll-s0", "cifar10-vp-indm-nll-s0"
BATCHES, SIZES, DEPTHS, CALLS = (1, 2, 4, 8), (16, 32, 64), (4, 8, 16), (1, 2, 4, 8)
ROUNDS = 3


def with_depth(suite: Suite, blocks: int) -> Suite:
    """Change the number of blocks at each scale of the flow."""
    flow = suite.train.flow.model_copy(update={"blocks": [blocks, blocks]})
    return suite.model_copy(update={"train": suite.train.model_copy(update={"flow": flow})})


def step(suite: Suite, run: str, batch: int, size: int) -> tuple[float, float]:
    """Measure a training step after two to warm up: median seconds, and operations."""
    torch.manual_seed(0)
    trainer = build_trainer(suite, run, [3, size, size], CPU)
    images = torch.randint(256, (2 * batch, 3, size, size), dtype=torch.uint8)
    trainer.model.flow.fix_terms(round(trainer.model.flow.mean_terms))  # the same work in every step
    draws = [draw(images, 256, batch, ("growth", 0), 0) for _ in range(ROUNDS + 3)]
    operations = step_flops(trainer, draws.pop())
    elapsed = [seconds(lambda taken=taken: trainer.step(taken, 1.0)) for taken in draws]  # type: ignore[misc]
    return statistics.median(elapsed[2:]), operations


def row(what: str, value: int, elapsed: float, operations: float) -> None:
    """Print a row of the table."""
    rate = operations / elapsed / 1e9
    print(f"| {what} | {value} | {elapsed:.2f} | {operations / 1e9:.0f} | {rate:.0f} |", flush=True)


def main() -> None:
    """Print the table."""
    set_up("cpu", 1)
    suite = load_suite(REPOSITORY / "params/paper.yaml")
    print("| quantity | value | s | GFLOP | GFLOP/s |\n|---|---|---|---|---|")
    for batch in BATCHES:
        row("batch of a DDPM++ step, 32 x 32", batch, *step(suite, DDPMPP, batch, 32))
    for size in SIZES:
        row("image size of a DDPM++ step, batch 1", size, *step(suite, DDPMPP, 1, size))
    for blocks in DEPTHS:
        row(
            "flow's blocks at each scale of an INDM step, batch 2",
            blocks,
            *step(with_depth(suite, blocks), INDM, 2, 32),
        )
    model = build_trainer(suite, DDPMPP, [3, 32, 32], CPU).model.eval()
    z, t = torch.randn(4, 3, 32, 32), torch.full((4,), 0.5, dtype=torch.float64)
    with torch.no_grad():
        for calls in CALLS:
            elapsed = min(seconds(lambda calls=calls: [model.noise(z, t) for _ in range(calls)]) for _ in range(ROUNDS))  # type: ignore[misc]
            row("network calls for 4 images of 32 x 32", calls, elapsed, calls * 4 * passes(suite, DDPMPP).score)


if __name__ == "__main__":
    main()
