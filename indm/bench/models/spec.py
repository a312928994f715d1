"""Conversion of a suite's settings into a model's specification, its trainer and its plan."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch

from indm.diffusion.model import ImplicitNonlinearDiffusion, build_model
from indm.flows.base import Batches
from indm.registry import DIFFUSIONS, FAMILIES
from indm.training.distributed import copy_from_first
from indm.training.loop import Plan
from indm.training.losses import Optimisation
from indm.training.trainer import Trainer

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite
    from indm.bench.suite.schema.train import (
        FixedMapParams,
        FlowParams,
        LatentParams,
        ScoreParams,
        TrainedVPParams,
        TrainParams,
        VEParams,
    )


STANDARD = (0.0, 1.0)


def model_spec(
    suite: "Suite", name: str, shape: list[int], data_moments: tuple[float, float] = STANDARD
) -> dict[str, Any]:
    """Return the specification that rebuilds the model of run ``name``.

    Arguments:
        suite: the suite.
        name: the run.
        shape: (C, H, W) of an image.
        data_moments: mean and standard deviation of the training images' pixels in model space, for a run that standardises its
            latent.
    """
    run, parameters = suite.runs[name], suite.train_params(name)
    *behind, last = suite.flows_of(name)
    return {
        "shape": shape,
        "sde": {"name": run.sde} | _sde_spec(getattr(parameters.sde, DIFFUSIONS[run.sde].section)),
        "eps": parameters.sde.eps,
        "centered": parameters.centered,
        "score": _score_spec(parameters.score),
        "flow": (_flow_spec(parameters.flow) if run.has_flow else {"name": last})
        | ({"behind": behind} if behind else {})
        | _affine_spec(parameters.latent, data_moments)
        | _fixed_spec(parameters.latent.fixed),
    } | ({} if FAMILIES[run.model] is ImplicitNonlinearDiffusion else {"family": run.model})


def _sde_spec(section: "TrainedVPParams | VEParams") -> dict[str, Any]:
    """Return a diffusion's specification, with ``learned_range`` only if it is true, because diffusions do not take it."""
    return {key: value for key, value in section.model_dump().items() if key != "learned_range" or value}


def _score_spec(score: "ScoreParams") -> dict[str, Any]:
    """Return the network's specification, with ``predict`` and ``precondition`` only if they are not the defaults."""
    defaults = {"predict": "noise", "precondition": "none"}
    return {key: value for key, value in score.model_dump().items() if defaults.get(key) != value}


def _flow_spec(flow: "FlowParams") -> dict[str, Any]:
    residual = flow.model_dump(exclude={"wolf"})
    return residual if flow.wolf is None else residual | flow.wolf.model_dump()


def _fixed_spec(fixed: "FixedMapParams | None") -> dict[str, Any]:
    """Return the specification of the fixed maps, with ``spectrum`` only if it is not the default; empty without such maps."""
    if fixed is None:
        return {}
    return {"fixed": fixed.model_dump(exclude={"spectrum"} if fixed.spectrum == "exact" else None)}


def _affine_spec(latent: "LatentParams", data_moments: tuple[float, float]) -> dict[str, Any]:
    """Return the specification of the map in front of the flow; empty for the identity, as in released models."""
    mean, std = data_moments if latent.standardise else STANDARD
    affine = {"scale": latent.scale, "mean": mean, "std": std}
    return {"affine": affine} if latent.standardise or latent.scale != 1 else {}


def build_trainer(
    suite: "Suite",
    name: str,
    shape: list[int],
    device: torch.device,
    data_moments: tuple[float, float] = STANDARD,
    batches: Batches | None = None,
) -> Trainer:
    """Build the trainer of a run, with weights drawn from torch's generator; see :func:`model_spec`.

    Arguments:
        shape: (C, H, W) of an image.
        batches: passes over the training images in model space, in batches with shape (B, C, H, W), from which fixed maps and
            preconditioned networks are fitted; ``None`` where only the model's size counts.
    """
    parameters = suite.train_params(name)
    model = build_model(model_spec(suite, name, shape, data_moments)).to(device)
    if batches is not None:
        model.fit(batches)
    copy_from_first(model.state_dict().values())
    return Trainer(model, Optimisation(objective=suite.runs[name].objective, **_shared(parameters, Optimisation)))


def build_plan(parameters: "TrainParams") -> Plan:
    """Build the plan of a run's training."""
    return Plan(**_shared(parameters, Plan))


def _shared(parameters: "TrainParams", kind: type) -> dict[str, Any]:
    """Select the parameters that are fields of a dataclass."""
    names = {field.name for field in fields(kind)}
    return {name: getattr(parameters, name) for name in type(parameters).model_fields if name in names}
