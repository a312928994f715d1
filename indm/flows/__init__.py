"""Flows: invertible maps between data and the latent space of the linear diffusion, one registry, one interface."""

from typing import Any

from indm.errors import ParamsError
from indm.flows.base import Flow, LogDet
from indm.flows.identity import Identity
from indm.flows.residual import ResidualFlow
from indm.flows.wolf import Wolf

__all__ = ["FLOWS", "Flow", "Identity", "LogDet", "ResidualFlow", "Wolf", "build_flow"]

FLOWS: dict[str, type[Flow]] = {"identity": Identity, "resflow": ResidualFlow, "wolf": Wolf}


def build_flow(name: str, *, channels_in: int, image_size: int, **options: Any) -> Flow:  # noqa: ANN401
    """Build the flow registered under ``name`` for images of shape (channels_in, image_size, image_size).

    Raises:
        ParamsError: if there is no such flow.
    """
    if name not in FLOWS:
        raise ParamsError(f"unknown flow {name!r}: expected one of {', '.join(sorted(FLOWS))}")
    return FLOWS[name](channels_in, image_size, **options)
