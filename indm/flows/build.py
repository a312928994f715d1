"""Flows by their registered names, behind a fixed affine map if a suite asks for one."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from indm.errors import ParamsError
from indm.flows.base import Flow, LogDet
from indm.flows.sources import Source
from indm.registry import FLOWS


class Affine(Flow):
    r"""A flow h' behind a fixed map of the data, the same for every pixel.

    .. math::
        h(x) = h'\Big(s\,\frac{x - m}{d}\Big), \qquad
        \log\Big|\det\frac{\partial h}{\partial x}\Big| = \log\Big|\det\frac{\partial h'}{\partial x'}\Big| + D\log\frac sd

    With the identity as h', it is the control that separates the gain of a flow from the gain of rescaling the latent. The
    three numbers belong to the model's description, not to its weights.

    Arguments:
        flow: the flow h'.
        scale: the scale s > 0.
        mean: the mean m.
        std: the standard deviation d > 0.
    """

    def __init__(self, flow: Flow, *, scale: float, mean: float, std: float) -> None:
        channels, size, _ = flow.image_shape
        super().__init__(channels, size)
        self.flow = flow
        self.factor = scale / std
        self.mean = mean

    def forward(self, x: Tensor, log_det: LogDet, generator: Source = None) -> tuple[Tensor, Tensor]:
        z, value = self.flow(self.factor * (x - self.mean), log_det, generator)
        return z, value if log_det == "none" else value + x[0].numel() * math.log(self.factor)

    @torch.no_grad()
    def inverse(
        self, z: Tensor, atol: float = 1e-6, max_iterations: int = 1000, generator: torch.Generator | None = None
    ) -> Tensor:
        return self.flow.inverse(z, atol, max_iterations, generator) / self.factor + self.mean

    @property
    def mean_terms(self) -> float:
        return self.flow.mean_terms

    def fix_terms(self, count: int) -> None:
        self.flow.fix_terms(count)

    def update_norms(self) -> None:
        self.flow.update_norms()


def build_flow(
    name: str, *, channels_in: int, image_size: int, affine: Mapping[str, float] | None = None, **options: Any
) -> Flow:
    """Build the flow registered under ``name`` for images of shape (channels_in, image_size, image_size).

    Arguments:
        affine: scale, mean and std of an :class:`Affine` map in front of it, or ``None``.

    Raises:
        ParamsError: if the name is not registered.
    """
    if name not in FLOWS:
        raise ParamsError(f"unknown flow {name!r}: expected one of {', '.join(FLOWS)}")
    flow = FLOWS[name](channels_in, image_size, **options)
    return flow if affine is None else Affine(flow, **affine)
