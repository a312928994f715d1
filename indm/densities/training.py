r"""Training of a stack of replicas on the NELBO, the ``nll`` objective, with fresh points in every step.

The loss of a stack is the sum of its replicas' losses, and the optimiser works elementwise, so replicas are trained independently.
A replica's points, times and noise come from its seed, so all models of one seed see the same ones.

References:
    | Maximum Likelihood Training of Implicit Nonlinear Diffusion Models (Kim et al., 2022)
    | https://arxiv.org/abs/2205.13699, theorem 1
"""

from collections.abc import Iterator
from contextlib import nullcontext

import torch
from torch import Generator, Tensor
from torch.utils.flop_counter import FlopCounterMode

from indm.densities.known import Density
from indm.densities.models import Stack, initialise
from indm.densities.movers import Range
from indm.diffusion.path import nelbo
from indm.diffusion.sde import SDE, importance_time
from indm.seeding import derive_seed
from indm.training.ema import ExponentialMovingAverage
from indm.training.flat import Flat
from indm.training.loop import learning_rate
from indm.training.trainer import BETAS

# Number of steps whose draws are made at once.
BLOCK = 100
Draw = tuple[Tensor, Tensor, Tensor]


def draws(density: Density, name: str, seeds: list[int], steps: int, batch_size: int) -> Iterator[Draw]:
    """Draw the points, the uniform variates of the times, and the noise of each step.

    Arguments:
        name: name of the density, a part of every seed.
        seeds: the seed of each of the R replicas.

    Yields:
        Points with shape (R, B, D), variates in [0, 1) with shape (R, B), float64, and noise with shape (R, B, D).
    """
    generators = [Generator().manual_seed(derive_seed(name, seed, "train")) for seed in seeds]
    for start in range(0, steps, BLOCK):
        parts = zip(*(_block(density, generator, batch_size) for generator in generators), strict=True)
        x, u, noise = (torch.stack(part, 1) for part in parts)
        yield from zip(*(part[: steps - start] for part in (x, u, noise)), strict=True)


def _block(density: Density, generator: Generator, batch_size: int) -> Draw:
    x = density.sample(BLOCK * batch_size, generator).float().unflatten(0, (BLOCK, batch_size))
    u = torch.rand(BLOCK, batch_size, generator=generator, dtype=torch.float64)
    return x, u, torch.randn(x.shape, generator=generator)


def nelbo_loss(stack: Stack, sde: SDE, eps: float, draw: Draw) -> Tensor:
    """Return the mean bound of each replica's batch, without the reconstruction term.

    Arguments:
        draw: points (R, B, D), variates (R, B) and noise (R, B, D), from :func:`draws`.

    Returns:
        The mean bound in nats, shape (R,).
    """
    (x, noise), u = (part.to(next(stack.parameters()).dtype) for part in draw[::2]), draw[1]
    z0, log_det = stack.flow(x)
    z0 = z0.flatten(0, 1)
    t, z = importance_time(sde, u.flatten(), eps)
    path = stack.path(sde)
    error = path.error(stack.noise_fn(), z0, t, noise.flatten(0, 1))
    bound = nelbo(path, z0, log_det.flatten(), error, z, eps)
    # Without its decoder, a learned end of the log-SNR would be the noise that is easiest to model. The fixed one costs no call.
    bound = bound - path.volume(z0, eps) if isinstance(path, Range) else bound
    return stack.unflatten(bound).mean(1)


def train(
    stack: Stack,
    sde: SDE,
    density: Density,
    name: str,
    seeds: list[int],
    *,
    eps: float,
    steps: int,
    batch_size: int,
    lr: float,
    map_lr: float,
    ema_decay: float,
) -> tuple[Stack, int]:
    """Initialise and train a stack, except a flow whose parameters are frozen.

    A replica whose loss becomes infinite or NaN ends with weights that are not finite, and leaves the others as they are.

    Arguments:
        stack: the stack of R replicas, changed in place.
        name: name of the density, a part of every seed.
        seeds: the seed of each replica.
        steps: number of optimiser steps.
        lr: peak learning rate of the score network (Adam), with a cosine schedule.
        map_lr: peak learning rate of the flow, with a cosine schedule.

    Returns:
        The stack with averaged weights, and the floating-point operations for training one replica.
    """
    peaks = {"score": lr} | ({"flow": map_lr} if any(p.requires_grad for p in stack.flow.parameters()) else {})
    parts = {"score": stack.noise, "flow": stack.flow}
    for label in peaks:
        initialise(parts[label], [derive_seed(name, seed, "initialisation", label) for seed in seeds])
    average, counter = ExponentialMovingAverage(stack, ema_decay), FlopCounterMode(display=False)
    weights = Flat(stack)
    groups = [{"params": parts[label].parameters(), "lr": peak} for label, peak in peaks.items()]
    optimiser = torch.optim.Adam(groups, betas=BETAS, fused=True)
    for step, draw in enumerate(draws(density, name, seeds, steps, batch_size)):
        with counter if step == 0 else nullcontext():
            optimiser.zero_grad(set_to_none=True)
            nelbo_loss(stack, sde, eps, draw).sum().backward()
        for group, peak in zip(optimiser.param_groups, peaks.values(), strict=True):
            group["lr"] = peak * learning_rate(step, steps, 0, "cosine")
        optimiser.step()
        average.update(weights)
    return average.module, counter.get_total_flops() * steps // len(seeds)
