r"""One training step for every model: joint ("nll") and alternating ("fid").

The ``nll`` objective trains flow and score together on the NELBO. The ``fid`` objective alternates: (a) the flow on the
NELBO with the score frozen, (b) the score on the variance-weighted loss, on latents re-encoded by the updated flow, with
separate times and noise for each. Soft truncation only affects (b). Steps that train only the flow, as a normalizing flow
with a standard normal latent, may precede either objective, and steps that train a new score on the latents of the frozen
flow may follow.

References:
    | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022)
    | https://arxiv.org/abs/2205.13699, section 5
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from indm.diffusion.model import ImplicitNonlinearDiffusion, build_model, strip_prefix
from indm.errors import DivergenceError
from indm.flows.block import ResidualBlock
from indm.process import products_in
from indm.training.batches import Batch, Draws
from indm.training.distributed import (
    copy_from_first,
    processes,
    rank,
    replicate,
    sum_over_processes,
    synchronise_batch_norms,
    unsynchronised,
)
from indm.training.ema import ExponentialMovingAverage
from indm.training.flat import Flat
from indm.training.losses import (
    NUMBERS,
    PLACES,
    Loss,
    Optimisation,
    flow_loss,
    joint_loss,
    normalizing_flow_loss,
    score_loss,
)

# For both networks as in the released code (losses.py, get_optimizer); AdamW's default for the second one is 0.999.
BETAS = (0.9, 0.99)
# In nats per dimension of model space, far above any sound loss: the uniform density on [-1, 1] has log 2.
EXPLODED = 1e3


class Descent(NamedTuple):
    """The report of an optimiser step of some networks.

    Arguments:
        names: names of the networks.
        losses: names in ``PLACES`` of the losses for the learning curve.
        numbers: the numbers of a :class:`~indm.training.losses.Loss`, whether the weights were updated (1 or 0), then the
            gradient norms before clipping; shape (``NUMBERS`` + 1 + networks,), on the device, float64.
    """

    names: tuple[str, ...]
    losses: tuple[str, ...]
    numbers: Tensor


@contextlib.contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Train a network's weights only outside of this context."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


class Trainer:
    """The state of a training: the model, which is trained in place, its optimisers and its averaged weights.

    Arguments:
        model: the model.
        optimisation: its settings.
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
        self.flats = {name: Flat(network) for name, network in self.networks.items()}
        self.optimisers = {name: self._optimiser(name) for name in self.networks}
        self.averages = {
            name: ExponentialMovingAverage(network, decays[name]) for name, network in self.networks.items()
        }
        # After the averages, because they are copies that do not need gradients.
        for flat in self.flats.values():
            flat.share_gradients()
        self.frozen = False
        # Modules that call functions of some networks, by their names; each is made when it is first used.
        self._replicas: dict[tuple[str, ...], nn.Module] = {}
        # Numbers of the last step for commands that watch: losses, rates, gradient norms before clipping, and the
        # log-determinant's term in the loss. The host has waited for all of them anyway, and does not compute with them.
        self.noted: dict[str, float] = {}
        # For the latents of a step, a row for each micro-batch: the count of numbers, their sum and the sum of their squares.
        self._moments: list[Tensor] = []

    def step(self, draws: Batch, lr_factor: float, *, flow_alone: bool = False) -> dict[str, float]:
        """Take one optimiser step and return its losses, in nats per dimension for either reduction.

        ``flow_loss`` is the loss whose gradient the flow follows; its value is not a likelihood, because the Neumann
        estimator's value is not the log-determinant.

        Arguments:
            draws: the whole batch of B images, of which this process takes its share, and its random numbers.
            lr_factor: factor of the peak learning rates.
            flow_alone: train only the flow, as a normalizing flow with a standard normal latent.

        Raises:
            DivergenceError: if a loss has exploded, or a loss or a gradient is not finite; the weights of its networks and
                all averages then remain unchanged.
        """
        self.noted, self._moments = {}, []
        for name, optimiser in self.optimisers.items():
            optimiser.param_groups[0]["lr"] = self.noted[f"lr_{name}"] = self.peaks[name] * lr_factor
        step_fn, names = (self._flow_step, ["flow"]) if flow_alone else (self.step_fn, list(self.optimisers))
        descents = step_fn(draws.shares(self.optimisation.micro_batches, rank(), processes()))
        losses = self._read(descents)
        self._follow_latents()
        for name in names:
            self.averages[name].update(self.flats[name])
        self.noted |= losses
        return losses

    def start_afresh(self, seed: int) -> None:
        """Freeze the flow, and restart the score with new weights from a seed, a new average and a new optimiser."""
        torch.manual_seed(seed)
        self.model.noise.load_state_dict(build_model(self.model.spec).noise.state_dict())
        copy_from_first(self.model.noise.state_dict().values())
        self.optimisers["score"] = self._optimiser("score")
        self.averages["score"] = ExponentialMovingAverage(self.model.noise, self.optimisation.ema_decay)
        self.freeze_flow()

    def freeze_flow(self) -> None:
        """Stop training the flow; its averaged weights become the raw ones too, so that both choices are the same."""
        flow, average = self.model.flow, self.averages["flow"].module
        flow.load_state_dict(average.state_dict())
        flow.update_norms()
        average.load_state_dict(flow.state_dict())
        flow.eval().requires_grad_(False)
        self.optimisers.pop("flow", None)
        self.frozen = True

    def averaged(self, *, raw_flow: bool = False) -> ImplicitNonlinearDiffusion:
        """Return a new model with averaged weights (but the raw flow if asked), in eval mode, with refreshed spectral norms."""
        model = build_model(self.model.spec)
        model.noise.load_state_dict(self.averages["score"].module.state_dict())
        if raw_flow:
            model.flow.load_state_dict(self.model.flow.state_dict())
        elif "flow" in self.averages:
            model.flow.load_state_dict(self.averages["flow"].module.state_dict())
            # The norms of a frozen flow are up to date, and refreshing them would move them a little.
            if not self.frozen:
                model.flow.update_norms()
        else:
            # A map without parameters may have numbers from the training images.
            model.flow.load_state_dict(self.model.flow.state_dict())
        return model.eval().requires_grad_(False)

    def evaluated(self) -> dict[str, Tensor]:
        """Return the weights for evaluations during the training: the averaged model and the raw flow.

        The raw score, which is most of a model, is left out, because it is only evaluated at the end, if at all.

        Returns:
            Tensors by name, each in the shape of the parameter or buffer: ``ema.`` with the names of the whole model, and
            ``raw.flow.`` with the names of the flow.
        """
        state = {f"ema.{key}": value for key, value in self.averaged().state_dict().items()}
        return state | {f"raw.flow.{key}": value for key, value in self.model.flow.state_dict().items()}

    def flow_bounds(self) -> dict[str, float]:
        """Return the smallest and the largest Lipschitz bound of the flow's residual blocks; empty if it has no blocks.

        It waits for the device.
        """
        found = [block.contraction().c for block in self.model.flow.modules() if isinstance(block, ResidualBlock)]
        return {"lipschitz_smallest": min(found), "lipschitz_largest": max(found)} if found else {}

    def optimiser_state(self) -> dict[str, Tensor]:
        """Return the states of the optimisers, each of which trains all N numbers of a network as one tensor.

        Returns:
            Tensors by name, ``<network>.0.<key>``: the number of updates, ``step``, a scalar, and AdamW's moments of the
            gradient, ``exp_avg`` and ``exp_avg_sq``, shape (N,), in the layout of :class:`~indm.training.flat.Flat`.
        """
        return {
            f"{name}.{index}.{key}": value
            for name, optimiser in self.optimisers.items()
            for index, state in optimiser.state_dict()["state"].items()
            for key, value in state.items()
        }

    def state(self) -> dict[str, Tensor]:
        """Return the state from which a training continues.

        Returns:
            Tensors by name: ``frozen``, whether the flow is frozen, a scalar; ``raw.``, the model's parameters and buffers, and
            ``average.<network>.``, their averages, in their own shapes; ``updates.<network>``, the number of updates of an
            average, a scalar; ``optimiser.``, see :meth:`optimiser_state`.
        """
        state = {"frozen": torch.tensor(self.frozen)}
        state |= {f"raw.{key}": value for key, value in self.model.state_dict().items()}
        state |= {f"optimiser.{key}": value for key, value in self.optimiser_state().items()}
        for name, average in self.averages.items():
            state[f"updates.{name}"] = torch.tensor(average.updates)
            state |= {f"average.{name}.{key}": value for key, value in average.module.state_dict().items()}
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state that :meth:`state` returned.

        Arguments:
            state: the tensors by name, in the shapes of this trainer's own state.

        Raises:
            RuntimeError: if a name or a shape does not fit the model.
            KeyError: if ``frozen``, or the number of updates of an average, is missing.
        """
        if state["frozen"]:
            self.freeze_flow()
        self.model.load_state_dict(strip_prefix(state, "raw"))
        for name, optimiser in self.optimisers.items():
            moments: dict[int, dict[str, Tensor]] = {}
            for entry, value in strip_prefix(state, f"optimiser.{name}").items():
                index, _, key = entry.partition(".")
                moments.setdefault(int(index), {})[key] = value
            optimiser.load_state_dict(optimiser.state_dict() | {"state": moments})
        for name, average in self.averages.items():
            average.updates = int(state[f"updates.{name}"])
            average.module.load_state_dict(strip_prefix(state, f"average.{name}"))

    def _joint_step(self, batches: list[Draws]) -> list[Descent]:
        losses = ("score_loss",) if self.frozen else ("score_loss", "flow_loss")
        return [self._descend(batches, partial(joint_loss, frozen=self.frozen), losses, *self.optimisers)]

    def _alternating_step(self, batches: list[Draws]) -> list[Descent]:
        if "flow" not in self.optimisers:
            return [self._descend(batches, score_loss, ("score_loss",), "score")]
        # Frozen, not detached: the flow's gradient passes through the score, and a path in the flow's place is in both losses.
        with _frozen(self.model.noise):
            descent = self._descend(batches, flow_loss, ("flow_loss",), "flow")
        with _frozen(self.model.flow):
            return [descent, self._descend(batches, score_loss, ("score_loss",), "score")]

    def _flow_step(self, batches: list[Draws]) -> list[Descent]:
        return [self._descend(batches, normalizing_flow_loss, ("flow_loss",), "flow")]

    def _note(self, z0: Tensor) -> None:
        """Record the moments of the score's latents, if the score needs their deviation."""
        if self.model.noise.follows:
            z = z0.double()
            count = z.new_full((), z.numel())
            self._moments.append(torch.stack([count, z.sum(), z.square().sum()]))

    def _follow_latents(self) -> None:
        """Give the score the variance of a step's latents, over all micro-batches and processes."""
        if self._moments:
            count, total, squares = sum_over_processes(torch.stack(self._moments).sum(0))
            self.model.noise.follow(squares / count - (total / count) ** 2)
            self._moments = []

    def _descend(
        self, batches: list[Draws], loss_fn: Callable[..., Loss], losses: tuple[str, ...], *names: str
    ) -> Descent:
        """Follow the gradient of a loss, averaged over micro-batches, with the optimisers of the named networks.

        Each process adds its share of every micro-batch, so that all see the same gradient and make the same decision. The
        weights do not follow a loss that has exploded, nor numbers that are not finite; :meth:`_read`, which waits for the
        device, then raises.
        """
        replica = self._replica(names)
        for name in names:
            self.flats[name].zero_gradients()
        numbers = sum_over_processes(self._backward(replica, batches, loss_fn))
        norms = torch.stack([self._clip(name) for name in names])
        # NaN also fails the comparison with the limit.
        sound = (numbers[0] < EXPLODED) & numbers[0].isfinite() & norms.isfinite().all()
        for name in names:
            # Set as by a gradient scaler, so that the optimiser does not change weights and moments.
            self.optimisers[name].found_inf = (~sound).float()  # type: ignore[attr-defined]
            self.optimisers[name].step()
        if "flow" in names:
            self.model.flow.update_norms()
        return Descent(names, losses, torch.cat([numbers, sound.double()[None], norms.double()]))

    def _backward(self, replica: nn.Module, batches: list[Draws], loss_fn: Callable[..., Loss]) -> Tensor:
        """Add up the gradients of a loss over micro-batches; return the sums of its numbers in this process.

        Gradients are averaged over the processes during the last micro-batch, possibly while others are still computed.
        """
        factor = math.prod(self.model.shape) if self.optimisation.reduction == "sum" else 1
        numbers = torch.zeros(NUMBERS, dtype=torch.float64, device=batches[0].x.device)
        for batch in batches:
            share = len(batch.x) / batch.size
            last = contextlib.nullcontext() if batch is batches[-1] else unsynchronised(replica)
            with last, products_in(self.optimisation.precision, numbers.device):
                loss = replica(loss_fn, self.model, self.optimisation, batch)
                # The shares of the processes add up to the batch, but their gradients are averaged.
                (factor * share * processes() * loss.value).backward()
            if loss.latents is not None:
                self._note(loss.latents)
            numbers = numbers + share * loss.numbers()
        return numbers

    def _optimiser(self, name: str) -> torch.optim.Optimizer:
        values, decay = [self.flats[name].values], self.optimisation.weight_decay
        return torch.optim.AdamW(values, lr=self.peaks[name], betas=BETAS, weight_decay=decay, fused=True)

    def _replica(self, names: tuple[str, ...]) -> nn.Module:
        """Return the module that calls functions of the named networks and averages gradients over the processes."""
        if names not in self._replicas:
            self._replicas[names] = replicate([self.networks[name] for name in sorted(names)])
        return self._replicas[names]

    def _clip(self, name: str) -> Tensor:
        """Clip the gradients of a network; return their norm before clipping, a scalar."""
        return nn.utils.clip_grad_norm_(self.flats[name].values, self.optimisation.grad_clip)

    def _read(self, descents: list[Descent]) -> dict[str, float]:
        """Wait for the device, once per step: record the reports of its descents, and return its losses.

        Raises:
            DivergenceError: see :meth:`step`.
        """
        read = iter(torch.cat([descent.numbers for descent in descents]).tolist())
        losses: dict[str, float] = {}
        for descent in descents:
            numbers = list(itertools.islice(read, NUMBERS))
            sound, *norms = itertools.islice(read, 1 + len(descent.names))
            if not sound:
                named = ", ".join(f"{norm} of the {name}" for name, norm in zip(descent.names, norms, strict=True))
                raise DivergenceError(
                    f"loss {numbers[0]}, gradient norm {named}, expected a loss below {EXPLODED:g} nats per dimension and a "
                    "finite norm; lower lr or flow_lr"
                )
            self.noted |= {f"gradient_norm_{name}": norm for name, norm in zip(descent.names, norms, strict=True)}
            if "flow" in descent.names:
                self.noted["log_det_term"] = numbers[2] / math.prod(self.model.shape)
            losses |= {name: numbers[PLACES[name]] for name in descent.losses}
        return {name: losses[name] for name in PLACES if name in losses}
