"""Score networks by their registered names."""

from typing import TYPE_CHECKING, Any

from indm.errors import ParamsError
from indm.registry import NETWORKS

if TYPE_CHECKING:
    from indm.networks.registered.unet import ScoreUNet


def build_network(name: str, **kwargs: Any) -> "ScoreUNet":
    """Build a registered score network from its keyword arguments.

    Raises:
        ParamsError: if no network has this name.
    """
    if name not in NETWORKS:
        raise ParamsError(f"unknown network {name!r}: expected one of {', '.join(NETWORKS)}")
    return NETWORKS[name](**kwargs)
