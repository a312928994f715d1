"""Likelihoods of images as levels, in bits per dimension, a batch at a time."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Generator, Tensor

from indm.data.levels import bits_per_dim, dequantise
from indm.diffusion.likelihood import four_numbers, nelbo_alone
from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.errors import DataError, DivergenceError
from indm.flows.base import LogDet
from indm.flows.log_det import Series
from indm.progress import bar
from indm.seeding import derive_seed
from indm.store.scratch import Once


def first_images(images: Tensor, count: int | None, key: str) -> Tensor:
    """Take the first ``count`` images of a split (N, C, H, W), or all of them.

    Raises:
        DataError: if there are fewer; the message names the ``key`` in the suite.
    """
    if count is not None and count > len(images):
        raise DataError(f"key {key}: found {count}; allowed: at most {len(images)}, the number of images in the split")
    return images[:count]


@dataclass(frozen=True)
class Evaluation:
    """Settings for the evaluation of likelihoods.

    Arguments:
        batch_size: images in a batch.
        time_draws: number of stratified times at which the bound of each image is evaluated.
        tolerance: tolerance of the adaptive ODE; ``None`` for fixed steps.
        ode_steps: number of fixed steps of fifth order; ``None`` for adaptive steps.
        log_det_tolerance: bound on the truncation error of each image's log-determinant series, in bits/dim; ``None`` for
            exact log-determinants.
        uncorrected: whether to evaluate ``nll_uncorrected`` too.
    """

    batch_size: int
    time_draws: int
    tolerance: float | None
    ode_steps: int | None
    log_det_tolerance: float | None
    uncorrected: bool

    @property
    def estimator(self) -> LogDet:
        """The flow's method for the log-determinant."""
        if self.log_det_tolerance is None:
            return "exact"
        return Series(self.log_det_tolerance * math.log(2))

    def log_det_bound(self, has_flow: bool) -> float:
        """Bound each image's error from the truncated log-determinant, in bits/dim: 0 for a closed form."""
        return (self.log_det_tolerance or 0.0) if has_flow else 0.0


def likelihoods(
    model: ImplicitNonlinearDiffusion, images: Tensor, levels: int, evaluation: Evaluation, **settings: Any
) -> pd.DataFrame:
    """Evaluate the four numbers and the gap for images as levels (N, C, H, W), in bits/dim, one row per image.

    See :func:`likelihood_batches` for the arguments.
    """
    batches = likelihood_batches(model, images, levels, evaluation, **settings)
    table = pd.concat(
        [pd.DataFrame({key: value.numpy() for key, value in batch.items()}) for batch in batches], ignore_index=True
    )
    table["gap"] = table["nelbo"] - table["nll"]
    return table


def likelihood_batches(
    model: ImplicitNonlinearDiffusion,
    images: Tensor,
    levels: int,
    evaluation: Evaluation,
    *,
    seed: tuple[str, int],
    device: torch.device,
    description: str,
    once: Once,
    share: slice = slice(None),
) -> list[dict[str, Tensor]]:
    """Evaluate the four numbers for batches of B images as levels (N, C, H, W), in bits/dim, shape (B,) each, on the CPU.

    Arguments:
        model: the model.
        images: levels, uint8, shape (N, C, H, W).
        levels: number of levels.
        evaluation: the settings.
        seed: dataset and seed of the run. It contains neither the model nor the training step, so that all models with
            one seed are evaluated on the same dequantised images and noise.
        device: where to compute.
        description: label of the progress bar.
        once: computes the batch of a name (its first image), or returns the result of an earlier execution.
        share: the batches to evaluate.

    Raises:
        DivergenceError: if a number is not finite.
    """
    batches = []
    for start in bar(description)(range(0, len(images), evaluation.batch_size)[share]):
        generator = Generator().manual_seed(derive_seed(*seed, "nll", start))
        batch = images[start : start + evaluation.batch_size]
        evaluate = partial(_evaluate, model, batch, levels, evaluation, generator, device)
        batches.append(once(str(start), evaluate))
    return batches


def bounds(
    model: ImplicitNonlinearDiffusion,
    images: Tensor,
    levels: int,
    evaluation: Evaluation,
    *,
    seed: tuple[str, int],
    device: torch.device,
) -> Tensor:
    """Evaluate the NELBO of images as levels (N, C, H, W) without an ODE, in bits/dim, shape (N,), float64, on the CPU.

    See :func:`likelihoods` for the arguments; models with one seed are evaluated on the same dequantised images and noise.

    Raises:
        DivergenceError: if a number is not finite.
    """
    found = []
    for start in range(0, len(images), evaluation.batch_size):
        generator = Generator().manual_seed(derive_seed(*seed, "bounds", start))
        batch = images[start : start + evaluation.batch_size]
        nats = nelbo_alone(
            model.noise,
            model.path,
            partial(model.flow, log_det=evaluation.estimator, generator=_beside(generator)),
            dequantise(batch, levels, generator, model.centered).to(device),
            eps=model.eps,
            time_draws=evaluation.time_draws,
            generator=generator,
        )
        found.append(bits_per_dim(nats, batch[0].numel(), levels, model.centered))
    values = torch.cat(found)
    if not values.isfinite().all():
        raise DivergenceError(
            "found a bound that is not finite, expected finite ones; train with a lower lr or flow_lr"
        )
    return values


def _beside(generator: Generator) -> Generator:
    """Make a separate generator for a flow's draws, so that the noise of a batch is the same with every flow."""
    return Generator().manual_seed(derive_seed(generator.initial_seed(), "flow"))


def _evaluate(
    model: ImplicitNonlinearDiffusion,
    batch: Tensor,
    levels: int,
    evaluation: Evaluation,
    generator: Generator,
    device: torch.device,
) -> dict[str, Tensor]:
    """Evaluate the four numbers for a batch of images as levels (B, C, H, W), in bits/dim, shape (B,) each, on the CPU."""
    nats = four_numbers(
        model.noise,
        model.path,
        partial(model.flow, log_det=evaluation.estimator, generator=_beside(generator)),
        dequantise(batch, levels, generator, model.centered).to(device),
        eps=model.eps,
        time_draws=evaluation.time_draws,
        tolerance=evaluation.tolerance,
        ode_steps=evaluation.ode_steps or 1,
        uncorrected=evaluation.uncorrected,
        generator=generator,
    )
    dims = batch[0].numel()
    numbers = {key: bits_per_dim(value, dims, levels, model.centered) for key, value in nats.items()}
    # Only a path without an ODE has no NLL.
    if not all(value.isfinite().all() for key, value in numbers.items() if key != "nll" or model.path.has_ode):
        raise DivergenceError(
            "found a likelihood that is not finite, expected finite ones; raise ode_steps, set tolerance instead of ode_steps, "
            "or train with a lower lr or flow_lr"
        )
    return numbers
