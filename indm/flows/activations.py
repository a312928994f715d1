"""Activations of residual branches: functions with slopes in [-1, 1], with their derivatives."""

import math
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

ActivationName = Literal["sin", "elu"]


class Activation(Protocol):
    """An elementwise function f with its derivatives, which reuse each other's values; no tensor has a unit.

    .. math:: f(x) = F(c x) / c

    A layer in front of f that is multiplied by c, and a layer behind it that is divided by c, leave only F to evaluate.

    Arguments:
        factor: c.
    """

    factor: float

    def value(self, x: Tensor) -> Tensor:
        """Return f(x), (*) to (*)."""

    def slope(self, x: Tensor, value: Tensor) -> Tensor:
        """Return f'(x), shape (*), given x and f(x), with the same shape."""

    def curvature(self, value: Tensor, slope: Tensor) -> Tensor:
        """Return f''(x), shape (*), given f(x) and f'(x), with the same shape."""

    def evaluate(self, u: Tensor, value: Tensor, slope: Tensor) -> None:
        """Write F(u) into ``value``, which may be u, and F'(u) into ``slope``; all have the shape of u, (*)."""

    def add_curvature(self, total: Tensor, value: Tensor, slope: Tensor, product: Tensor) -> None:
        """Add F''(u) times ``product`` to ``total``, in place, given F(u) and F'(u); all have the shape of u, (*)."""


class ScaledSin:
    """sin(2 pi x) / (2 pi), where F is the sine."""

    factor = 2 * math.pi

    def value(self, x: Tensor) -> Tensor:
        """Return sin(2 pi x) / (2 pi), (*) to (*)."""
        return (x * (2 * math.pi)).sin() / (2 * math.pi)

    def slope(self, x: Tensor, value: Tensor) -> Tensor:
        """Return cos(2 pi x), (*) to (*)."""
        return (x * (2 * math.pi)).cos()

    def curvature(self, value: Tensor, slope: Tensor) -> Tensor:
        """Return -2 pi sin(2 pi x), which is -4 pi^2 f(x), shape (*)."""
        return value * (-4 * math.pi**2)

    def evaluate(self, u: Tensor, value: Tensor, slope: Tensor) -> None:
        """Write sin(u) into ``value`` and cos(u) into ``slope``; all have the shape of u, (*)."""
        torch.cos(u, out=slope)
        torch.sin(u, out=value)

    def add_curvature(self, total: Tensor, value: Tensor, slope: Tensor, product: Tensor) -> None:
        """Add -sin(u) times ``product`` to ``total``, in place; all have the shape of u, (*)."""
        total.addcmul_(value, product, value=-1)


class Elu:
    """x above 0, e^x - 1 below; F is the same function."""

    factor = 1.0

    def value(self, x: Tensor) -> Tensor:
        """Return x above 0 and e^x - 1 below, (*) to (*)."""
        return F.elu(x)

    def slope(self, x: Tensor, value: Tensor) -> Tensor:
        """Return 1 above 0 and e^x, which is f(x) + 1, below, shape (*)."""
        return value.clamp(max=0) + 1

    def curvature(self, value: Tensor, slope: Tensor) -> Tensor:
        """Return 0 above 0 and e^x, which is the slope, below, shape (*)."""
        # The slope where it is below 1, and 0 elsewhere; torch.where with a number is slower.
        return -F.threshold(-slope, -1.0, 0.0)

    def evaluate(self, u: Tensor, value: Tensor, slope: Tensor) -> None:
        """Write f(u) into ``value`` and its slope into ``slope``; all have the shape of u, (*)."""
        value.copy_(F.elu(u))
        torch.clamp(value, max=0, out=slope).add_(1)

    def add_curvature(self, total: Tensor, value: Tensor, slope: Tensor, product: Tensor) -> None:
        """Add the curvature at u times ``product`` to ``total``, in place; all have the shape of u, (*)."""
        total.addcmul_(self.curvature(value, slope), product)


ACTIVATIONS: dict[ActivationName, Activation] = {"sin": ScaledSin(), "elu": Elu()}
