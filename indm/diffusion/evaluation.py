"""Likelihoods of images as levels, in bits per dimension, a batch at a time."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from torch import Generator, Tensor

from indm.arrays import read_array
from indm.data.levels import bits_per_dim, dequantise_by
from indm.diffusion.draws import Draws, beside, of_images, uniform
from indm.diffusion.likelihood import GaussianControl, four_numbers, nelbo_alone
from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.errors import DataError, DivergenceError
from indm.flows.base import LogDet
from indm.flows.log_det import Series
from indm.progress import bar
from indm.seeding import derive_seed
from indm.store.scratch import Once

# Training images, the first ones, from whose latents a control variate takes its moments, and how many are mapped at once.
# A few images suffice, because the control variate is unbiased for any moments.
CONTROL_IMAGES, CONTROL_BATCH = 1000, 100


def split_images(data: Path, split: str) -> Tensor:
    """Read the images of a split of a prepared dataset as levels, uint8, shape (N, C, H, W)."""
    return torch.from_numpy(read_array(data / f"{split}.npy"))


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
        draws: ``batch``: one generator draws for all images of a batch, from which the control variate takes its moments too;
            ``image``: each image has its own, and the moments are of training images, so that numbers do not depend on the
            batch size.
        control: the basis of the control variate: ``pixels``, or ``cosine`` for draws by image.
        ode_images: images, the first ones, whose ODE is solved; ``None`` for all of them.
    """

    batch_size: int
    time_draws: int
    tolerance: float | None
    ode_steps: int | None
    log_det_tolerance: float | None
    uncorrected: bool
    draws: Literal["batch", "image"] = "batch"
    control: Literal["pixels", "cosine"] = "pixels"
    ode_images: int | None = None

    def draws_of(self, start: int, count: int, *identity: str | int) -> Draws:
        """Return the draws of a batch of images, by the number of the first one."""
        if self.draws == "image":
            return of_images(range(start, start + count), *identity)
        return Generator().manual_seed(derive_seed(*identity, start))

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
    training: Callable[[], Tensor] | None = None,
) -> list[dict[str, Tensor]]:
    """Evaluate the four numbers for images as levels, in batches of B images.

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
        training: returns the training images as levels (M, C, H, W), from which the control variate of draws by image takes
            its moments; by default, they are the images that are evaluated.

    Returns:
        For each batch, the numbers by their names, each in bits/dim, shape (B,), float64, on the CPU.

    Raises:
        DivergenceError: if a number is not finite.
        ConvergenceError: if the adaptive steps of the ODE, or the series of a log-determinant, do not converge.
    """
    # Batches that an earlier execution has evaluated do not need it.
    control = cache(lambda: _control(model, training or (lambda: images), levels, evaluation, device))
    batches = []
    for start in bar(description)(range(0, len(images), evaluation.batch_size)[share]):
        batch = images[start : start + evaluation.batch_size]
        evaluate = partial(_evaluate, model, batch, levels, evaluation, start, seed, device, control)
        batches.append(once(str(start), evaluate))
    return batches


@torch.no_grad()
def _control(
    model: ImplicitNonlinearDiffusion,
    training: Callable[[], Tensor],
    levels: int,
    evaluation: Evaluation,
    device: torch.device,
) -> GaussianControl | None:
    """Fit the control variate to training images, which draws by batch do not read: their control is fitted to each batch."""
    return None if evaluation.draws == "batch" else control_of(model, training(), levels, evaluation, device)


def control_of(
    model: ImplicitNonlinearDiffusion, images: Tensor, levels: int, evaluation: Evaluation, device: torch.device
) -> GaussianControl:
    """Fit the control variate to the latents of the first :data:`CONTROL_IMAGES` images, as levels (N, C, H, W), uint8."""
    latents = []
    for start in range(0, len(images[:CONTROL_IMAGES]), CONTROL_BATCH):
        batch = images[start : min(start + CONTROL_BATCH, CONTROL_IMAGES)]
        draws = evaluation.draws_of(start, len(batch), "control")
        x = dequantised(batch, levels, draws, model.centered, device)
        latents.append(model.flow(x, "none", beside(draws))[0])
    return GaussianControl.fitted(model.sde, torch.cat(latents), cosine=evaluation.control == "cosine")


def dequantised(batch: Tensor, levels: int, draws: Draws, centered: bool, device: torch.device) -> Tensor:
    """Dequantise levels (B, C, H, W) to model space, the same shape, float32; see :func:`indm.data.levels.dequantise`."""
    return dequantise_by(batch, uniform(draws, batch.shape, torch.float32), levels, centered).to(device)


def bounds(
    model: ImplicitNonlinearDiffusion,
    images: Tensor,
    levels: int,
    evaluation: Evaluation,
    *,
    seed: tuple[str, int],
    device: torch.device,
    training: Callable[[], Tensor] | None = None,
) -> Tensor:
    """Evaluate the NELBO of images as levels (N, C, H, W) without an ODE, in bits/dim, shape (N,), float64, on the CPU.

    See :func:`likelihood_batches` for the arguments; models with one seed are evaluated on the same dequantised images and noise.

    Raises:
        DivergenceError: if a number is not finite.
        ConvergenceError: if the series of a log-determinant does not converge.
    """
    control = _control(model, training or (lambda: images), levels, evaluation, device)
    found = []
    for start in range(0, len(images), evaluation.batch_size):
        batch = images[start : start + evaluation.batch_size]
        draws = evaluation.draws_of(start, len(batch), *seed, "bounds")
        nats = nelbo_alone(
            model.noise,
            model.path,
            partial(model.flow, log_det=evaluation.estimator, generator=beside(draws)),
            dequantised(batch, levels, draws, model.centered, device),
            eps=model.eps,
            time_draws=evaluation.time_draws,
            generator=draws,
            control=control,
        )
        found.append(bits_per_dim(nats, batch[0].numel(), levels, model.centered))
    values = torch.cat(found)
    if not values.isfinite().all():
        raise DivergenceError(
            "found a bound that is not finite, expected finite ones; train with a lower lr or flow_lr"
        )
    return values


def _evaluate(
    model: ImplicitNonlinearDiffusion,
    batch: Tensor,
    levels: int,
    evaluation: Evaluation,
    start: int,
    seed: tuple[str, int],
    device: torch.device,
    control: Callable[[], GaussianControl | None],
) -> dict[str, Tensor]:
    """Evaluate the four numbers for a batch of images as levels (B, C, H, W), in bits/dim, shape (B,) each, on the CPU.

    ``start`` is the number of the first image.
    """
    draws = evaluation.draws_of(start, len(batch), *seed, "nll")
    rest = None if evaluation.ode_images is None else max(0, evaluation.ode_images - start)
    nats = four_numbers(
        model.noise,
        model.path,
        partial(model.flow, log_det=evaluation.estimator, generator=beside(draws)),
        dequantised(batch, levels, draws, model.centered, device),
        eps=model.eps,
        time_draws=evaluation.time_draws,
        tolerance=evaluation.tolerance,
        ode_steps=evaluation.ode_steps or 1,
        uncorrected=evaluation.uncorrected,
        generator=draws,
        control=control(),
        ode_images=rest,
    )
    dims = batch[0].numel()
    numbers = {key: bits_per_dim(value, dims, levels, model.centered) for key, value in nats.items()}
    solved = len(batch) if model.path.has_ode else 0
    solved = solved if rest is None else min(solved, rest)
    expected = {key: value[:solved] if key.startswith("nll") else value for key, value in numbers.items()}
    if not all(value.isfinite().all() for value in expected.values()):
        raise DivergenceError(
            "found a likelihood that is not finite, expected finite ones; raise ode_steps, set tolerance instead of ode_steps, "
            "or train with a lower lr or flow_lr"
        )
    return numbers
