r"""One training step for every model: joint ("nll") and alternating ("fid").

Objective "nll" trains flow and score together on the NELBO. Objective "fid" alternates: (a) the flow on the NELBO with the
score frozen, (b) the score on the variance-weighted loss, on latents re-encoded by the updated flow, each at times and noise of
its own. Soft truncation concerns (b) alone. Either objective may be preceded by
steps that train the flow alone, as a normalizing flow with a standard normal latent, and followed by steps that train a new score
on the latents of the flow as it then is.

References:
    | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022)
    | https://arxiv.org/abs/2205.13699, section 5
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from indm.diffusion.model import ImplicitNonlinearDiffusion, below, build_model
from indm.diffusion.objectives import (
    gaussian_nll,
    likelihood_weighted,
    nelbo,
    noise_error,
    reconstruction,
    variance_weighted,
)
from indm.diffusion.sde import importance_time, soft_truncation_time, uniform_time
from indm.errors import DivergenceError
from indm.flows.block import ResidualBlock
from indm.flows.sources import draw_probe
from indm.process import products_in
from indm.training.batches import Dealt, Draws
from indm.training.distributed import (
    add_up,
    copy_from_first,
    kept_here,
    processes,
    rank,
    replicate,
    synchronise_batch_norms,
)
from indm.training.ema import ExponentialMovingAverage

# Those of the released code (losses.py, get_optimizer), of both networks; AdamW's own second one is 0.999.
BETAS = (0.9, 0.99)
# Nats per dimension. Untrained models have some ten, and the uniform density of 256 levels 5.5.
EXPLODED = 1e3


class Loss(NamedTuple):
    """The loss of a micro-batch in nats per dimension, and what is told of it; scalars, which the host has not read.

    Arguments:
        value: what is differentiated.
        score: of it, the score's loss; of the flow alone, the value.
        log_det: the mean log-determinant, of all dimensions. By the Neumann estimator, that one is no log-determinant,
            but has its gradient: see :data:`indm.flows.base.LogDet`.
    """

    value: Tensor
    score: Tensor
    log_det: Tensor

    def told(self) -> Tensor:
        """Return the numbers, shape (3,), float64."""
        return torch.stack([number.detach().double() for number in self])


class Descent(NamedTuple):
    """What is told of an optimiser step of some networks; see :class:`Loss`.

    Arguments:
        names: of the networks.
        losses: which of the numbers are losses of the learning curve, by their names there.
        numbers: the three of :class:`Loss`, whether weights have followed them (1 or 0), then the gradient norms before
            clipping; on the device, float64.
    """

    names: tuple[str, ...]
    losses: dict[str, int]
    numbers: Tensor


@dataclass(frozen=True)
class Optimisation:
    """How a model is optimised.

    Arguments:
        objective: ``nll`` or ``fid``.
        lr: peak learning rate of the score network.
        flow_lr: peak learning rate of the flow.
        weight_decay: AdamW's weight decay.
        grad_clip: largest gradient norm, of each network.
        reduction: ``mean`` or ``sum`` of the losses over the D dimensions of an image: what is differentiated, and clipped. The
            sum's gradients are D times as long, which AdamW hardly sees (its eps alone) and the clipping does.
        ema_decay: decay of the score network's averaged weights.
        flow_ema_decay: decay of the flow's averaged weights.
        alternate: objective "fid" updates flow and score in turn. Under VE, where variance weighting is likelihood
            weighting up to a constant, they can be updated jointly instead, as the released code does.
        micro_batches: pieces of a batch whose gradients are averaged; several processes share each of them.
        precision: of products: ``float32``; ``tf32``; or ``bfloat16`` of the score network, the flow's are then ``tf32``, its
            spectral norms among them. Times, losses, the refresh of those norms and the optimiser keep float32 or more. See
            docs/several-gpus.md for what it costs a flow.
        soft_truncation: exponent k of the score's random truncation time, or ``None``. Objective "fid" has it in the score's step
            alone, on latents of the updated flow; the released step mixes two losses there (docs/released.md).
        reconstruction: add the reconstruction term at eps to the NELBO.
    """

    objective: str
    lr: float
    flow_lr: float
    weight_decay: float
    grad_clip: float
    ema_decay: float
    flow_ema_decay: float
    reduction: str = "mean"
    alternate: bool = True
    micro_batches: int = 1
    precision: str = "float32"
    soft_truncation: float | None = None
    reconstruction: bool = False


class Trainer:
    """State of one training: the model, its optimisers and its averaged weights.

    Arguments:
        model: the model, trained in place.
        optimisation: how.
    """

    def __init__(self, model: ImplicitNonlinearDiffusion, optimisation: Optimisation) -> None:
        self.model = model.train()
        synchronise_batch_norms(model)
        self.optimisation = optimisation
        alternating = optimisation.objective == "fid" and optimisation.alternate
        self.step_fn = self._alternating_step if alternating else self._joint_step
        self.networks: dict[str, nn.Module] = {"score": model.noise}
        if any(True for _ in model.flow.parameters()):
            self.networks["flow"] = model.flow
        self.peaks = {"score": optimisation.lr, "flow": optimisation.flow_lr}
        decays = {"score": optimisation.ema_decay, "flow": optimisation.flow_ema_decay}
        self.optimisers = {
            name: _optimiser(network, self.peaks[name], optimisation.weight_decay)
            for name, network in self.networks.items()
        }
        self.averages = {
            name: ExponentialMovingAverage(network, decays[name]) for name, network in self.networks.items()
        }
        self.frozen = False
        # What calls functions of some networks, by their names: those of a step, when it is first taken.
        self._replicas: dict[tuple[str, ...], nn.Module] = {}
        # Of the last step, for those who watch: losses, rates, gradient norms before clipping, and the log-determinant's term of
        # the loss. All are numbers that have been waited for anyway, and nothing is made of them.
        self.noted: dict[str, float] = {}
        # Of the latents of a step, a row for each micro-batch: how many numbers, their sum, and that of their squares.
        self._moments: list[Tensor] = []

    def step(self, draws: Dealt, lr_factor: float, *, flow_alone: bool = False) -> dict[str, float]:
        """Take one optimiser step and return its losses, in nats per dimension whatever the reduction.

        ``flow_loss`` is the loss whose gradient the flow follows; its value is no likelihood, because the Neumann
        estimator's value is not the log-determinant.

        Arguments:
            draws: everything random of the step.
            lr_factor: factor of the peak learning rates.
            flow_alone: train the flow as a normalizing flow with a standard normal latent, and leave the score as it is.

        Raises:
            DivergenceError: if a loss has exploded, or it or a gradient is not finite; the weights that would have
                followed it, and all averages, have not been changed then.
        """
        self.noted, self._moments = {}, []
        for name, optimiser in self.optimisers.items():
            optimiser.param_groups[0]["lr"] = self.noted[f"lr_{name}"] = self.peaks[name] * lr_factor
        step_fn, names = (self._flow_step, ["flow"]) if flow_alone else (self.step_fn, list(self.optimisers))
        descents = step_fn(draws.shares(self.optimisation.micro_batches, rank(), processes()))
        losses = self._read(descents)
        self._follow_latents()
        for name in names:
            self.averages[name].update(self.networks[name])
        self.noted |= losses
        return losses

    def start_afresh(self, seed: int) -> None:
        """Begin again with new weights of the score, drawn from a seed, its average and its optimiser, and freeze the flow."""
        torch.manual_seed(seed)
        self.model.noise.load_state_dict(build_model(self.model.spec).noise.state_dict())
        copy_from_first(self.model.noise.state_dict().values())
        self.optimisers["score"] = _optimiser(self.model.noise, self.peaks["score"], self.optimisation.weight_decay)
        self.averages["score"] = ExponentialMovingAverage(self.model.noise, self.optimisation.ema_decay)
        self.freeze_flow()

    def freeze_flow(self) -> None:
        """Stop training the flow: from now on its averaged weights are the raw ones too, so there is no choice between them."""
        flow, average = self.model.flow, self.averages["flow"].module
        flow.load_state_dict(average.state_dict())
        flow.update_norms()
        average.load_state_dict(flow.state_dict())
        flow.eval().requires_grad_(False)
        self.optimisers.pop("flow", None)
        self.frozen = True

    def averaged(self, *, raw_flow: bool = False) -> ImplicitNonlinearDiffusion:
        """Return a model with averaged weights, in eval mode, its spectral norms refreshed; if asked, with the raw flow."""
        model = build_model(self.model.spec)
        model.noise.load_state_dict(self.averages["score"].module.state_dict())
        if raw_flow:
            model.flow.load_state_dict(self.model.flow.state_dict())
        elif "flow" in self.averages:
            model.flow.load_state_dict(self.averages["flow"].module.state_dict())
            # Of a frozen flow they are fresh, and each refreshing moves them a little.
            if not self.frozen:
                model.flow.update_norms()
        return model.eval().requires_grad_(False)

    def evaluated(self) -> dict[str, Tensor]:
        """Return the weights for evaluations along the training: the averaged model as ``ema.``, the raw flow as ``raw.flow.``.

        Without the raw score, which is most of a model and is evaluated, if at all, at the end.
        """
        state = {f"ema.{key}": value for key, value in self.averaged().state_dict().items()}
        return state | {f"raw.flow.{key}": value for key, value in self.model.flow.state_dict().items()}

    def flow_bounds(self) -> dict[str, float]:
        """Return the smallest and the largest Lipschitz bound of the flow's residual blocks; nothing, where it has none.

        The device is waited for.
        """
        found = [block.contraction().c for block in self.model.flow.modules() if isinstance(block, ResidualBlock)]
        return {"lipschitz_smallest": min(found), "lipschitz_largest": max(found)} if found else {}

    def optimiser_state(self) -> dict[str, Tensor]:
        """Return the tensors of the optimisers' states, named ``network.parameter.key``."""
        return {
            f"{name}.{index}.{key}": value
            for name, optimiser in self.optimisers.items()
            for index, state in optimiser.state_dict()["state"].items()
            for key, value in state.items()
        }

    def state(self) -> dict[str, Tensor]:
        """Return all that a training changes: raw and averaged weights with their buffers, optimisers, whether a flow is frozen."""
        state = {"frozen": torch.tensor(self.frozen)}
        state |= {f"raw.{key}": value for key, value in self.model.state_dict().items()}
        state |= {f"optimiser.{key}": value for key, value in self.optimiser_state().items()}
        for name, average in self.averages.items():
            state[f"updates.{name}"] = torch.tensor(average.updates)
            state |= {f"average.{name}.{key}": value for key, value in average.module.state_dict().items()}
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state` returned."""
        if state["frozen"]:
            self.freeze_flow()
        self.model.load_state_dict(below(state, "raw"))
        for name, optimiser in self.optimisers.items():
            moments: dict[int, dict[str, Tensor]] = {}
            for entry, value in below(state, f"optimiser.{name}").items():
                index, _, key = entry.partition(".")
                moments.setdefault(int(index), {})[key] = value
            optimiser.load_state_dict(optimiser.state_dict() | {"state": moments})
        for name, average in self.averages.items():
            updates = int(state[f"updates.{name}"])
            average.load_state_dict({"updates": updates, "module": below(state, f"average.{name}")})

    def _joint_step(self, batches: list[Draws]) -> list[Descent]:
        losses = {"score_loss": 1} if self.frozen else {"score_loss": 1, "flow_loss": 0}
        return [self._descend(batches, self._joint_loss, losses, *self.optimisers)]

    def _alternating_step(self, batches: list[Draws]) -> list[Descent]:
        descents = []
        if "flow" in self.optimisers:
            # The score is frozen, not detached: the flow's gradient passes through it.
            self.model.noise.requires_grad_(False)
            try:
                descents += self._descend_flow(batches, self._flow_loss)
            finally:
                self.model.noise.requires_grad_(True)
        return [*descents, self._descend(batches, self._score_loss, {"score_loss": 0}, "score")]

    def _flow_step(self, batches: list[Draws]) -> list[Descent]:
        return self._descend_flow(batches, self._normalizing_flow_loss)

    def _descend_flow(self, batches: list[Draws], loss_fn: Callable[[Draws], Loss]) -> list[Descent]:
        return [self._descend(batches, loss_fn, {"flow_loss": 0}, "flow")]

    def _normalizing_flow_loss(self, draws: Draws) -> Loss:
        z, log_det = self.model.flow(draws.x, "train", draws.generator)
        loss = (gaussian_nll(z, 1.0) - log_det).mean() / z[0].numel()
        return Loss(loss, loss, log_det.mean())

    def _joint_loss(self, draws: Draws) -> Loss:
        return self._nelbo(draws, self._truncation(draws), noted=True)

    def _flow_loss(self, draws: Draws) -> Loss:
        # Of its own times and noise: those of the step are the score's, which would follow a flow that has just seen them.
        return self._nelbo(draws.fresh(), self.model.eps)

    def _score_loss(self, draws: Draws) -> Loss:
        with torch.no_grad():
            z0, log_det = self.model.flow(draws.x, "none", draws.generator)
        self._note(z0)
        t = uniform_time(draws.u, self._truncation(draws))
        error = noise_error(self._noise, self.model.sde, z0, t, draws.noise)
        loss = variance_weighted(error).mean() / z0[0].numel()
        return Loss(loss, loss, log_det.mean())

    def _note(self, z0: Tensor) -> None:
        """Note latents that the score is trained on, where it is to know their deviation."""
        if self.model.noise.follows:
            z = z0.detach().double()
            count = z.new_full((), z.numel())
            self._moments.append(torch.stack([count, z.sum(), z.square().sum()]))

    def _follow_latents(self) -> None:
        """Tell the score, after a step, of the variance of its latents: those of all micro-batches and processes."""
        if self._moments:
            count, total, squares = add_up(torch.stack(self._moments).sum(0))
            self.model.noise.follow(squares / count - (total / count) ** 2)
            self._moments = []

    def _noise(self, z_t: Tensor, t: Tensor) -> Tensor:
        with torch.autocast(z_t.device.type, torch.bfloat16, enabled=self.optimisation.precision == "bfloat16"):
            return self.model.noise(z_t, t).to(z_t.dtype)

    def _truncation(self, draws: Draws) -> float:
        if self.optimisation.soft_truncation is None:
            return self.model.eps
        return soft_truncation_time(draws.truncation, self.model.eps, self.optimisation.soft_truncation)

    def _nelbo(self, draws: Draws, eps: float, *, noted: bool = False) -> Loss:
        """Return the bound, and the score's loss in it; ``noted``: see :meth:`_note`.

        With a frozen flow, the bound is that of its latents: the log-determinant, which no weight changes, is not computed.
        """
        model = self.model
        z0, log_det = model.flow(draws.x, "none" if self.frozen else "train", draws.generator)
        if noted:
            self._note(z0)
        t, z = importance_time(model.sde, draws.u, eps)
        error = noise_error(self._noise, model.sde, z0, t, draws.noise)
        bound = nelbo(model.sde, z0, log_det, error, z, eps)
        if self.optimisation.reconstruction:
            noise = draw_probe(z0, "gaussian", draws.generator)
            bound = bound + reconstruction(self._noise, model.sde, z0, eps, noise)
        dims = z0[0].numel()
        # In float64 before the division, as a number that the host has read.
        score = likelihood_weighted(error, z).mean().double() / dims
        return Loss(bound.mean() / dims, score, log_det.mean())

    def _descend(
        self, batches: list[Draws], loss_fn: Callable[[Draws], Loss], losses: dict[str, int], *names: str
    ) -> Descent:
        """Follow the gradient of a loss, averaged over micro-batches, with the optimisers of the named networks.

        Each process adds its share of every micro-batch: all see the same gradient, and decide alike. Gradients are
        averaged over the processes with the last micro-batch, which may be done while they are computed. Weights do not
        follow a loss that has exploded, nor what is not finite; :meth:`_read`, which waits for the device, says so.
        """
        call = self._together(names)
        for name in names:
            self.optimisers[name].zero_grad(set_to_none=True)
        factor = math.prod(self.model.shape) if self.optimisation.reduction == "sum" else 1
        told = torch.zeros(len(Loss._fields), dtype=torch.float64, device=batches[0].x.device)
        for batch in batches:
            share = len(batch.x) / batch.size
            last = contextlib.nullcontext() if batch is batches[-1] else kept_here(call)
            with last, products_in(self.optimisation.precision, told.device):
                loss = call(loss_fn, batch)
                # Averaged over the processes, the shares add up to the batch.
                (factor * share * processes() * loss.value).backward()
            told = told + share * loss.told()
        told, norms = add_up(told), torch.stack([self._clip(name) for name in names])
        # NaN is not below the limit either.
        sound = (told[0] < EXPLODED) & told[0].isfinite() & norms.isfinite().all()
        for name in names:
            # As a gradient scaler says it: the optimiser leaves weights and moments as they are.
            self.optimisers[name].found_inf = (~sound).float()  # type: ignore[attr-defined]
            self.optimisers[name].step()
        if "flow" in names:
            self.model.flow.update_norms()
        return Descent(names, losses, torch.cat([told, sound.double()[None], norms.double()]))

    def _together(self, names: tuple[str, ...]) -> nn.Module:
        """Return what calls functions of the named networks, with gradients of all processes."""
        if names not in self._replicas:
            self._replicas[names] = replicate([self.networks[name] for name in sorted(names)])
        return self._replicas[names]

    def _clip(self, name: str) -> Tensor:
        """Clip the gradients of a network; return their norm before, a scalar."""
        return nn.utils.clip_grad_norm_(self.networks[name].parameters(), self.optimisation.grad_clip, foreach=True)

    def _read(self, descents: list[Descent]) -> dict[str, float]:
        """Wait for the device, once a step: note what is told of its descents, and return its losses.

        Raises:
            DivergenceError: see :meth:`step`.
        """
        read = iter(torch.cat([descent.numbers for descent in descents]).tolist())
        losses: dict[str, float] = {}
        for descent in descents:
            told = list(itertools.islice(read, len(Loss._fields)))
            sound, *norms = itertools.islice(read, 1 + len(descent.names))
            if not sound:
                named = ", ".join(f"{norm} of the {name}" for name, norm in zip(descent.names, norms, strict=True))
                raise DivergenceError(
                    f"loss {told[0]}, gradient norm {named}, expected a loss below {EXPLODED:g} nats per dimension and a "
                    "finite norm: lower lr or flow_lr"
                )
            self.noted |= {f"gradient_norm_{name}": norm for name, norm in zip(descent.names, norms, strict=True)}
            if "flow" in descent.names:
                self.noted["log_det_term"] = told[2] / math.prod(self.model.shape)
            losses |= {name: told[place] for name, place in descent.losses.items()}
        return {name: losses[name] for name in ("score_loss", "flow_loss") if name in losses}


def _optimiser(module: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(parameters, lr=lr, betas=BETAS, weight_decay=weight_decay, fused=True)
