"""Controls of equal size, counted: ``same-compute`` trains for INDM's FLOPs, and ``same-parameters`` has INDM's parameters.

Networks are built, and take a step on a few random images, so the check is done before the first job and not by every stage.
"""

import gc
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from indm.bench.suite.variants import cells
from indm.bench.trials import with_trial
from indm.errors import ParamsError
from indm.process import set_environment
from indm.registry import DATASETS
from indm.variants import SAME_COMPUTE, SAME_PARAMETERS

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite
    from indm.bench.suite.schema.train import TrainParams

# The largest relative differences from INDM.
FLOPS, PARAMETERS = 0.02, 0.05
# The batch norms of the wolf flow need two images.
IMAGES = 2
# The smallest number of channels in the schema, and its step.
NARROWEST, STEP = 8, 4


def check_controls(suite: "Suite", path: Path) -> None:
    """Check the controls of equal size against INDM's run of the same dataset, SDE and objective, if the suite has it.

    Raises:
        ParamsError: one line for each control that is not of INDM's size.
    """
    first, checks = cells(suite), {SAME_COMPUTE: _compute, SAME_PARAMETERS: _parameters}
    mistakes = [
        f"{path}: suite {suite.suite}, run {name}, key train.{mistake}, since variant {variant!r} names that control; or another "
        "variant"
        for (variant, dataset, sde, _, objective), name in first.items()
        if variant in checks and (indm := first.get(("", dataset, sde, "indm", objective)))
        for mistake in checks[variant](suite, name, indm)
    ]
    if mistakes:
        raise ParamsError("\n".join(mistakes))


def _compute(suite: "Suite", name: str, indm: str) -> Iterator[str]:
    steps = suite.train_params(name).steps
    expected = steps * _flops(suite, indm) / _flops(suite, name)
    if abs(steps - expected) > max(FLOPS * expected, 0.5):
        yield f"steps: found {steps}; allowed: {expected:.0f} to within {100 * FLOPS:g} %, for as many FLOPs as run {indm}"


def _parameters(suite: "Suite", name: str, indm: str) -> Iterator[str]:
    channels, expected = suite.train_params(name).score.channels, _count(suite, indm, {})
    found = _count(suite, name, {})
    # The smallest network with more parameters is allowed if no width is closer, because widths are multiples of four.
    narrower = _count(suite, name, {"channels": max(channels - STEP, NARROWEST)})
    if not abs(found - expected) <= PARAMETERS * expected and not narrower < (1 - PARAMETERS) * expected < found:
        yield (
            f"score: found {found} parameters; allowed: {expected} to within {100 * PARAMETERS:g} %, as in run {indm}, or else the "
            "fewest channels with more"
        )


def _flops(suite: "Suite", name: str) -> float:
    """Count the operations of a run's training, as the training itself does."""
    # Imported here, because only suites with such controls need torch, and threads are limited before it is imported.
    set_environment(suite.threads)
    import torch

    from indm.bench.models.begin import begin_training

    train, dataset = suite.train_params(name), DATASETS[suite.runs[name].dataset]
    batch = _small_batch(train)
    small = with_trial(suite, name, 0, {"batch_size": batch, "micro_batches": 1, "precision": "float32"})
    images = torch.randint(dataset.levels, (batch, *dataset.shape), dtype=torch.uint8)
    description = {"levels": dataset.levels, "shape": list(dataset.shape)}
    # The trainers of the last count refer to themselves, so that only the collector frees their memory.
    gc.collect()
    device = torch.device("cpu")
    training = begin_training(small.model_copy(update={"compile": False}), name, images, description, device)
    return training.cumulative_flops(train.steps) * train.batch_size / batch


def _small_batch(train: "TrainParams") -> int:
    """Return the size of a small batch, to which operations are proportional: it has the same share of chosen images."""
    chosen = round(train.log_det_share * train.batch_size)
    whole = train.batch_size // math.gcd(train.batch_size, chosen)
    return max(whole, IMAGES)


def _count(suite: "Suite", name: str, score: dict[str, int]) -> int:
    """Count the parameters of a run's networks, which are built without memory, with other keys of the score network."""
    import torch

    from indm.bench.models.spec import model_spec
    from indm.diffusion.model import build_model

    changed = suite.train_params(name).score.model_dump() | score
    suite = with_trial(suite, name, 0, {"score": changed})
    with torch.device("meta"):
        model = build_model(model_spec(suite, name, list(DATASETS[suite.runs[name].dataset].shape)))
    return sum(values.numel() for values in model.parameters())
