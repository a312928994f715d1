"""A run's training before its first step: its model, its plan, its draws and its operations."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from indm.bench.models.spec import STANDARD, build_plan, build_trainer
from indm.data.levels import dequantise, moments
from indm.flows.block import ResidualBlock
from indm.seeding import derive_seed
from indm.training.batches import Batch, step_batch
from indm.training.distributed import sum_over_processes
from indm.training.loop import Plan, train
from indm.training.trainer import Trainer

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite

# Images that a fixed map sees at once.
FITTED = 1000
# Phases of a training: both networks; before that, only the flow; after that, only a new score.
PHASES = ("train", "flow_warmup", "fresh_score")


@dataclass(frozen=True)
class Training:
    """A run's training.

    Arguments:
        trainer: its state.
        train: :func:`indm.training.loop.train`, which only needs ``history``, ``after_step`` and ``progress``.
        phases: first step and operations per step, over all processes, of each phase by its name in :data:`PHASES`.
    """

    trainer: Trainer
    train: Callable[..., list[dict[str, float]]]
    phases: Mapping[str, tuple[int, int]]

    def cumulative_flops(self, step: int) -> int:
        """Add up the operations of the first ``step`` steps."""
        return cumulative_flops(step, sorted(self.phases.values()))


def begin_training(
    suite: "Suite", name: str, images: Tensor, description: Mapping[str, Any], device: torch.device
) -> Training:
    """Initialise the weights of a run, and count the operations of its steps.

    Arguments:
        images: training images as levels, uint8, shape (N, C, H, W), on the CPU.
        description: the content of ``dataset.json``.

    Raises:
        DataError: if there are fewer images than a batch needs.
    """
    run, parameters = suite.runs[name], suite.train_params(name)
    levels = description["levels"]
    data_moments = moments(images, levels, parameters.centered) if parameters.latent.standardise else STANDARD
    # It does not contain the model, so that DDPM++ and INDM with one seed see the same batches, times and noise.
    seed = (run.dataset, run.seed, "train")
    torch.manual_seed(derive_seed(*seed, "initialisation"))
    # Nor does it contain the run's seed: a fixed map is the same in all runs of a dataset.
    fitted = partial(dequantised, images, levels, parameters.centered, derive_seed(run.dataset, "fixed map"), device)
    trainer = build_trainer(suite, name, description["shape"], device, data_moments, fitted)
    plan = build_plan(parameters)
    first = partial(step_batch, images, levels, plan.batch_size, seed, 0, device)
    begin = partial(first, centered=parameters.centered, log_det_share=plan.log_det_share)
    phases = _phases(trainer, plan, begin)
    if suite.compile:
        # After the count, because compiled matmuls are not counted; in place, so that names in checkpoints do not change.
        trainer.model.noise.compile()
    return Training(trainer, partial(train, trainer, images, levels, plan, seed=seed, device=device), phases)


def dequantised(images: Tensor, levels: int, centered: bool, seed: int, device: torch.device) -> Iterator[Tensor]:
    """Dequantise images in batches, with the noise of the seed; see :func:`~indm.data.levels.dequantise`.

    Arguments:
        images: levels, uint8, shape (N, C, H, W), on the CPU.

    Yields:
        Images in model space, [-1, 1] or [0, 1], float32, shape (n, C, H, W), on the device; n is at most ``FITTED``.
    """
    generator = torch.Generator().manual_seed(seed)
    for batch in images.split(FITTED):
        yield dequantise(batch, levels, generator, centered).to(device)


def _phases(trainer: Trainer, plan: Plan, begin: Callable[[], Batch]) -> dict[str, tuple[int, int]]:
    """Return the first step and the operations per step of each phase of a training."""
    phases = {"train": (plan.flow_warmup_steps, _flops(trainer, begin()))}
    if plan.flow_warmup_steps:
        phases["flow_warmup"] = 0, _flops(trainer, begin(), flow_alone=True)
    if plan.fresh_score_after is not None:
        frozen = deepcopy(trainer)
        frozen.freeze_flow()
        phases["fresh_score"] = plan.fresh_score_after, _flops(frozen, begin())
    return phases


def _flops(trainer: Trainer, draws: Batch, *, flow_alone: bool = False) -> int:
    """Count the operations of a step over all processes."""
    count = torch.tensor(
        step_flops(trainer, draws, flow_alone=flow_alone), device=next(trainer.model.parameters()).device
    )
    return int(sum_over_processes(count).item())


def step_flops(trainer: Trainer, draws: Batch, *, flow_alone: bool = False) -> int:
    r"""Count the expected floating-point operations of one training step in this process, forward and backward.

    Only matmuls and convolutions count, with a multiplication and an addition as two operations; attention counts as its
    matmuls on every device. The number n of terms in a flow's series is random, but the operations F are affine in it, so

    .. math:: E[F(n)] = F(E[n]) = F(m) + (E[n] - m) (F(m + 1) - F(m)), \qquad m = \lfloor E[n] \rfloor

    Arguments:
        trainer: the trainer, which does not change because a copy takes the step.
        draws: the input of the step, whose values do not affect the count.
        flow_alone: see :meth:`Trainer.step`.
    """
    mean = trainer.model.flow.mean_terms
    terms = math.floor(mean)
    count = _count(trainer, draws, terms, flow_alone)
    if mean == terms:
        return count
    return round(count + (mean - terms) * (_count(trainer, draws, terms + 1, flow_alone) - count))


def _count(trainer: Trainer, draws: Batch, terms: int, flow_alone: bool) -> int:
    """Count the operations of a step with ``terms`` terms in each series of the flow."""
    trainer = deepcopy(trainer)
    trainer.model.flow.fix_terms(terms)
    for module in trainer.model.flow.modules():
        if isinstance(module, ResidualBlock):
            # Products that large batches compute again count for small ones too, so that a count for two images holds.
            module.kept_elements = 0
    with sdpa_kernel(SDPBackend.MATH), _FlopCounter() as counter:
        trainer.step(draws, 0.0, flow_alone=flow_alone)
    return counter.total


class _FlopCounter(TorchDispatchMode):
    """Adds up operations by torch's formulas; torch's FlopCounterMode fails on a gradient taken within the flow."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func.overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def cumulative_flops(step: int, phases: Sequence[tuple[int, int]]) -> int:
    """Add up the operations of the first ``step`` steps; ``phases`` has the first step and operations per step of each."""
    ends = [*(begin for begin, _ in phases[1:]), step]
    return sum(flops * max(0, min(step, end) - begin) for (begin, flops), end in zip(phases, ends, strict=True))
