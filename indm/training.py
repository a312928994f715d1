r"""One training loop for every model: joint steps ("nll") and alternating steps ("fid").

Objective "nll" trains flow and score together on the NELBO. Objective "fid" alternates: (a) the flow on the NELBO with the
score frozen, (b) the score on the variance-weighted loss, on latents re-encoded by the updated flow.

Batches and noise of a step are drawn from a seed derived from the step, not from a running generator: models trained with
one seed see the same images, times and noise, and a resumed run sees what an undisturbed one would.

References:
    | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022)
    | https://arxiv.org/abs/2205.13699, section 5
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from indm.data import dequantise
from indm.diffusion import ImplicitNonlinearDiffusion
from indm.errors import DataError, DivergenceError
from indm.models import ExponentialMovingAverage
from indm.objectives import likelihood_weighted, nelbo, noise_error, variance_weighted
from indm.sde import importance_time, uniform_time
from indm.seeding import derive_seed

BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class Draws:
    """Everything random of one step, drawn in an order that does not depend on the model.

    Arguments:
        x: dequantised images, shape (B, C, H, W).
        u: uniform draws for the times, shape (B,), float64.
        noise: standard normal draws, shape (B, C, H, W).
        generator: source of the flow's own draws.
    """

    x: Tensor
    u: Tensor
    noise: Tensor
    generator: Generator


def draw(
    images: Tensor, levels: int, batch_size: int, seed: tuple[str | int, ...], step: int, device: torch.device
) -> Draws:
    """Draw the batch, the times and the noise of ``step``: a fresh permutation of the images in every epoch.

    Raises:
        DataError: if there are fewer images than a batch needs.
    """
    per_epoch = len(images) // batch_size
    if per_epoch == 0:
        raise DataError(f"found {len(images)} training images, expected at least batch_size {batch_size}: lower it")
    epoch, position = divmod(step, per_epoch)
    order = torch.randperm(len(images), generator=Generator().manual_seed(derive_seed(*seed, "epoch", epoch)))
    index = order[position * batch_size : (position + 1) * batch_size]
    generator = Generator().manual_seed(derive_seed(*seed, "step", step))
    x = dequantise(images[index], levels, generator)
    u = torch.rand(batch_size, generator=generator, dtype=torch.float64)
    noise = torch.randn(x.shape, generator=generator)
    return Draws(x.to(device), u.to(device), noise.to(device), generator)


def learning_rate(step: int, steps: int, warmup_steps: int, schedule: str) -> float:
    r"""Factor of the peak learning rate: linear warm-up, then constant or :math:`\tfrac12(1+\cos\pi\,\text{progress})`."""
    warm = min(1.0, (step + 1) / (warmup_steps + 1))
    return warm if schedule == "constant" else warm * 0.5 * (1 + math.cos(math.pi * step / steps))


class Trainer:
    """State of one training: the model, its optimisers and its averaged weights.

    Arguments:
        model: the model, trained in place.
        objective: ``nll`` or ``fid``.
        lr: peak learning rate of the score network.
        flow_lr: peak learning rate of the flow.
        weight_decay: AdamW's weight decay.
        grad_clip: largest gradient norm, of each network.
        ema_decay: decay of the averaged weights.
    """

    def __init__(
        self,
        model: ImplicitNonlinearDiffusion,
        *,
        objective: str,
        lr: float,
        flow_lr: float,
        weight_decay: float,
        grad_clip: float,
        ema_decay: float,
    ) -> None:
        self.model = model.train()
        self.step_fn = {"nll": self._joint_step, "fid": self._alternating_step}[objective]
        self.grad_clip = grad_clip
        self.has_flow = any(True for _ in model.flow.parameters())
        self.optimisers = {"score": _optimiser(model.noise, lr, weight_decay)}
        if self.has_flow:
            self.optimisers["flow"] = _optimiser(model.flow, flow_lr, weight_decay)
        self.peaks = {"score": lr, "flow": flow_lr}
        self.ema = ExponentialMovingAverage(model, ema_decay)

    def step(self, draws: Draws, lr_factor: float) -> dict[str, float]:
        """Take one optimiser step and return its losses, in nats per dimension.

        ``flow_loss`` is the loss whose gradient the flow follows; its value is no likelihood, because the Neumann
        estimator's value is not the log-determinant.
        """
        for name, optimiser in self.optimisers.items():
            optimiser.param_groups[0]["lr"] = self.peaks[name] * lr_factor
        losses = self.step_fn(draws)
        self.ema.update(self.model)
        return losses

    def averaged(self) -> ImplicitNonlinearDiffusion:
        """Return the model with averaged weights, in eval mode, its spectral norms refreshed."""
        self.ema.module.flow.update_norms()
        return self.ema.module

    def _joint_step(self, draws: Draws) -> dict[str, float]:
        loss, score_loss = self._nelbo(draws)
        self._descend(loss, "score", *(["flow"] if self.has_flow else []))
        return {"score_loss": score_loss, "flow_loss": loss.item()}

    def _alternating_step(self, draws: Draws) -> dict[str, float]:
        losses = {}
        if self.has_flow:
            # The score is frozen, not detached: the flow's gradient passes through it.
            self.model.noise.requires_grad_(False)
            loss, _ = self._nelbo(draws)
            self.model.noise.requires_grad_(True)
            self._descend(loss, "flow")
            losses["flow_loss"] = loss.item()
        with torch.no_grad():
            z0, _ = self.model.flow(draws.x, "none")
        t = uniform_time(draws.u, self.model.eps)
        error = noise_error(self.model.noise, self.model.sde, z0, t, draws.noise)
        loss = variance_weighted(error).mean() / z0[0].numel()
        self._descend(loss, "score")
        return {"score_loss": loss.item()} | losses

    def _nelbo(self, draws: Draws) -> tuple[Tensor, float]:
        model = self.model
        z0, log_det = model.flow(draws.x, "train", draws.generator)
        t, z = importance_time(model.sde, draws.u, model.eps)
        error = noise_error(model.noise, model.sde, z0, t, draws.noise)
        bound = nelbo(model.sde, z0, log_det, error, z, model.eps).mean()
        return bound / z0[0].numel(), likelihood_weighted(error, z).mean().item() / z0[0].numel()

    def _descend(self, loss: Tensor, *parts: str) -> None:
        """Follow the gradient of ``loss`` with the optimisers of ``parts``.

        Raises:
            DivergenceError: if the loss or a gradient is not finite; nothing has been changed then.
        """
        modules: dict[str, nn.Module] = {"score": self.model.noise, "flow": self.model.flow}
        for part in parts:
            self.optimisers[part].zero_grad(set_to_none=True)
        loss.backward()
        for part in parts:
            norm = nn.utils.clip_grad_norm_(modules[part].parameters(), self.grad_clip, foreach=True)
            if not (torch.isfinite(loss) and torch.isfinite(norm)):
                raise DivergenceError(
                    f"loss {loss.item()}, gradient norm {norm.item()} of the {part}: lower lr or flow_lr"
                )
        for part in parts:
            self.optimisers[part].step()
        if "flow" in parts:
            self.model.flow.update_norms()


def train(
    trainer: Trainer,
    images: Tensor,
    levels: int,
    *,
    steps: int,
    batch_size: int,
    warmup_steps: int,
    schedule: str,
    log_every: int,
    seed: tuple[str | int, ...],
    device: torch.device,
    progress: Callable[[range], Iterable[int]],
) -> list[dict[str, float]]:
    """Train for ``steps`` steps.

    Arguments:
        trainer: the state, changed in place.
        images: training images as levels, uint8, shape (N, C, H, W).
        levels: number of levels.
        steps: number of optimiser steps.
        batch_size: images in a batch.
        warmup_steps: steps of linear warm-up.
        schedule: ``constant`` or ``cosine``.
        log_every: steps averaged in a row of the learning curve.
        seed: identity from which every draw is derived.
        device: where to compute.
        progress: wraps the loop's range, for a progress bar.

    Returns:
        The learning curve: rows of ``step`` and mean losses.

    Raises:
        DivergenceError: if a loss or a gradient is not finite; the message names the step.
    """
    curve: list[dict[str, float]] = []
    window: list[dict[str, float]] = []
    for step in progress(range(steps)):
        draws = draw(images, levels, batch_size, seed, step, device)
        # Dropout draws from the global generator.
        torch.manual_seed(derive_seed(*seed, "dropout", step))
        try:
            window.append(trainer.step(draws, learning_rate(step, steps, warmup_steps, schedule)))
        except DivergenceError as error:
            raise DivergenceError(f"training stopped at step {step}: {error}") from None
        if (step + 1) % log_every == 0 or step + 1 == steps:
            curve.append({"step": step + 1} | {key: sum(row[key] for row in window) / len(window) for key in window[0]})
            window = []
    return curve


def _optimiser(module: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(parameters, lr=lr, betas=BETAS, weight_decay=weight_decay, fused=True)
