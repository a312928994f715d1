"""Score networks, the noise model around them, and the moving average of their weights."""

from typing import Any

from indm.errors import ParamsError
from indm.models.ema import ExponentialMovingAverage
from indm.models.noise import Marginal, NoiseModel
from indm.models.unet import ScoreUNet

__all__ = ["NETWORKS", "ExponentialMovingAverage", "Marginal", "NoiseModel", "ScoreUNet", "build_network"]

NETWORKS: dict[str, type[ScoreUNet]] = {"unet": ScoreUNet}


def build_network(name: str, **kwargs: Any) -> ScoreUNet:  # noqa: ANN401
    """Build a registered score network from its keyword arguments.

    Raises:
        ParamsError: no network has this name.
    """
    if name not in NETWORKS:
        raise ParamsError(f"unknown network {name!r}: expected one of {', '.join(sorted(NETWORKS))}")
    return NETWORKS[name](**kwargs)
