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

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from indm.diffusion.model import ImplicitNonlinearDiffusion, below
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
from indm.flows.log_det import draw_probe
from indm.training.batches import Draws
from indm.training.distributed import (
    add_up,
    add_up_gradients,
    copy_from_first,
    processes,
    rank,
    synchronise_batch_norms,
)
from indm.training.ema import ExponentialMovingAverage

BETAS = (0.9, 0.99)
# Nats per dimension. Untrained models have some ten, and the uniform density of 256 levels 5.5.
EXPLODED = 1e3


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
        precision: ``float32`` or ``bfloat16``, of the score network's products; the flow, the times and the losses keep
            theirs: its log-determinant is a sum of products with its Jacobian, and its inverse is that of float32.
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
        # Of the latents of a step, a row for each micro-batch: how many numbers, their sum, and that of their squares.
        self._moments: list[Tensor] = []

    def step(self, draws: Draws, lr_factor: float, *, flow_alone: bool = False) -> dict[str, float]:
        """Take one optimiser step and return its losses, in nats per dimension whatever the reduction.

        ``flow_loss`` is the loss whose gradient the flow follows; its value is no likelihood, because the Neumann
        estimator's value is not the log-determinant.

        Arguments:
            draws: everything random of the step.
            lr_factor: factor of the peak learning rates.
            flow_alone: train the flow as a normalizing flow with a standard normal latent, and leave the score as it is.
        """
        for name, optimiser in self.optimisers.items():
            optimiser.param_groups[0]["lr"] = self.peaks[name] * lr_factor
        step_fn, names = (self._flow_step, ["flow"]) if flow_alone else (self.step_fn, list(self.optimisers))
        losses = step_fn(draws.split(self.optimisation.micro_batches))
        self._follow_latents()
        for name in names:
            self.averages[name].update(self.networks[name])
        return losses

    def start_afresh(self, seed: int) -> None:
        """Begin again with new weights of the score, drawn from a seed, its average and its optimiser, and freeze the flow."""
        torch.manual_seed(seed)
        self.model.noise.load_state_dict(ImplicitNonlinearDiffusion(self.model.spec).noise.state_dict())
        copy_from_first(self.model.noise.state_dict().values())
        self.optimisers["score"] = _optimiser(self.model.noise, self.peaks["score"], self.optimisation.weight_decay)
        self.averages["score"] = ExponentialMovingAverage(self.model.noise, self.optimisation.ema_decay)
        self.freeze_flow()

    def freeze_flow(self) -> None:
        """Train the flow no more: its averaged weights are the raw ones from now on, so that nobody need choose between them."""
        flow, average = self.model.flow, self.averages["flow"].module
        flow.load_state_dict(average.state_dict())
        flow.update_norms()
        average.load_state_dict(flow.state_dict())
        flow.eval().requires_grad_(False)
        self.optimisers.pop("flow", None)
        self.frozen = True

    def averaged(self, *, raw_flow: bool = False) -> ImplicitNonlinearDiffusion:
        """Return a model with averaged weights, in eval mode, its spectral norms refreshed; if asked, with the raw flow."""
        model = ImplicitNonlinearDiffusion(self.model.spec)
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

    def _joint_step(self, batches: list[Draws]) -> dict[str, float]:
        losses = self._descend(batches, self._joint_loss, *self.optimisers)
        return {"score_loss": losses[1]} | ({} if self.frozen else {"flow_loss": losses[0]})

    def _alternating_step(self, batches: list[Draws]) -> dict[str, float]:
        losses = {}
        if "flow" in self.optimisers:
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
        return self._nelbo(draws, self._truncation(draws), noted=True)

    def _flow_loss(self, draws: Draws) -> tuple[Tensor, float]:
        # Of its own times and noise: those of the step are the score's, which would follow a flow that has just seen them.
        return self._nelbo(draws.fresh(), self.model.eps)

    def _score_loss(self, draws: Draws) -> tuple[Tensor, float]:
        with torch.no_grad():
            z0, _ = self.model.flow(draws.x, "none", draws.generator)
        self._note(z0)
        t = uniform_time(draws.u, self._truncation(draws))
        error = noise_error(self._noise, self.model.sde, z0, t, draws.noise)
        loss = variance_weighted(error).mean() / z0[0].numel()
        return loss, loss.item()

    def _note(self, z0: Tensor) -> None:
        """Note latents that the score is trained on, where it is to know their deviation."""
        if self.model.noise.follows:
            z = z0.detach().double()
            count = torch.tensor(float(z.numel()), dtype=z.dtype, device=z.device)
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

    def _nelbo(self, draws: Draws, eps: float, *, noted: bool = False) -> tuple[Tensor, float]:
        """Return the bound and, of it, the score's loss, both per dimension; ``noted``: see :meth:`_note`.

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
        return bound.mean() / dims, likelihood_weighted(error, z).mean().item() / dims

    def _descend(
        self, batches: list[Draws], loss_fn: Callable[[Draws], tuple[Tensor, float]], *names: str
    ) -> tuple[float, float]:
        """Follow the gradient of a loss, averaged over micro-batches, with the optimisers of the named networks.

        Each process adds its share of every micro-batch: all see the same gradient, and decide alike.

        Raises:
            DivergenceError: if the loss has exploded, or it or a gradient is not finite; no weight has been changed then.
        """
        for name in names:
            self.optimisers[name].zero_grad(set_to_none=True)
        means = [0.0, 0.0]
        factor = math.prod(self.model.shape) if self.optimisation.reduction == "sum" else 1
        size = sum(len(batch.x) for batch in batches)
        for batch in (batch.share(rank(), processes()) for batch in batches):
            share = len(batch.x) / size
            loss, detail = loss_fn(batch)
            (factor * share * loss).backward()
            means = [means[0] + share * loss.item(), means[1] + share * detail]
        means = add_up(torch.tensor(means, dtype=torch.float64, device=batches[0].x.device)).tolist()
        for name in names:
            add_up_gradients(self.networks[name].parameters())
            norm = nn.utils.clip_grad_norm_(self.networks[name].parameters(), self.optimisation.grad_clip, foreach=True)
            # NaN is not below the limit either.
            if not (means[0] < EXPLODED and math.isfinite(means[0]) and torch.isfinite(norm)):
                raise DivergenceError(
                    f"loss {means[0]}, gradient norm {norm.item()} of the {name}, expected a loss below {EXPLODED:g} nats per "
                    "dimension and a finite norm: lower lr or flow_lr"
                )
        for name in names:
            self.optimisers[name].step()
        if "flow" in names:
            self.model.flow.update_norms()
        return means[0], means[1]


def _optimiser(module: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(parameters, lr=lr, betas=BETAS, weight_decay=weight_decay, fused=True)
