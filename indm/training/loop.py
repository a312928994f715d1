"""The loop over training steps: learning rates, the learning curve, and the point from which a training continues."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from indm.errors import DivergenceError
from indm.seeding import derive_seed
from indm.training.batches import step_batch
from indm.training.distributed import rank
from indm.training.trainer import Trainer


def learning_rate(step: int, steps: int, warmup_steps: int, schedule: str, begin: int = 0) -> float:
    r"""Return the factor of the peak rate: linear warm-up, then constant or :math:`\tfrac12(1+\cos\pi\,\text{progress})`.

    The warm-up starts at step ``begin``, the cosine at step 0.
    """
    warm = min(1.0, (step - begin + 1) / (warmup_steps + 1))
    return warm if schedule == "constant" else warm * 0.5 * (1 + math.cos(math.pi * step / steps))


@dataclass
class History:
    """The progress of a training, from which it can continue with the state of its trainer.

    Arguments:
        done: number of steps done.
        curve: rows of the learning curve, ``step`` and mean losses.
        window: losses of the steps since the last row.
    """

    done: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    window: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """The length of a training, its phases and its batches.

    Arguments:
        schedule: ``constant`` or ``cosine``.
        log_every: number of steps averaged in a row of the learning curve; fewer at the end of a phase, because the next
            phase has other losses.
        flow_warmup_steps: number of first steps, which train only the flow; the learning rate's warm-up starts again after
            them, together with the score.
        fresh_score_after: number of steps after which a new score is trained on the latents of the frozen flow; the two
            parts have separate learning-rate schedules, as two trainings of their lengths would. ``None``: one part.
        log_det_share: share of a batch whose log-determinant enters the gradient; see
            :func:`indm.training.batches.choose`.
    """

    steps: int
    batch_size: int
    warmup_steps: int
    schedule: str
    log_every: int
    random_flip: bool = False
    flow_warmup_steps: int = 0
    fresh_score_after: int | None = None
    log_det_share: float = 1.0

    @property
    def ends(self) -> set[int | None]:
        """The steps after which a phase ends: the flow's warm-up, both networks, the retrained score network."""
        return {self.flow_warmup_steps, self.fresh_score_after, self.steps}

    def learning_rate(self, step: int) -> float:
        """Return the factor of the peak learning rates at a step; see :func:`learning_rate`."""
        first = self.steps if self.fresh_score_after is None else self.fresh_score_after
        if step >= first:
            return learning_rate(step - first, self.steps - first, self.warmup_steps, self.schedule)
        begin = self.flow_warmup_steps if step >= self.flow_warmup_steps else 0
        return learning_rate(step, first, self.warmup_steps, self.schedule, begin)


def train(
    trainer: Trainer,
    images: Tensor,
    levels: int,
    plan: Plan,
    *,
    seed: tuple[str | int, ...],
    device: torch.device,
    history: History | None = None,
    after_step: Callable[[History], None] = lambda history: None,
    progress: Callable[[range], Iterable[int]],
) -> list[dict[str, float]]:
    """Train as planned, or complete an interrupted training.

    Arguments:
        images: training images as levels 0 … L - 1, uint8, shape (N, C, H, W), on the CPU.
        levels: number of levels L.
        seed: identity from which every draw is derived.
        history: the progress of the interrupted process, whose state the trainer has; changed in place.
        after_step: called with the history after each step.
        progress: wraps the loop's range, for a progress bar.

    Returns:
        The learning curve: rows of ``step`` and mean losses, in nats per dimension, each over steps of one phase.

    Raises:
        DataError: if there are fewer images than a batch needs.
        DivergenceError: if a loss has exploded, or a loss or a gradient is not finite; the message names the step.
    """
    history = History() if history is None else history
    for step in progress(range(history.done, plan.steps)):
        if step == plan.fresh_score_after:
            trainer.start_afresh(derive_seed(*seed, "fresh score"))
        draws = step_batch(
            images,
            levels,
            plan.batch_size,
            seed,
            step,
            device,
            random_flip=plan.random_flip,
            centered=trainer.model.centered,
            log_det_share=plan.log_det_share,
        )
        # Dropout draws from the global generator, which every process seeds differently for its images.
        torch.manual_seed(derive_seed(*seed, "dropout", step, *([rank()] if rank() else [])))
        try:
            losses = trainer.step(draws, plan.learning_rate(step), flow_alone=step < plan.flow_warmup_steps)
        except DivergenceError as error:
            raise DivergenceError(f"training stopped at step {step}: {error}") from None
        history.window.append(losses)
        history.done = step + 1
        if history.done % plan.log_every == 0 or history.done in plan.ends:
            history.curve.append({"step": history.done} | _means(history.window))
            history.window = []
        after_step(history)
    return history.curve


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Average each key over the rows, which all have the same keys."""
    return {key: sum(row[key] for row in rows) / len(rows) for key in rows[-1]}
