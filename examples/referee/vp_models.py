"""The same data under VP: networks that predict the clean image, v and the velocity of a straight path."""

from my_data import images, mean, variance
from torch import Tensor

import indm

sde = indm.build_sde("vp")


def clean(z: Tensor, t: Tensor) -> Tensor:
    a, s = (value(t).view(-1, 1, 1, 1) for value in (sde.alpha, sde.sigma))
    return mean + a * variance / (a**2 * variance + s**2) * (z - a * mean)


def v(z: Tensor, t: Tensor) -> Tensor:
    a, s = (value(t).view(-1, 1, 1, 1) for value in (sde.alpha, sde.sigma))
    return a * s * (1 - variance) / (a**2 * variance + s**2) * (z - a * mean) - s * mean


def velocity(x: Tensor, tau: Tensor) -> Tensor:
    a, s = (value.view(-1, 1, 1, 1) for value in (1 - tau, tau))
    return (s - a * variance) / (a**2 * variance + s**2) * (x - a * mean) - mean


kinds = {"clean": clean, "v": v, "velocity": velocity}
reports = {kind: indm.referee(network, sde, images, kind=kind, levels=17) for kind, network in kinds.items()}
