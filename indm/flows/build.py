"""Flows by their registered names."""

from collections.abc import Mapping
from typing import Any

from indm.errors import ParamsError
from indm.flows.affine import Affine
from indm.flows.base import Flow
from indm.registry import FLOWS


def build_flow(
    name: str,
    *,
    channels_in: int,
    image_size: int,
    affine: Mapping[str, float] | None = None,
    **options: Any,
) -> Flow:
    """Build the flow registered under ``name`` for images of shape (channels_in, image_size, image_size).

    Arguments:
        name: a name in :data:`indm.registry.FLOWS`.
        channels_in: channels of an image.
        image_size: its height and width.
        affine: scale, mean and std of an :class:`Affine` map in front of it, or ``None``.
        **options: of the flow.

    Raises:
        ParamsError: if there is no such flow.
    """
    if name not in FLOWS:
        raise ParamsError(f"unknown flow {name!r}: expected one of {', '.join(FLOWS)}")
    flow = FLOWS[name](channels_in, image_size, **options)
    return flow if affine is None else Affine(flow, **affine)
