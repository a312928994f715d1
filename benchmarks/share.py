"""Measure how a share of the log-determinant (``train.log_det_share``) changes the variance of the flow's gradient.

    python -m benchmarks.share [--batches N] [--steps N] [--data FOLDER] [POINT ...]

Prints a table: for each model and share, the variance of the gradient of a step of the ``nll`` objective over the variance with
share 1. The variance is summed over all weights of the flow, as they are and, as Adam scales them, each divided by its mean square.
Given everything else that is random in a step, the mean over subsets is the gradient g of the whole batch, so that

    Var(g_share) = Var(g) + E |g_share - g|^2,

whose second part is measured on the same batches, times, noise and probes. Published weights are averaged ones.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from indm.bench.models.spec import build_trainer
from indm.bench.suite.load import load_suite
from indm.process import set_up
from indm.registry import DATASETS
from indm.store.files import read_weights
from indm.store.weights import WEIGHTS_FORMAT
from indm.training.batches import draw
from indm.training.losses import joint_loss
from indm.training.trainer import Trainer
from tests.checkout import REPOSITORY

SHARES = (0.5, 0.25, 0.125)
SEED = ("share",)


class Point(NamedTuple):
    """A model: INDM of a suite, at the start, after some steps, or with published weights.

    Arguments:
        suite: name of the suite.
        run: the run of INDM.
        trained: whether it takes the steps of ``--steps`` first, at the peak learning rates.
        published: whether it has the published weights.
    """

    suite: str
    run: str
    trained: bool = False
    published: bool = False


POINTS = {
    "digits-start": Point("digits", "digits-vp-indm-nll-s4"),
    "digits": Point("digits", "digits-vp-indm-nll-s4", published=True),
    "digits-seeds": Point("digits-seeds", "digits-vp-indm-nll-s201", published=True),
    "fashion-full": Point("fashion-full", "fashion-mnist-vp-indm-nll-s123", published=True),
    "cifar10-start": Point("cifar10-1000", "cifar10-vp-indm-nll-s311"),
    "cifar10": Point("cifar10-1000", "cifar10-vp-indm-nll-s311", trained=True),
}


class Model(NamedTuple):
    """A trainer, with the training images as levels and the number of levels and of images in a batch."""

    trainer: Trainer
    images: Tensor
    levels: int
    batch: int

    def gradient(self, step: int, share: float) -> Tensor:
        """Return the gradient of the flow's weights, in float64."""
        draws = draw(self.images, self.levels, self.batch, SEED, step, log_det_share=share)
        flow = self.trainer.flats["flow"]
        flow.zero_gradients()
        joint_loss(self.trainer.model, self.trainer.optimisation, draws).value.backward()
        assert flow.values.grad is not None
        return flow.values.grad.double().clone()


def build(point: Point, steps: int, data: Path | None) -> Model:
    """Build a model, and train it if the point says so."""
    suite = load_suite(REPOSITORY / f"params/{point.suite}.yaml")
    dataset = DATASETS[suite.runs[point.run].dataset]
    splits = dataset.load(0, **({"root": data} if dataset.archives else {}))
    images = torch.from_numpy(np.concatenate(list(dataset.read("train", splits["train"]))))
    torch.manual_seed(0)
    trainer = build_trainer(suite, point.run, list(dataset.shape), torch.device("cpu"))
    if point.published:
        path = REPOSITORY / f"docs/results/{point.suite}/weights/{point.run}.safetensors"
        trainer.model.load_state_dict(read_weights(path, WEIGHTS_FORMAT)[0])
    model = Model(trainer, images, dataset.levels, suite.train_params(point.run).batch_size)
    for step in range(steps if point.trained else 0):
        trainer.step(draw(images, dataset.levels, model.batch, ("training",), step), 1.0)
    trainer.model.noise.requires_grad_(False)
    return model


def ratios(model: Model, batches: int) -> list[tuple[float, float]]:
    """Return the ratio of variances for each of ``SHARES``, of the weights and as Adam scales them."""
    whole = torch.stack([model.gradient(step, 1.0) for step in range(batches)])
    # A weight that no loss reaches has no scale.
    scales = whole.square().mean(0).clamp(min=torch.finfo(torch.float32).tiny).rsqrt()
    found = []
    for share in SHARES:
        parts = torch.stack([model.gradient(step, share) for step in range(batches)])
        found.append((_ratio(whole, parts), _ratio(whole * scales, parts * scales)))
    return found


def _ratio(whole: Tensor, parts: Tensor) -> float:
    added = (parts - whole).square().mean(0).sum()
    return float(1 + added / whole.var(0).sum())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "points", nargs="*", choices=[*POINTS, []], metavar="POINT", help=f"of {', '.join(POINTS)}; default: all"
    )
    parser.add_argument("--batches", type=int, default=40, help="gradients of each share")
    parser.add_argument("--steps", type=int, default=300, help="steps of the model that is trained first")
    parser.add_argument("--data", type=Path, help="the folder of the archives of datasets")
    given = parser.parse_args(arguments)
    set_up("cpu", 1)
    columns = ["model", *(f"{share:g}, {kind}" for share in SHARES for kind in ("raw", "as Adam scales it"))]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for name in given.points or POINTS:
        pairs = ratios(build(POINTS[name], given.steps, given.data), given.batches)
        print(f"| {name} | " + " | ".join(f"{number:.3f}" for pair in pairs for number in pair) + " |", flush=True)


if __name__ == "__main__":
    main()
