"""Count what training steps and network calls ask of a device, on a pretended one.

    python -m benchmarks.device

Networks have the depth of the suite ``paper`` and few channels, on which no count depends. Prints a table of operators, of
how often the host waits for the device, of bytes that are copied, and of random numbers that are drawn. A step is the
third one, with its draws. Below the table: the numbers that one of several processes draws for a step.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from indm.bench.models.spec import build_trainer
from indm.bench.suite.load import load_suite
from indm.bench.suite.schema.suite import Suite
from indm.training.batches import Batch, Draws, step_batch
from indm.training.trainer import Trainer
from tests.checkout import REPOSITORY
from tests.pretended_device import NAME, Counts, counted, register

WORKS = {
    "DDPM++, nll": "cifar10-vp-ddpmpp-nll-s0",
    "INDM (wolf), nll": "cifar10-vp-indm-nll-s0",
    "INDM (wolf), fid": "cifar10-vp-indm-fid-s0",
    "INDM (resflow, VE), fid": "cifar10-ve-indm-fid-s0",
}
BATCH, CHANNELS, STEP = 4, 8, 2


def narrow(suite: Suite) -> Suite:
    """Give the networks few channels."""
    train = suite.train
    score = train.score.model_copy(update={"channels": CHANNELS})
    flow = train.flow.model_copy(update={"width": CHANNELS})
    return suite.model_copy(update={"train": train.model_copy(update={"score": score, "flow": flow})})


class FirstOf(NamedTuple):
    """What the first of several processes is given."""

    batch: Batch
    processes: int

    def shares(self, pieces: int, number: int, processes: int) -> list[Draws]:
        """See :class:`Batch`."""
        return self.batch.shares(pieces, number, self.processes)


def steps(trainer: Trainer, images: torch.Tensor, processes: int = 1) -> Callable[[int], object]:
    """Return what takes a step, its draws too, or the part in it of the first of several processes."""
    device = torch.device(NAME)
    trainer.model.flow.fix_terms(round(trainer.model.flow.mean_terms))  # the same work in every step

    def take(step: int) -> object:
        draws = step_batch(images, 256, BATCH, ("counts", 0), step, device, True, trainer.model.centered)
        return trainer.step(FirstOf(draws, processes), 1.0)

    return take


def row(what: str, counts: Counts) -> None:
    """Print a row of the table."""
    numbers = [
        counts.operators,
        counts.launches,
        counts.waits,
        counts.waiting_uploads,
        counts.bytes_to_device,
        counts.bytes_to_host,
    ]
    print(f"| {what} | {' | '.join(map(str, [*numbers, counts.drawn]))} |", flush=True)


def drawn(trainer: Trainer, images: torch.Tensor, processes: int) -> int:
    """Count the random numbers that the first of several processes draws for a step."""
    with counted() as counts:
        steps(trainer, images, processes)(STEP)
    return counts.drawn


def main() -> None:
    """Print the table."""
    register()
    torch.set_num_threads(1)
    suite = narrow(load_suite(REPOSITORY / "params/paper.yaml"))
    images = torch.randint(256, (4 * BATCH, 3, 32, 32), dtype=torch.uint8)
    titles = ["operators", "of these, that compute", "waits for results", "waits for copies there"]
    print(f"| batch of {BATCH} | {' | '.join([*titles, 'bytes there', 'bytes back', 'drawn'])} |")
    print("|---|---|---|---|---|---|---|---|")
    for what, run in WORKS.items():
        torch.manual_seed(0)
        trainer = build_trainer(suite, run, [3, 32, 32], torch.device(NAME))
        take = steps(trainer, images)
        for step in range(STEP):
            take(step)
        with counted() as counts:
            take(STEP)
        row(f"step of {what}", counts)
        model = trainer.model.eval()
        z, t = torch.randn(BATCH, 3, 32, 32).to(NAME), torch.full((BATCH,), 0.5, dtype=torch.float64, device=NAME)
        with torch.no_grad(), counted() as counts:
            model.noise(z, t)
        row(f"network call of {what}", counts)
    print("numbers drawn by the first of", ", ".join(f"{n}: {drawn(trainer, images, n)}" for n in (1, 2, 4)))


if __name__ == "__main__":
    main()
