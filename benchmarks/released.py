"""The released code's training step, out of a checkout of github.com/byeonghu-na/INDM, for comparison.

The checkout cannot be imported as it is: packages are missing that its training step does not need, and are stood in for here
by modules that hold nothing. Nothing of it is changed.
"""

import collections.abc
import contextlib
import importlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor


def step(checkout: Path, model: str, objective: str) -> Callable[[Tensor], object]:
    """Return a function that takes one training step on images (B, 3, 32, 32) between -1 and 1, of VP on CIFAR-10.

    Arguments:
        checkout: of the released code.
        model: ``ddpmpp`` (no flow), ``wolf``, or ``resflow``.
        objective: ``nll`` or ``fid``.
    """
    config, load = _open(checkout, model, objective)
    # It opens its configurations by relative paths.
    with contextlib.chdir(checkout):
        return _step(config, load)


def flow_step(checkout: Path, model: str, objective: str) -> Callable[[Tensor], object]:
    """Return a function that trains the flow of :func:`step` alone, on the likelihood under a standard normal latent.

    The released code has no such step: it is made of its flow, its optimiser and its average.
    """
    config, load = _open(checkout, model, objective)
    with contextlib.chdir(checkout):
        state = _state(config, load, _flow(config, load), config.flow.lr)
    optimise = load("losses").optimization_manager(config)

    def take(images: Tensor) -> None:
        state["optimizer"].zero_grad()
        z, log_det = load("flow_models.flow_model").flow_forward(config, state["model"], images)
        loss = (z.flatten(1).square().sum(1) / 2 - log_det.flatten()).mean() / z[0].numel()
        loss.backward()
        optimise(state["optimizer"], state["model"].parameters(), step=state["step"])
        load("flow_models.resflow.utils").update_lipschitz(state["model"])
        state["step"] += 1
        state["ema"].update(state["model"].parameters())

    return take


def likelihood(checkout: Path) -> tuple[Any, Any, ModuleType]:
    """Return the configuration of VP on CIFAR-10 without a flow, its SDE, and the module of likelihoods."""
    config, load = _open(checkout, "ddpmpp", "nll")
    return config, _sde(config, load), load("likelihood")


Load = Callable[[str], Any]


def _open(checkout: Path, model: str, objective: str) -> tuple[Any, Load]:
    _make_importable(checkout)
    load: Load = importlib.import_module
    config = load(f"configs.vp.CIFAR10.indm_{objective}").get_config()
    config.device = torch.device("cpu")
    config.flow.model = {"ddpmpp": "identity"}.get(model, model)
    return config, load


def _sde(config: Any, load: Load) -> Any:
    parameters = config.model
    return load("sde_lib").VPSDE(beta_min=parameters.beta_min, beta_max=parameters.beta_max, N=parameters.num_scales)


def _flow(config: Any, load: Load) -> torch.nn.Module:
    return load("flow_models.flow_model").create_flow_model(config)


def _state(config: Any, load: Load, part: torch.nn.Module, lr: float) -> dict[str, Any]:
    optimizer = load("losses").get_optimizer(config, part.parameters(), lr=lr)
    average = load("models.ema").ExponentialMovingAverage(part.parameters(), decay=config.model.ema_rate)
    return {"model": part, "optimizer": optimizer, "ema": average, "step": 0}


def _step(config: Any, load: Load) -> Callable[[Tensor], object]:
    score = _state(config, load, load("models.ncsnpp").NCSNpp(config), config.optim.lr)
    flow = None
    if config.flow.model != "identity":
        flow = _state(config, load, _flow(config, load), config.flow.lr)
    losses = load("losses")
    optimise = losses.optimization_manager(config)
    step_fn = losses.get_step_fn(config, _sde(config, load), train=True, optimize_fn=optimise)
    return lambda images: step_fn(score, flow, images)


class _Configuration(SimpleNamespace):
    """What stands in for ml_collections.ConfigDict."""


def _make_importable(checkout: Path) -> None:
    if not (checkout / "flow_models").is_dir():
        sys.exit(f"{checkout}: found no folder flow_models; expected a checkout of github.com/byeonghu-na/INDM")
    sys.path.insert(0, str(checkout))
    # Before the stand-ins: torch's compiler, which it imports, looks for the true packages.
    importlib.import_module("torchvision")
    contents: dict[str, dict[str, Any]] = {
        "ml_collections": {"ConfigDict": _Configuration},
        "overrides": {"overrides": lambda function: function},
        "op": {"upfirdn2d": None},
        "tensorflow": {},
        "torch._six": {"inf": math.inf, "container_abcs": collections.abc},
    }
    for name, content in contents.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        sys.modules.setdefault(name, module)
