"""The contract of a forward process: what it accepts, and faults that it finds."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from indm.densities.movers import Range
from indm.diffusion import contract
from indm.diffusion.families.registered import diffenc
from indm.diffusion.families.registered.mulan import Schedules
from indm.diffusion.moved_mean import MovedMean
from indm.diffusion.objectives import NoiseFn, per_sample, squared_norm
from indm.diffusion.path import LinearPath
from indm.diffusion.registered.ve import VE
from indm.diffusion.registered.vp import VP
from indm.errors import ArtifactError
from indm.registry import FAMILIES
from tests.conftest import REPOSITORY

FADING = str(REPOSITORY / "docs/extending/code/fading.py")


@pytest.mark.parametrize("name", [*FAMILIES, FADING], ids=lambda name: Path(name).stem)
def test_a_family_keeps_the_contract(name: str) -> None:
    assert contract.check_family(contract.member(name)) == []


def planted(name: str, methods: dict[str, Any], **literals: Any) -> ModuleType:
    """Return the module of a family whose path has other methods."""
    module = contract.member(name)

    class Faulty(module.FAMILY):  # type: ignore[misc, name-defined]
        @property
        def path(self) -> Any:
            right = super().path
            values = {field.name: getattr(right, field.name) for field in fields(right)}
            return type("Faulty", (type(right),), methods)(**values)

    return cast(ModuleType, SimpleNamespace(FAMILY=Faulty, ONLY=module.ONLY, NO_ODE=module.NO_ODE, **literals))


def with_slope(factor: float) -> dict[str, Any]:
    def changed(self: MovedMean, z0: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        move, slope = MovedMean._with_slope(self, z0, a)
        return move, factor * slope

    return {"_with_slope": changed}


def of_noise(self: LinearPath, noise_fn: NoiseFn, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    return squared_norm(noise_fn(self.perturb(z0, t, noise), t) - noise)


def weighted(change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """MuLAN's error with other weights; the rest is right."""

    def error(self: Schedules, noise_fn: NoiseFn, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        weights = change(self.paths(t)[1])
        return (weights * (noise_fn(self.perturb(z0, t, noise), t) - noise) ** 2).flatten(1).sum(1)

    return {"error": error}


def smaller_error(self: Schedules, *values: Any) -> Tensor:
    return (0.98 if self.coefficients.any() else 1.0) * Schedules.error(self, *values)


def half_noise(self: Schedules, *values: Tensor) -> tuple[Tensor, Tensor]:
    mean, scale = Schedules.reverse_step(self, *values)
    return mean, (0.5 if self.coefficients.any() else 1.0) * scale


def drift(weight: float, own: float) -> dict[str, Any]:
    """MuLAN's drift without weights (0), and with another share of the noise (of 1/2)."""

    def ode_drift(self: Schedules, noise_fn: NoiseFn, z: Tensor, a: Tensor) -> Tensor:
        t = self.sde.time(a.double()).expand(len(z))
        weights, sigma = self.paths(t)[1] ** weight, self._scales(t)[1]
        return weights * sigma * (own * noise_fn(z, t) - sigma * z / 2)

    return {"ode_drift": ode_drift}


def forward_step(self: Schedules, z: Tensor, noise: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    (alpha_t, sigma_t), (alpha_s, sigma_s) = self._scales(t), self._scales(s)
    variance = sigma_t**2 - (alpha_t / alpha_s) ** 2 * sigma_s**2
    return Schedules.reverse_step(self, z, noise, t, s)[0], variance.sqrt()


def first_time(self: MovedMean, z0: Tensor, t: Tensor) -> Tensor:
    return z0 + per_sample(self.sde.sigma(t) ** 2, z0) * self.move(z0, self.sde.antiderivative(t)[:1].expand(len(t)))


def more_entropy(self: Schedules, z0: Tensor, z: Any, eps: float) -> Any:
    return LinearPath.entropy(self, z0, z, eps) + 0.1 * self.coefficients.mean()


def no_volume(self: LinearPath, noise_fn: NoiseFn, z0: Tensor, eps: float, noise: Tensor) -> Tensor:
    return LinearPath.decoder(self, noise_fn, z0, eps, noise) + 2 * self.volume(z0, eps)


def quieter(self: Schedules, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    return Schedules.perturb(self, z0, t, (1 - 0.1 * self.coefficients.std()) * noise)


FAULTS: dict[str, Callable[[], ModuleType]] = {
    "fading: no derivative in time": lambda: planted(FADING, with_slope(0.0)),
    "fading: derivative of the other sign": lambda: planted(FADING, with_slope(-1.0)),
    "fading: error of the linear diffusion": lambda: planted(FADING, {"error": of_noise}),
    "fading: an ODE of a network that gives no score": lambda: planted(FADING, {"has_ode": True}),
    "DiffEnc: prior of the data": lambda: planted("diffenc", {"prior": LinearPath.prior}),
    "DiffEnc: decoder of the mean": lambda: planted("diffenc", {"decoder": LinearPath.decoder}),
    "DiffEnc: the first image's time in the whole batch": lambda: planted("diffenc", {"_mean": first_time}),
    "MuLAN: no weights": lambda: planted("mulan", {"error": of_noise}),
    "MuLAN: mean weight": lambda: planted("mulan", weighted(lambda w: w.mean((1, 2, 3), keepdim=True))),
    "MuLAN: weights of other dimensions": lambda: planted("mulan", weighted(lambda w: w.flip(3))),
    "MuLAN: error times 0.98 where it has moved": lambda: planted("mulan", {"error": smaller_error}),
    "MuLAN: half of the samplers' noise where it has moved": lambda: planted("mulan", {"reverse_step": half_noise}),
    "MuLAN: drift without weights": lambda: planted("mulan", drift(0.0, 0.5)),
    "MuLAN: drift with all of the noise": lambda: planted("mulan", drift(1.0, 1.0)),
    "MuLAN: one schedule in the step": lambda: planted("mulan", {"reverse_step": LinearPath.reverse_step}),
    "MuLAN: deviation of the forward step": lambda: planted("mulan", {"reverse_step": forward_step}),
    "MuLAN: a stray entropy": lambda: planted("mulan", {"entropy": more_entropy}),
    "MuLAN: less noise than it counts": lambda: planted("mulan", {"perturb": quieter}),
    "MuLAN: a decoder with its volume added": lambda: planted("mulan", {"decoder": no_volume}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str) -> None:
    found = contract.check_family(FAULTS[fault]())
    assert found
    assert all("\n" not in line for line in found)
