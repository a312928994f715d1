"""A run's training, ready for its first step: its model, its plan, its draws and its operations."""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from indm.data.levels import moments
from indm.seeding import derive_seed
from indm.training.batches import Batch, step_batch
from indm.training.distributed import sum_over_processes
from indm.training.flops import cumulative_flops, step_flops
from indm.training.loop import History, Plan, train
from indm.training.spec import STANDARD, build_plan, build_trainer
from indm.training.trainer import Trainer

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite

# Of a training: both networks, before them the flow alone, after them a new score alone.
PHASES = ("train", "flow_warmup", "fresh_score")


@dataclass(frozen=True)
class Training:
    """A run's training.

    Arguments:
        trainer: its state.
        plan: how long, and on what batches.
        images: training images as levels, uint8, shape (N, C, H, W).
        levels: number of levels.
        seed: identity from which every draw is derived.
        device: where to compute.
        phases: of each, by its name in :data:`PHASES`, its first step, and the operations of a step, of all processes together.
    """

    trainer: Trainer
    plan: Plan
    images: Tensor
    levels: int
    seed: tuple[str | int, ...]
    device: torch.device
    phases: Mapping[str, tuple[int, int]]

    def cumulative_flops(self, step: int) -> int:
        """Add up the operations of all steps up to one."""
        return cumulative_flops(step, sorted(self.phases.values()))

    def train(
        self,
        history: History,
        after_step: Callable[[History], None],
        progress: Callable[[range], Iterable[int]],
    ) -> list[dict[str, float]]:
        """Do what is left of it, and return the learning curve; see :func:`indm.training.loop.train`."""
        return train(
            self.trainer,
            self.images,
            self.levels,
            self.plan,
            seed=self.seed,
            device=self.device,
            history=history,
            after_step=after_step,
            progress=progress,
        )


def begin_training(
    suite: "Suite", name: str, images: Tensor, description: Mapping[str, Any], device: torch.device
) -> Training:
    """Draw the weights of a run, and count the operations of its steps.

    Arguments:
        suite: the suite.
        name: the run.
        images: training images as levels, uint8, shape (N, C, H, W).
        description: what ``dataset.json`` says of them.
        device: where to compute.
    """
    run, parameters = suite.runs[name], suite.train_params(name)
    levels = description["levels"]
    data_moments = moments(images, levels, parameters.centered) if parameters.latent.standardise else STANDARD
    # Without the model in it: DDPM++ and INDM of one seed see the same batches, times and noise.
    seed = (run.dataset, run.seed, "train")
    torch.manual_seed(derive_seed(*seed, "initialisation"))
    trainer, plan = build_trainer(suite, name, description["shape"], device, data_moments), build_plan(parameters)
    begin = partial(step_batch, images, levels, plan.batch_size, seed, 0, device, centered=parameters.centered)
    phases = _phases(trainer, plan, begin)
    if suite.compile:
        # Only now, as compiled products are not counted; in its place, so checkpoints have the module's own names.
        trainer.model.noise.compile()
    return Training(trainer, plan, images, levels, seed, device, phases)


def _phases(trainer: Trainer, plan: Plan, begin: Callable[[], Batch]) -> dict[str, tuple[int, int]]:
    """Say of each phase of a training its first step and the operations of one of its steps."""
    phases = {"train": (plan.flow_warmup_steps, _flops(trainer, begin()))}
    if plan.flow_warmup_steps:
        phases["flow_warmup"] = 0, _flops(trainer, begin(), flow_alone=True)
    if plan.fresh_score_after is not None:
        frozen = deepcopy(trainer)
        frozen.freeze_flow()
        phases["fresh_score"] = plan.fresh_score_after, _flops(frozen, begin())
    return phases


def _flops(trainer: Trainer, draws: Batch, *, flow_alone: bool = False) -> int:
    """Count the operations of a step, of all processes together."""
    count = torch.tensor(
        step_flops(trainer, draws, flow_alone=flow_alone), device=next(trainer.model.parameters()).device
    )
    return int(sum_over_processes(count).item())
