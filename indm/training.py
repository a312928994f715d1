r"""One training loop for every model: joint steps ("nll") and alternating steps ("fid").

Objective "nll" trains flow and score together on the NELBO. Objective "fid" alternates: (a) the flow on the NELBO with the
score frozen, (b) the score on the variance-weighted loss, on latents re-encoded by the updated flow. Either may be preceded by
steps that train the flow alone, as a normalizing flow with a standard normal latent.

Batches and noise of a step are drawn from a seed derived from the step, not from a running generator: models trained with
one seed see the same images, times and noise, and a resumed run sees what an undisturbed one would. Of several processes
(:mod:`indm.distributed`), each draws all of it and takes its part, so that together they do what one process does.

References:
    | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022)
    | https://arxiv.org/abs/2205.13699, section 5
"""

import math
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from indm.data import dequantise
from indm.diffusion import ImplicitNonlinearDiffusion
from indm.distributed import add_up, add_up_gradients, processes, rank, synchronise_batch_norms
from indm.errors import DataError, DivergenceError
from indm.flows.log_det import Part, draw_probe
from indm.models import ExponentialMovingAverage
from indm.objectives import gaussian_nll, likelihood_weighted, nelbo, noise_error, residual, variance_weighted
from indm.sde import importance_time, soft_truncation_time, uniform_time
from indm.seeding import derive_seed

BETAS = (0.9, 0.99)
# Nats per dimension. Untrained models have some ten, and the uniform density of 256 levels 5.5.
EXPLODED = 1e3


@dataclass(frozen=True)
class Draws:
    """Everything random of one step, drawn in an order that does not depend on the model.

    Arguments:
        x: dequantised images, shape (B, C, H, W).
        u: uniform draws for the times, shape (B,), float64.
        noise: standard normal draws, shape (B, C, H, W).
        truncation: uniform draw for the truncation time of the batch.
        generator: source of the flow's own draws.
    """

    x: Tensor
    u: Tensor
    noise: Tensor
    truncation: float
    generator: Generator | Part

    def split(self, parts: int) -> list["Draws"]:
        """Split the batch into micro-batches of nearly equal size."""
        chunks = zip(*(value.tensor_split(parts) for value in (self.x, self.u, self.noise)), strict=True)
        return [Draws(x, u, noise, self.truncation, self.generator) for x, u, noise in chunks]

    def part(self, number: int, parts: int) -> "Draws":
        """Return what one of several processes takes of the batch: all of it, if it is the only one."""
        if parts == 1:
            return self
        samples = slice(len(self.x) * number // parts, len(self.x) * (number + 1) // parts)
        generator = Part(self.generator, samples, len(self.x))
        return Draws(self.x[samples], self.u[samples], self.noise[samples], self.truncation, generator)


def draw(
    images: Tensor,
    levels: int,
    batch_size: int,
    seed: tuple[str | int, ...],
    step: int,
    device: torch.device,
    random_flip: bool = False,
    centered: bool = True,
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
    x = dequantise(images[index], levels, generator, centered)
    u = torch.rand(batch_size, generator=generator, dtype=torch.float64)
    noise = torch.randn(x.shape, generator=generator)
    truncation = torch.rand((), generator=generator, dtype=torch.float64).item()
    if random_flip:
        flipped = torch.rand(batch_size, generator=generator) < 0.5
        x = torch.where(flipped[:, None, None, None], x.flip(-1), x)
    return Draws(x.to(device), u.to(device), noise.to(device), truncation, generator)


def learning_rate(step: int, steps: int, warmup_steps: int, schedule: str, begin: int = 0) -> float:
    r"""Factor of the peak learning rate: linear warm-up, then constant or :math:`\tfrac12(1+\cos\pi\,\text{progress})`.

    The warm-up starts at step ``begin``, the cosine at step 0.
    """
    warm = min(1.0, (step - begin + 1) / (warmup_steps + 1))
    return warm if schedule == "constant" else warm * 0.5 * (1 + math.cos(math.pi * step / steps))


@dataclass
class History:
    """How far a training has come; with the state of its trainer, it goes on from there.

    Arguments:
        done: steps done.
        curve: rows of the learning curve, ``step`` and mean losses.
        window: losses of the steps since the last row.
    """

    done: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    window: list[dict[str, float]] = field(default_factory=list)


class Trainer:
    """State of one training: the model, its optimisers and its averaged weights.

    Arguments:
        model: the model, trained in place.
        objective: ``nll`` or ``fid``.
        lr: peak learning rate of the score network.
        flow_lr: peak learning rate of the flow.
        weight_decay: AdamW's weight decay.
        grad_clip: largest gradient norm, of each network.
        ema_decay: decay of the score network's averaged weights.
        flow_ema_decay: decay of the flow's averaged weights.
        alternate: objective "fid" updates flow and score in turn. Under VE, where variance weighting is likelihood
            weighting up to a constant, they can be updated jointly instead, as the released code does.
        micro_batches: parts of a batch whose gradients are averaged; several processes share each of them.
        precision: ``float32`` or ``bfloat16``, of the score network's products; the flow, the times and the losses keep
            theirs: its log-determinant is a sum of products with its Jacobian, and its inverse is that of float32.
        soft_truncation: exponent k of the score's random truncation time, or ``None``.
        reconstruction: add the residual at eps to the NELBO.
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
        flow_ema_decay: float,
        alternate: bool = True,
        micro_batches: int = 1,
        precision: str = "float32",
        soft_truncation: float | None = None,
        reconstruction: bool = False,
    ) -> None:
        self.model = model.train()
        synchronise_batch_norms(model)
        alternating = objective == "fid" and alternate
        self.step_fn = self._alternating_step if alternating else self._joint_step
        self.grad_clip = grad_clip
        self.micro_batches = micro_batches
        self.precision = precision
        self.soft_truncation = soft_truncation
        self.reconstruction = reconstruction
        self.modules: dict[str, nn.Module] = {"score": model.noise}
        if any(True for _ in model.flow.parameters()):
            self.modules["flow"] = model.flow
        self.peaks = {"score": lr, "flow": flow_lr}
        decays = {"score": ema_decay, "flow": flow_ema_decay}
        self.optimisers = {
            part: _optimiser(module, self.peaks[part], weight_decay) for part, module in self.modules.items()
        }
        self.averages = {part: ExponentialMovingAverage(module, decays[part]) for part, module in self.modules.items()}

    def step(self, draws: Draws, lr_factor: float, *, flow_alone: bool = False) -> dict[str, float]:
        """Take one optimiser step and return its losses, in nats per dimension.

        ``flow_loss`` is the loss whose gradient the flow follows; its value is no likelihood, because the Neumann
        estimator's value is not the log-determinant.

        Arguments:
            draws: everything random of the step.
            lr_factor: factor of the peak learning rates.
            flow_alone: train the flow as a normalizing flow with a standard normal latent, and leave the score as it is.
        """
        for part, optimiser in self.optimisers.items():
            optimiser.param_groups[0]["lr"] = self.peaks[part] * lr_factor
        step_fn, parts = (self._flow_step, ["flow"]) if flow_alone else (self.step_fn, list(self.modules))
        losses = step_fn(draws.split(self.micro_batches))
        for part in parts:
            self.averages[part].update(self.modules[part])
        return losses

    def averaged(self) -> ImplicitNonlinearDiffusion:
        """Return a model with averaged weights, in eval mode, its spectral norms refreshed."""
        model = ImplicitNonlinearDiffusion(self.model.spec)
        model.noise.load_state_dict(self.averages["score"].module.state_dict())
        if "flow" in self.averages:
            model.flow.load_state_dict(self.averages["flow"].module.state_dict())
            model.flow.update_norms()
        return model.eval().requires_grad_(False)

    def optimiser_state(self) -> dict[str, Tensor]:
        """Return the tensors of the optimisers' states, named ``part.parameter.key``."""
        return {
            f"{part}.{index}.{key}": value
            for part, optimiser in self.optimisers.items()
            for index, state in optimiser.state_dict()["state"].items()
            for key, value in state.items()
        }

    def state(self) -> dict[str, Tensor]:
        """Return all that :meth:`step` changes: raw and averaged weights with their buffers, and the optimisers' states."""
        state = {f"raw.{key}": value for key, value in self.model.state_dict().items()}
        state |= {f"optimiser.{key}": value for key, value in self.optimiser_state().items()}
        for part, average in self.averages.items():
            state[f"updates.{part}"] = torch.tensor(average.updates)
            state |= {f"average.{part}.{key}": value for key, value in average.module.state_dict().items()}
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state` returned."""
        self.model.load_state_dict(_below(state, "raw"))
        for part, optimiser in self.optimisers.items():
            moments: dict[int, dict[str, Tensor]] = {}
            for name, value in _below(state, f"optimiser.{part}").items():
                index, _, key = name.partition(".")
                moments.setdefault(int(index), {})[key] = value
            optimiser.load_state_dict(optimiser.state_dict() | {"state": moments})
        for part, average in self.averages.items():
            updates = int(state[f"updates.{part}"])
            average.load_state_dict({"updates": updates, "module": _below(state, f"average.{part}")})

    def _joint_step(self, batches: list[Draws]) -> dict[str, float]:
        losses = self._descend(batches, self._joint_loss, *self.modules)
        return {"score_loss": losses[1], "flow_loss": losses[0]}

    def _alternating_step(self, batches: list[Draws]) -> dict[str, float]:
        losses = {}
        if "flow" in self.modules:
            # The score is frozen, not detached: the flow's gradient passes through it.
            self.model.noise.requires_grad_(False)
            try:
                losses["flow_loss"] = self._descend(batches, self._flow_loss, "flow")[0]
            finally:
                self.model.noise.requires_grad_(True)
        return {"score_loss": self._descend(batches, self._score_loss, "score")[0]} | losses

    def _flow_step(self, batches: list[Draws]) -> dict[str, float]:
        return {"flow_loss": self._descend(batches, self._normalizing_flow_loss, "flow")[0]}

    def _normalizing_flow_loss(self, draws: Draws) -> tuple[Tensor, float]:
        z, log_det = self.model.flow(draws.x, "train", draws.generator)
        loss = (gaussian_nll(z, 1.0) - log_det).mean() / z[0].numel()
        return loss, loss.item()

    def _joint_loss(self, draws: Draws) -> tuple[Tensor, float]:
        return self._nelbo(draws, self._truncation(draws))

    def _flow_loss(self, draws: Draws) -> tuple[Tensor, float]:
        return self._nelbo(draws, self.model.eps)

    def _score_loss(self, draws: Draws) -> tuple[Tensor, float]:
        with torch.no_grad():
            z0, _ = self.model.flow(draws.x, "none", draws.generator)
        t = uniform_time(draws.u, self._truncation(draws))
        error = noise_error(self._noise, self.model.sde, z0, t, draws.noise)
        loss = variance_weighted(error).mean() / z0[0].numel()
        return loss, loss.item()

    def _noise(self, z_t: Tensor, t: Tensor) -> Tensor:
        with torch.autocast(z_t.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return self.model.noise(z_t, t).to(z_t.dtype)

    def _truncation(self, draws: Draws) -> float:
        if self.soft_truncation is None:
            return self.model.eps
        return soft_truncation_time(draws.truncation, self.model.eps, self.soft_truncation)

    def _nelbo(self, draws: Draws, eps: float) -> tuple[Tensor, float]:
        """Return the bound and, of it, the score's part, both per dimension."""
        model = self.model
        z0, log_det = model.flow(draws.x, "train", draws.generator)
        t, z = importance_time(model.sde, draws.u, eps)
        error = noise_error(self._noise, model.sde, z0, t, draws.noise)
        bound = nelbo(model.sde, z0, log_det, error, z, eps)
        if self.reconstruction:
            noise = draw_probe(z0, "gaussian", draws.generator)
            bound = bound + residual(self._noise, model.sde, z0, eps, noise)
        dims = z0[0].numel()
        return bound.mean() / dims, likelihood_weighted(error, z).mean().item() / dims

    def _descend(
        self, batches: list[Draws], loss_fn: Callable[[Draws], tuple[Tensor, float]], *parts: str
    ) -> tuple[float, float]:
        """Follow the gradient of a loss, averaged over micro-batches, with the optimisers of ``parts``.

        Each process adds its part of every micro-batch: all see the same gradient, and decide alike.

        Raises:
            DivergenceError: if the loss has exploded, or it or a gradient is not finite; no weight has been changed then.
        """
        for part in parts:
            self.optimisers[part].zero_grad(set_to_none=True)
        means = [0.0, 0.0]
        size = sum(len(batch.x) for batch in batches)
        for batch in (batch.part(rank(), processes()) for batch in batches):
            share = len(batch.x) / size
            loss, detail = loss_fn(batch)
            (share * loss).backward()
            means = [means[0] + share * loss.item(), means[1] + share * detail]
        means = add_up(torch.tensor(means, dtype=torch.float64, device=batches[0].x.device)).tolist()
        for part in parts:
            add_up_gradients(self.modules[part].parameters())
            norm = nn.utils.clip_grad_norm_(self.modules[part].parameters(), self.grad_clip, foreach=True)
            # NaN is not below the limit either.
            if not (means[0] < EXPLODED and math.isfinite(means[0]) and torch.isfinite(norm)):
                raise DivergenceError(
                    f"loss {means[0]}, gradient norm {norm.item()} of the {part}, expected a loss below {EXPLODED:g} nats per "
                    "dimension and a finite norm: lower lr or flow_lr"
                )
        for part in parts:
            self.optimisers[part].step()
        if "flow" in parts:
            self.model.flow.update_norms()
        return means[0], means[1]


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
    random_flip: bool = False,
    flow_warmup_steps: int = 0,
    history: History | None = None,
    after_step: Callable[[History], None] = lambda history: None,
    progress: Callable[[range], Iterable[int]],
) -> list[dict[str, float]]:
    """Train for ``steps`` steps, or for those that are left of them.

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
        random_flip: flip half of the images left to right.
        flow_warmup_steps: first steps, in which the flow is trained alone; the learning rate's warm-up starts again
            after them, with the score.
        history: what an earlier process has done, whose state the trainer has; changed in place.
        after_step: called after each step with the history.
        progress: wraps the loop's range, for a progress bar.

    Returns:
        The learning curve: rows of ``step`` and mean losses, each over the steps that have it.

    Raises:
        DivergenceError: if a loss has exploded, or it or a gradient is not finite; the message names the step.
    """
    history = History() if history is None else history
    for step in progress(range(history.done, steps)):
        draws = draw(images, levels, batch_size, seed, step, device, random_flip, trainer.model.centered)
        # Dropout draws from the global generator: of each process, for its own images.
        torch.manual_seed(derive_seed(*seed, "dropout", step, *([rank()] if rank() else [])))
        flow_alone = step < flow_warmup_steps
        begin = 0 if flow_alone else flow_warmup_steps
        try:
            lr_factor = learning_rate(step, steps, warmup_steps, schedule, begin)
            history.window.append(trainer.step(draws, lr_factor, flow_alone=flow_alone))
        except DivergenceError as error:
            raise DivergenceError(f"training stopped at step {step}: {error}") from None
        history.done = step + 1
        if history.done % log_every == 0 or history.done == steps:
            history.curve.append({"step": history.done} | _means(history.window))
            history.window = []
        after_step(history)
    return history.curve


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Average each key over the rows that have it."""
    columns = {key: [row[key] for row in rows if key in row] for key in rows[-1]}
    return {key: sum(values) / len(values) for key, values in columns.items()}


def step_flops(trainer: Trainer, draws: Draws, *, flow_alone: bool = False) -> int:
    """Count the floating-point operations of one training step, forward and backward.

    Only matrix products and convolutions count, a multiplication and an addition as two; attention counts as its matrix
    products on every device. With a flow, the steps differ a little: the number of its series terms is drawn.

    Arguments:
        trainer: a copy of it takes the step; it is left as it is.
        draws: of the step.
        flow_alone: see :meth:`Trainer.step`.
    """
    with sdpa_kernel(SDPBackend.MATH), _FlopCounter() as counter:
        deepcopy(trainer).step(draws, 0.0, flow_alone=flow_alone)
    return counter.total


class _FlopCounter(TorchDispatchMode):
    """Adds up the operations by torch's formulas; its own FlopCounterMode fails on a gradient taken within the flow."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func.overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Select the names that start with ``prefix.``, and take it off them."""
    return {key.removeprefix(f"{prefix}."): value for key, value in state.items() if key.startswith(f"{prefix}.")}


def _optimiser(module: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(parameters, lr=lr, betas=BETAS, weight_decay=weight_decay, fused=True)
