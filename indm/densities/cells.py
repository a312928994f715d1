r"""The models that the study of known densities compares, each trained as one stack with all seeds.

INDM, whose flow is made of affine couplings, is compared with plain DDPM++, DDPM++ with INDM's training compute, on data times a
constant, and behind a learned linear map. ``frozen-flow`` is INDM with a score network that is trained anew on the latents of the
trained flow. The rivals of a flow are DDPM++ with learned ends of the log-SNR, MuLAN, and DiffEnc, whose encoder has half
as many hidden layers as INDM has couplings, of the same width: a step then costs about as much as INDM's.
"""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from indm.densities.known import DENSITIES
from indm.densities.models import CouplingFlow, Flow, LinearMap, Scale, ScoreMLP, Stack, parameter_count
from indm.densities.movers import EncoderMover, RangeMover, SchedulesMover
from indm.densities.training import train
from indm.diffusion.sde import SDE

# The rivals of a flow, with their families and variants.
RIVALS = {"learned-range": ("ddpmpp", "learned-range"), "mulan": ("mulan", ""), "diffenc": ("diffenc", "")}


@dataclass(frozen=True)
class Cell:
    """A model with all its seeds.

    Arguments:
        model: the family.
        variant: the control; empty for a plain model.
        stack: the trained replicas, one per seed.
        flops: the floating-point operations for training one replica.
        step_flops: the floating-point operations of a step of one replica.
    """

    model: str
    variant: str
    stack: Stack
    flops: int
    step_flops: int

    @property
    def parameters(self) -> int:
        """Number of parameters of one replica."""
        return parameter_count(self.stack)


def train_cells(
    name: str,
    seeds: list[int],
    sde: SDE,
    *,
    scale: float,
    rates: Mapping[str, Mapping[str, float]],
    steps: int,
    width: int,
    layers: int,
    couplings: int,
    coupling_width: int,
    **recipe: Any,
) -> Iterator[Cell]:
    """Train the models on a density, all seeds at once.

    Arguments:
        name: name of the density.
        scale: constant by which ``best-scale`` multiplies the data.
        rates: ``lr`` and ``map_lr`` of each model to train, ``ddpmpp`` and ``indm`` among them.
        recipe: the other arguments of :func:`indm.densities.training.train`.

    Yields:
        The cells: INDM first, DDPM++, the controls, and the rivals.
    """
    density, replicas = DENSITIES[name](), len(seeds)
    fit: Callable[..., tuple[Stack, int]] = partial(train, sde=sde, density=density, name=name, seeds=seeds, **recipe)

    def network() -> ScoreMLP:
        return ScoreMLP(replicas, density.dims, width, layers, sde)

    def trained(model: str) -> Flow:
        sizes = {"couplings": couplings, "coupling_width": coupling_width}
        return trained_flow(model, replicas, density.dims, eps=recipe["eps"], **sizes)

    indm, indm_flops = fit(Stack(network(), trained("indm")), steps=steps, **rates["indm"])
    yield Cell("indm", "", indm, indm_flops, indm_flops // steps)
    identity = Scale(torch.ones(replicas))
    plain, flops = fit(Stack(network(), identity), steps=steps, **rates["ddpmpp"])
    yield Cell("ddpmpp", "", plain, flops, flops // steps)
    controls: dict[str, tuple[Flow, int]] = {
        "same-compute": (identity, round(steps * indm_flops / flops)),
        "best-scale": (Scale(torch.full((replicas,), scale)), steps),
        "learned-linear": (trained("learned-linear"), steps),
        "frozen-flow": (deepcopy(indm.flow).requires_grad_(False), steps),
    }
    for variant, (before, length) in controls.items():
        if variant in rates:
            stack, flops = fit(Stack(network(), before), steps=length, **rates[variant])
            # INDM's training counts as well, because it trained this flow.
            frozen = variant == "frozen-flow"
            yield Cell("indm" if frozen else "ddpmpp", variant, stack, flops + frozen * indm_flops, flops // length)
    for name, (model, variant) in RIVALS.items():
        if name in rates:
            stack, flops = fit(Stack(network(), trained(name)), steps=steps, **rates[name])
            yield Cell(model, variant, stack, flops, flops // steps)


def trained_flow(name: str, replicas: int, dims: int, *, eps: float, couplings: int, coupling_width: int) -> Flow:
    """Return the flow of a model with one that is trained, or the forward process in its place, at its start."""
    match name:
        case "indm":
            return CouplingFlow(replicas, dims, couplings, coupling_width)
        case "learned-linear":
            return LinearMap(replicas, dims)
        case "learned-range":
            return RangeMover(replicas, eps)
        case "mulan":
            return SchedulesMover(replicas, dims, eps)
        case "diffenc":
            return EncoderMover(replicas, dims, max(1, couplings // 2), coupling_width)
    raise KeyError(name)
