r"""Training of a stack of replicas on the NELBO, the ``nll`` objective.

The loss of a stack is the sum of its replicas' losses, and the optimiser works elementwise, so replicas are trained independently.
A replica's batches, times and noise come from its seed, so all variants of one seed see the same ones.

References:
    | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022)
    | https://arxiv.org/abs/2205.13699, theorem 1
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from indm.diffusion.objectives import nelbo, noise_error
from indm.diffusion.sde import SDE, importance_time
from indm.errors import DivergenceError
from indm.seeding import derive_seed
from indm.toy2d.models import FLOW_SEED, SCORE_SEED, Stack, initialise
from indm.training.ema import ExponentialMovingAverage
from indm.training.flat import Flat
from indm.training.loop import learning_rate
from indm.training.trainer import BETAS

# Number of steps whose draws are made at once.
BLOCK = 100
Draw = tuple[Tensor, Tensor, Tensor]
Loss = Callable[[Draw], Tensor]


def draws(points: Tensor, dataset: str, seeds: list[int], steps: int, batch_size: int) -> Iterator[Draw]:
    """Draw the batch (R, B, 2), the uniform variate of the times (R, B) and the noise (R, B, 2) of each step.

    Arguments:
        points: the training points of each replica, shape (R, N, 2).
        seeds: the seed of each of the R replicas; equal seeds give equal draws.
    """
    generators = {seed: Generator().manual_seed(derive_seed(dataset, seed, "train")) for seed in seeds}
    for start in range(0, steps, BLOCK):
        block = {seed: _block(generator, points.shape[1], batch_size) for seed, generator in generators.items()}
        index, u, noise = (torch.stack(part, 1) for part in zip(*(block[seed] for seed in seeds), strict=True))
        for step in range(min(BLOCK, steps - start)):
            yield points.gather(1, index[step, ..., None].expand(-1, -1, 2)), u[step], noise[step]


def _block(generator: Generator, points: int, batch_size: int) -> Draw:
    index = torch.randint(points, (BLOCK, batch_size), generator=generator)
    u = torch.rand(BLOCK, batch_size, generator=generator, dtype=torch.float64)
    return index, u, torch.randn(BLOCK, batch_size, 2, generator=generator)


def nelbo_loss(stack: Stack, sde: SDE, eps: float, draw: Draw) -> Tensor:
    """Return the mean bound of each replica's batch, without the reconstruction term, in nats: shape (R,)."""
    x, u, noise = draw
    z0, log_det = stack.flow(x)
    z0 = z0.flatten(0, 1)
    t, z = importance_time(sde, u.flatten(), eps)
    error = noise_error(stack.noise_fn(), sde, z0, t, noise.flatten(0, 1))
    return stack.unflatten(nelbo(sde, z0, log_det.flatten(), error, z, eps)).mean(1)


def flow_loss(stack: Stack, draw: Draw) -> Tensor:
    """Return the mean NLL of each replica's batch under only the flow, with a standard normal latent: shape (R,)."""
    z, log_det = stack.flow(draw[0])
    return (-torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1) - log_det).mean(1)


def train(
    stack: Stack,
    sde: SDE,
    points: Tensor,
    *,
    dataset: str,
    seeds: list[int],
    eps: float,
    steps: int,
    flow_warmup_steps: int,
    batch_size: int,
    lr: float,
    flow_lr: float,
    ema_decay: float,
) -> tuple[Stack, int]:
    """Initialise and train a stack.

    Arguments:
        stack: the stack of R replicas, changed in place.
        points: the training points of each replica, shape (R, N, 2).
        dataset: name of the dataset, a part of every seed.
        steps: number of optimiser steps, including the warm-up.
        flow_warmup_steps: number of first steps that train only the flow, as a normalizing flow; ignored if the flow has no
            parameters.
        lr: peak learning rate of the score network, with a cosine schedule.
        flow_lr: peak learning rate of the flow, with a cosine schedule.

    Returns:
        The stack with averaged weights, and the floating-point operations for training one replica.

    Raises:
        DivergenceError: if a replica's loss is not finite; the message names its seed.
    """
    for part, label in ((stack.noise, SCORE_SEED), (stack.flow, FLOW_SEED)):
        initialise(part, [derive_seed(dataset, seed, "initialisation", label) for seed in seeds])
    has_flow = any(True for _ in stack.flow.parameters())
    warmup = flow_warmup_steps if has_flow else 0
    batches = draws(points, dataset, seeds, steps, batch_size)
    average = ExponentialMovingAverage(stack, ema_decay)
    follow = partial(average.update, Flat(stack))
    joint: Loss = partial(nelbo_loss, stack, sde, eps)
    parts: list[tuple[nn.Module, float]] = [(stack.flow, flow_lr)] if has_flow else []
    flops = _descend(stack, parts, partial(flow_loss, stack), batches, warmup, follow, seeds) if warmup else 0
    flops += _descend(stack, [(stack.noise, lr), *parts], joint, batches, steps - warmup, follow, seeds)
    return average.module, flops // len(seeds)


def _descend(
    stack: Stack,
    parts: list[tuple[nn.Module, float]],
    loss_fn: Loss,
    batches: Iterator[Draw],
    steps: int,
    follow: Callable[[], None],
    seeds: list[int],
) -> int:
    """Take ``steps`` Adam steps on some parts of a stack, each with its peak rate; return the FLOPs of all steps.

    Arguments:
        follow: called after each step, to update the average of the stack.
    """
    optimiser = torch.optim.Adam(
        [{"params": module.parameters(), "lr": peak} for module, peak in parts], betas=BETAS, fused=True
    )
    counter = FlopCounterMode(display=False)
    for step, draw in zip(range(steps), batches, strict=False):
        with counter if step == 0 else nullcontext():
            optimiser.zero_grad(set_to_none=True)
            loss = loss_fn(draw)
            loss.sum().backward()
        if not loss.isfinite().all():
            seed = seeds[int((~loss.isfinite()).nonzero()[0])]
            raise DivergenceError(
                f"loss not finite at step {step} of seed {seed}: lower toy2d.training.lr, flow_lr or map_lr"
            )
        for group, (_, peak) in zip(optimiser.param_groups, parts, strict=True):
            group["lr"] = peak * learning_rate(step, steps, 0, "cosine")
        optimiser.step()
        follow()
    return counter.get_total_flops() * steps
