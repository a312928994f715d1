r"""The models that the study of two-dimensional data compares, trained as few stacks.

INDM beside DDPM++ as it is and five controls of it: on standardised data, on data times a constant, with INDM's training
compute, and with INDM's number of parameters.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from indm.diffusion.sde import SDE
from indm.toy2d.models import CouplingFlow, Flow2d, ScoreMLP, Stack, Standardisation, parameter_count, select
from indm.toy2d.training import train


@dataclass(frozen=True)
class Cell:
    """A model in all its seeds.

    Arguments:
        model: ``ddpmpp`` or ``indm``.
        variant: the control, or an empty text.
        stack: trained replicas, one for each seed.
        flops: floating-point operations of the training of one replica.
    """

    model: str
    variant: str
    stack: Stack
    flops: int

    @property
    def parameters(self) -> int:
        """Parameters of one replica."""
        return parameter_count(self.stack)


Fit = Callable[..., tuple[Stack, int]]


def train_cells(
    dataset: str,
    points: Tensor,
    sde: SDE,
    *,
    width: int,
    layers: int,
    couplings: int,
    coupling_width: int,
    scales: list[float],
    steps: int,
    **recipe: Any,
) -> list[Cell]:
    """Train every model on a dataset, all seeds at once.

    Arguments:
        dataset: name of the dataset.
        points: training points of each seed, shape (S, N, 2).
        sde: the diffusion of the latents.
        width: hidden units of a layer of the score network.
        layers: hidden layers of the score network.
        couplings: couplings of INDM's flow.
        coupling_width: hidden units of a coupling.
        scales: constants by which the data is multiplied in the controls.
        steps: optimiser steps, but for the control of compute.
        recipe: the other arguments of :func:`indm.toy2d.training.train`.

    Returns:
        The cells: INDM, DDPM++, and the controls ``standardised``, ``scale-...``, ``same-compute`` and
        ``same-parameters``.
    """
    seeds = len(points)
    fit: Fit = partial(_fit, dataset, points, **recipe)
    build = partial(ScoreMLP, layers=layers, sde=sde)
    indm, indm_flops = fit(Stack(build(seeds, width), CouplingFlow(seeds, couplings, coupling_width)), steps=steps)
    cells = [Cell("indm", "", indm, indm_flops)]

    means, factors = affine_variants(points, scales)
    flow = Standardisation(torch.cat(list(means.values())), torch.cat(list(factors.values())))
    stack, flops = fit(Stack(build(seeds * len(means), width), flow), steps=steps)
    for i, variant in enumerate(means):
        cells.append(Cell("ddpmpp", variant, select(stack, slice(i * seeds, (i + 1) * seeds)), flops))

    identity: Flow2d = Standardisation(means[""], factors[""])
    longer = round(steps * indm_flops / flops)
    cells.append(Cell("ddpmpp", "same-compute", *fit(Stack(build(seeds, width), identity), steps=longer)))
    wider = matching_width(lambda candidate: build(1, candidate), parameter_count(indm))
    cells.append(Cell("ddpmpp", "same-parameters", *fit(Stack(build(seeds, wider), identity), steps=steps)))
    return cells


def affine_variants(points: Tensor, scales: list[float]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return mean (S,) and factor (S,) of the affine map of each variant, from training points (S, N, 2)."""
    mean, std = points.mean((1, 2)), points.std((1, 2))
    zero, one = torch.zeros_like(mean), torch.ones_like(mean)
    scaled = {f"scale-{scale:g}": scale * one for scale in scales}
    factors = {"": one, "standardised": 1 / std, **scaled}
    return {variant: mean if variant == "standardised" else zero for variant in factors}, factors


def matching_width(build: Callable[[int], nn.Module], parameters: int) -> int:
    """Return the smallest width with which a network has at least ``parameters`` parameters."""
    return next(width for width in itertools.count(1) if parameter_count(build(width)) >= parameters)


def _fit(dataset: str, points: Tensor, stack: Stack, *, steps: int, **recipe: Any) -> tuple[Stack, int]:
    """Train a stack of variants, each of which has all the seeds of the training points (S, N, 2)."""
    variants = stack.replicas // len(points)
    seeds = list(range(len(points))) * variants
    return train(
        stack, stack.noise.sde, points.repeat(variants, 1, 1), dataset=dataset, seeds=seeds, steps=steps, **recipe
    )
