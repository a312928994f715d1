r"""The models that the study of two-dimensional data compares, trained as a small number of stacks.

INDM is compared with plain DDPM++ and with controls: DDPM++ on standardised data, on data times a constant, with INDM's training
compute, and with INDM's number of parameters. Between the two lies a ladder of flows: DDPM++ that learns one scale, two scales and
shifts, or a linear map with a shift, trained with the score network from the first step on. ``frozen-flow`` is INDM with a score
network that is retrained on the latents of the trained flow.
"""

import itertools
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from indm.diffusion.sde import SDE
from indm.toy2d.models import (
    FAMILIES,
    CouplingFlow,
    Flow2d,
    LearnedMap,
    ScoreMLP,
    Stack,
    Standardisation,
    parameter_count,
    select,
)
from indm.toy2d.training import train


@dataclass(frozen=True)
class Cell:
    """A model with all its seeds.

    Arguments:
        model: ``ddpmpp`` or ``indm``.
        variant: the control; empty for a plain model.
        stack: the trained replicas, one per seed.
        flops: the floating-point operations for training one replica.
    """

    model: str
    variant: str
    stack: Stack
    flops: int

    @property
    def parameters(self) -> int:
        """Number of parameters of one replica."""
        return parameter_count(self.stack)


Fit = Callable[..., tuple[Stack, int]]


def train_cells(
    dataset: str,
    seeds: list[int],
    points: Tensor,
    sde: SDE,
    *,
    width: int,
    layers: int,
    couplings: int,
    coupling_width: int,
    scales: list[float],
    steps: int,
    map_lr: float,
    **recipe: Any,
) -> list[Cell]:
    """Train every model on a dataset, all seeds at once.

    Arguments:
        points: the training points of each seed, shape (S, N, 2).
        scales: constants by which the data is multiplied in the controls.
        map_lr: peak learning rate of the learned maps.
        recipe: the other arguments of :func:`indm.toy2d.training.train`.

    Returns:
        The cells: INDM, INDM ``frozen-flow``, DDPM++, and its controls ``standardised``, ``scale-...``, ``learned-scale``,
        ``learned-affine``, ``learned-linear``, ``same-compute`` and ``same-parameters``.
    """
    replicas = len(points)
    fit: Fit = partial(_fit, dataset, seeds, steps=steps, **recipe)
    build = partial(ScoreMLP, layers=layers, sde=sde)
    narrow = partial(build, width=width)
    indm, indm_flops = fit(points, Stack(narrow(replicas), CouplingFlow(replicas, couplings, coupling_width)))
    fixed, flops = _fixed(fit, narrow, points, indm.flow, scales)
    learned, learned_flops = _learned(partial(fit, flow_lr=map_lr, flow_warmup_steps=0), narrow, points)
    identity: Flow2d = Standardisation(torch.zeros(replicas), torch.ones(replicas))
    longer = round(steps * indm_flops / flops)
    wider = matching_width(lambda candidate: build(1, candidate), parameter_count(indm))
    return [
        Cell("indm", "", indm, indm_flops),
        # It uses INDM's flow, so INDM's training counts as well.
        Cell("indm", "frozen-flow", fixed.pop("frozen-flow"), indm_flops + flops),
        *(Cell("ddpmpp", variant, stack, flops) for variant, stack in fixed.items()),
        *(Cell("ddpmpp", variant, stack, learned_flops) for variant, stack in learned.items()),
        Cell("ddpmpp", "same-compute", *fit(points, Stack(narrow(replicas), identity), steps=longer)),
        Cell("ddpmpp", "same-parameters", *fit(points, Stack(build(replicas, wider), identity))),
    ]


def affine_variants(points: Tensor, scales: list[float]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the mean (S,) and factor (S,) of each variant's affine map, from training points (S, N, 2)."""
    mean, std = points.mean((1, 2)), points.std((1, 2))
    zero, one = torch.zeros_like(mean), torch.ones_like(mean)
    scaled = {f"scale-{scale:g}": scale * one for scale in scales}
    factors = {"": one, "standardised": 1 / std, **scaled}
    return {variant: mean if variant == "standardised" else zero for variant in factors}, factors


def matching_width(build: Callable[[int], nn.Module], parameters: int) -> int:
    """Return the smallest width at which a network has at least ``parameters`` parameters."""
    size = partial(_size, build)
    widths = range(1, next(width for width in map(partial(pow, 2), itertools.count()) if size(width) >= parameters) + 1)
    return widths[bisect_left(widths, parameters, key=size)]


def _size(build: Callable[[int], nn.Module], width: int) -> int:
    return parameter_count(build(width))


def _fixed(
    fit: Fit, build: Callable[[int], ScoreMLP], points: Tensor, flow: Flow2d, scales: list[float]
) -> tuple[dict[str, Stack], int]:
    """Train the variants with fixed maps, including ``frozen-flow``, whose data are the latents of a trained flow."""
    means, factors = affine_variants(points, scales)
    with torch.no_grad():
        latents = flow(points)[0]
    data = torch.cat([*[points] * len(means), latents])
    identity = torch.zeros(len(points)), torch.ones(len(points))
    maps = Standardisation(torch.cat([*means.values(), identity[0]]), torch.cat([*factors.values(), identity[1]]))
    stack, flops = fit(data, Stack(build(len(data)), maps))
    parts = _split(stack, [*means, "frozen-flow"])
    parts["frozen-flow"].flow = flow
    return parts, flops


def _learned(fit: Fit, build: Callable[[int], ScoreMLP], points: Tensor) -> tuple[dict[str, Stack], int]:
    """Train the variants with learned maps."""
    families = [family for family in FAMILIES for _ in points]
    stack, flops = fit(points, Stack(build(len(families)), LearnedMap(families)))
    parts = _split(stack, [f"learned-{family}" for family in FAMILIES])
    for part in parts.values():
        part.flow = cast(LearnedMap, part.flow).trimmed()
    return parts, flops


def _split(stack: Stack, variants: list[str]) -> dict[str, Stack]:
    """Split a stack into its variants, each with all seeds."""
    seeds = stack.replicas // len(variants)
    return {variant: select(stack, slice(i * seeds, (i + 1) * seeds)) for i, variant in enumerate(variants)}


def _fit(dataset: str, seeds: list[int], points: Tensor, stack: Stack, **recipe: Any) -> tuple[Stack, int]:
    """Train a stack of variants, each with all seeds, on points per seed (S, N, 2) or per replica (R, N, 2)."""
    return train(
        stack,
        stack.noise.sde,
        points.repeat(stack.replicas // len(points), 1, 1),
        dataset=dataset,
        seeds=seeds * (stack.replicas // len(seeds)),
        **recipe,
    )
