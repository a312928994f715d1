"""Checkpoints as the released code would write them, of this package's modules."""

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from indm.flows.base import Flow
from indm.networks.registered.unet import ScoreUNet
from indm.released.flow import flow_entries
from indm.released.score import score_entries
from tests.conftest import GOLDEN


def score_config(sde: str) -> dict[str, Any]:
    """Return the configuration of the golden score network, or one of the released VE networks of the same size."""
    config: dict[str, Any] = json.loads((GOLDEN / "configs.json").read_text())["score_vp_ddpmpp"]
    if sde == "ve":
        config["data"]["centered"], config["training"]["sde"] = False, "vesde"
        config["model"] |= {"embedding_type": "fourier", "fir": True}
        config["model"] |= {"progressive_input": "residual", "scale_by_sigma": True}
    return config


def export_score(network: ScoreUNet) -> dict[str, Tensor]:
    """Return a network's weights as entries ``module.all_modules.N.*`` of the released layout (copies)."""
    return {f"module.{name}": entry.clone() for name, entry in score_entries(network).items()}


def export_flow(flow: Flow) -> dict[str, Tensor]:
    """Return a flow's weights and running statistics as entries ``module.*`` of the released layout (copies).

    The numbers of the released layout that no computation reads (``geom_p``, ``scale``, ...) are left out.
    """
    return {f"module.{name}": entry.clone() for name, entry in flow_entries(flow).items()}


def gradients(module: nn.Module, export: Callable[[Any], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Name a module's gradients as the released code names its weights."""
    found = deepcopy(module)
    for mine, source in zip(found.parameters(), module.parameters(), strict=True):
        assert source.grad is not None
        mine.data = source.grad
    return export(found)
