"""Checkpoints as the released code would write them, of this package's modules."""

from torch import Tensor

from indm.flows.base import Flow
from indm.networks.registered.unet import ScoreUNet
from indm.released.flow import flow_entries
from indm.released.score import score_entries


def export_score(network: ScoreUNet) -> dict[str, Tensor]:
    """Return a network's weights as entries ``module.all_modules.N.*`` of the released layout (copies)."""
    return {f"module.{name}": entry.clone() for name, entry in score_entries(network).items()}


def export_flow(flow: Flow) -> dict[str, Tensor]:
    """Return a flow's weights and running statistics as entries ``module.*`` of the released layout (copies).

    The numbers of the released layout that no computation reads (``geom_p``, ``scale``, ...) are left out.
    """
    return {f"module.{name}": entry.clone() for name, entry in flow_entries(flow).items()}
