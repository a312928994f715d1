"""Activations of residual branches: functions with slopes in [-1, 1], with their derivatives."""

import math
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

ActivationName = Literal["sin", "elu"]


class Activation(Protocol):
    r"""An elementwise function f with its derivatives, which reuse each other's values; all tensors have the shape of x.

    .. math:: f(x) = F(c x) / c

    A layer in front of f that is multiplied by c, and a layer behind it that is divided by c, leave only F to evaluate.

    Arguments:
        factor: c.
    """

    factor: float

    def value(self, x: Tensor) -> Tensor:
        """Return f(x)."""

    def slope(self, x: Tensor, value: Tensor) -> Tensor:
        """Return f'(x), given f(x)."""

    def curvature(self, value: Tensor, slope: Tensor) -> Tensor:
        """Return f''(x), given f(x) and f'(x)."""

    def evaluate(self, u: Tensor, value: Tensor, slope: Tensor) -> None:
        """Write F(u) into ``value``, which may be u, and F'(u) into ``slope``."""

    def add_curvature(self, total: Tensor, value: Tensor, slope: Tensor, product: Tensor) -> None:
        """Add F''(u) times a product to a total, in place, given F(u) and F'(u)."""


class ScaledSin:
    """sin(2 pi x) / (2 pi), where F is the sine."""

    factor = 2 * math.pi

    def value(self, x: Tensor) -> Tensor:
        return (x * (2 * math.pi)).sin() / (2 * math.pi)

    def slope(self, x: Tensor, value: Tensor) -> Tensor:
        return (x * (2 * math.pi)).cos()

    def curvature(self, value: Tensor, slope: Tensor) -> Tensor:
        return value * (-4 * math.pi**2)

    def evaluate(self, u: Tensor, value: Tensor, slope: Tensor) -> None:
        torch.cos(u, out=slope)
        torch.sin(u, out=value)

    def add_curvature(self, total: Tensor, value: Tensor, slope: Tensor, product: Tensor) -> None:
        total.addcmul_(value, product, value=-1)


class Elu:
    """x above 0, e^x - 1 below; F is the same function."""

    factor = 1.0

    def value(self, x: Tensor) -> Tensor:
        return F.elu(x)

    def slope(self, x: Tensor, value: Tensor) -> Tensor:
        return value.clamp(max=0) + 1

    def curvature(self, value: Tensor, slope: Tensor) -> Tensor:
        # The slope where it is below 1, and 0 elsewhere; torch.where with a number takes ten times as long.
        return -F.threshold(-slope, -1.0, 0.0)

    def evaluate(self, u: Tensor, value: Tensor, slope: Tensor) -> None:
        value.copy_(F.elu(u))
        torch.clamp(value, max=0, out=slope).add_(1)

    def add_curvature(self, total: Tensor, value: Tensor, slope: Tensor, product: Tensor) -> None:
        total.addcmul_(self.curvature(value, slope), product)


ACTIVATIONS: dict[ActivationName, Activation] = {"sin": ScaledSin(), "elu": Elu()}
