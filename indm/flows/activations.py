"""Activations of residual branches: functions with slopes in [-1, 1], with their derivatives."""

import math
from typing import Literal, Protocol

import torch.nn.functional as F
from torch import Tensor

ActivationName = Literal["sin", "elu"]


class Activation(Protocol):
    """An elementwise function f with its derivatives, which reuse each other's values; all tensors have the shape of x."""

    def value(self, x: Tensor) -> Tensor:
        """Return f(x)."""

    def slope(self, x: Tensor, value: Tensor) -> Tensor:
        """Return f'(x), given f(x)."""

    def curvature(self, value: Tensor, slope: Tensor) -> Tensor:
        """Return f''(x), given f(x) and f'(x)."""


class ScaledSin:
    """sin(2 pi x) / (2 pi)."""

    def value(self, x: Tensor) -> Tensor:
        return (x * (2 * math.pi)).sin() / (2 * math.pi)

    def slope(self, x: Tensor, value: Tensor) -> Tensor:
        return (x * (2 * math.pi)).cos()

    def curvature(self, value: Tensor, slope: Tensor) -> Tensor:
        return value * (-4 * math.pi**2)


class Elu:
    """x above 0, e^x - 1 below."""

    def value(self, x: Tensor) -> Tensor:
        return F.elu(x)

    def slope(self, x: Tensor, value: Tensor) -> Tensor:
        return value.clamp(max=0) + 1

    def curvature(self, value: Tensor, slope: Tensor) -> Tensor:
        # The slope where it is below 1, and 0 elsewhere; torch.where with a number takes ten times as long.
        return -F.threshold(-slope, -1.0, 0.0)


ACTIVATIONS: dict[ActivationName, Activation] = {"sin": ScaledSin(), "elu": Elu()}
