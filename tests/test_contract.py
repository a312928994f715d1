"""The contract of a forward process: what it accepts, and faults that it finds."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from indm.densities.movers import Range
from indm.diffusion.checks.findings import differ
from indm.diffusion.checks.gaussian import gap, gaussian
from indm.diffusion.checks.path import check_path
from indm.diffusion.checks.points import EPS
from indm.diffusion.contract import Member, check_family, member
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
    assert check_family(member(name)) == []


def test_what_is_not_finite_differs_from_everything() -> None:
    inf, nan = math.inf, math.nan
    found, expected = [1.0, 1.0, inf, 1.0, nan, inf, -inf], [1.0, 2.0, 1.0, inf, 1.0, inf, inf]
    assert differ(torch.tensor(found), torch.tensor(expected), 0.1).tolist() == [False] + 6 * [True]


def planted(name: str, methods: dict[str, Any]) -> Member:
    """Return the module of a family whose path has other methods."""
    module = member(name)

    class Faulty(module.family):  # type: ignore[name-defined]
        @property
        def path(self) -> Any:
            right = super().path
            values = {field.name: getattr(right, field.name) for field in fields(right)}
            return type("Faulty", (type(right),), methods)(**values)

    return module._replace(family=Faulty)


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


FAULTS: dict[str, Callable[[], Member]] = {
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


# The larger sizes, at which alone they are found, take seconds.
SLOW = {"DiffEnc: decoder of the mean", "DiffEnc: the encoder's time in float32"}


def by_time(faults: Iterable[str]) -> list[Any]:
    """Return parameters of a test, of which the slow ones are marked as long."""
    return [pytest.param(fault, marks=[pytest.mark.long] if fault in SLOW else []) for fault in faults]


@pytest.mark.parametrize("fault", by_time(FAULTS))
def test_a_fault_is_found(fault: str) -> None:
    found = check_family(FAULTS[fault]())
    assert found
    assert all("\n" not in line for line in found)


def wave(x: Tensor, a: Tensor) -> Tensor:
    return (0.3 * torch.sin(a / 2)[:, None] - 0.5) * x + 0.2


def bend(x: Tensor, a: Tensor) -> Tensor:
    return torch.tanh(2 * x + a[:, None] / 3)


@dataclass(frozen=True)
class Correlated(LinearPath):
    r"""The noise :math:`L\epsilon`, correlated between dimensions, with the volatility of the linear VP diffusion."""

    factor: Tensor
    told: float = 1.0

    def perturb(self, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return super().perturb(z0, t, noise @ self.factor.T)

    def error(self, noise_fn: NoiseFn, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return squared_norm((noise_fn(self.perturb(z0, t, noise), t) - noise) @ self._drift(self.told).T)

    def prior(self, z0: Tensor) -> Tensor:
        end = torch.tensor(1.0, dtype=torch.float64)
        return (
            LinearPath.prior(self, z0) + self.sde.sigma(end) ** 2 * (self.factor.square().sum() - len(self.factor)) / 2
        )

    def ode_drift(self, noise_fn: NoiseFn, z: Tensor, a: Tensor) -> Tensor:
        return super().ode_drift(lambda z, t: noise_fn(z, t) @ self.factor.T, z, a)

    def reverse_step(self, z: Tensor, noise: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        length = (self.sde.antiderivative(t) - self.sde.antiderivative(s))[:, None]
        sigma = self.sde.sigma(t)[:, None]
        slope = sigma * (noise @ self._drift(1.0).T) - sigma**2 * z / 2
        return z - length * slope, sigma * length.sqrt()

    def _drift(self, told: float) -> Tensor:
        """The two halves of the drift: of the noise as it is, and of the score."""
        return (self.factor + told * torch.linalg.inv(self.factor).T) / 2


FACTOR = torch.tensor([[1.2, 0.0], [0.5, 0.8]], dtype=torch.float64)
MOVED = torch.tensor([[[0.7, -0.4], [1.5, 0.3]]], dtype=torch.float64)
SOUND = {
    "learned ends": lambda: Range(VP(), torch.tensor([[[0.7], [-1.5]]], dtype=torch.float64), EPS),
    "schedules": lambda: Schedules(VP(), MOVED, EPS),
    "a moved mean": lambda: MovedMean(VP(), wave),
    "a mean that is not affine": lambda: MovedMean(VP(), bend),
    "a moved mean of a short range": lambda: MovedMean(VP(0.1, 3.0), wave),
    "correlated noise": lambda: Correlated(VP(), FACTOR),
    "VE": lambda: LinearPath(VE()),
}


@pytest.mark.parametrize("kind", SOUND)
def test_a_sound_path_keeps_the_contract(kind: str) -> None:
    assert check_path(SOUND[kind](), (2,)) == []


def test_correlated_noise_whose_error_forgets_it_is_found() -> None:
    assert any(line.startswith("error: ") for line in check_path(Correlated(VP(), FACTOR, told=0.0), (2,)))


@dataclass(frozen=True)
class Squared(LinearPath):
    """A noise that enters squared, too."""

    def perturb(self, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return super().perturb(z0, t, noise + 0.1 * noise**2)


def test_a_noise_that_is_not_linear_is_refused() -> None:
    (line,) = check_path(Squared(VP()), (2,))
    assert line.startswith("perturb: found a noise that enters otherwise than linearly")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(1,), (2,), (3, 2, 2)])
def test_the_bound_of_gaussian_data_is_their_entropy_where_the_process_is_markov(
    shape: tuple[int, ...], seed: int
) -> None:
    """Any schedules of the dimensions, with the exact prediction; a number of nats per dimension."""
    moves = torch.randn(1, 2, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    data = gaussian(math.prod(shape), seed)
    for path in (LinearPath(VP()), Schedules(VP(), moves, EPS)):
        # Where a weight is nearly 0, the sum over times has an error.
        assert gap(path, shape, data, count=600) == pytest.approx(0, abs=1e-3)
        assert gap(path, shape, data, count=600) > -1e-3


def test_a_moved_mean_has_a_positive_gap_and_the_fault_a_negative_one() -> None:
    data = gaussian(2, 0)
    assert gap(MovedMean(VP(), wave), (2,), data) > 1e-3
    faulty: Any = type("Faulty", (MovedMean,), {"error": of_noise})
    assert gap(faulty(VP(), wave), (2,), data) < -1e-3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "found no such file, expected a family's .py file or one of ddpmpp, diffenc, indm, mulan"),
        ("FAMILY = 1\nONLY = None\n", "found no NO_ODE, expected FAMILY, ONLY, NO_ODE"),
        ("import not_there\n", "cannot be imported (ModuleNotFoundError"),
    ],
)
def test_a_file_that_is_no_family_is_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ArtifactError) as raised:
        member(str(file))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_family_that_raises_is_one_line() -> None:
    def error(self: Any, *values: Any) -> Tensor:
        raise ValueError("not\nyet")

    assert check_family(planted("mulan", {"error": error}))[0].endswith("found ValueError (not yet), expected numbers")


def detached(self: Schedules, t: Tensor) -> tuple[Tensor, Tensor]:
    a, weights = Schedules.paths(self, t)
    return a, weights.detach()


def seeing(self: Schedules, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """A schedule that depends on the image, without a latent that the steps know."""
    bent = (1 + 0.1 * self.coefficients.std() * z0.flatten(1).mean(1)) * t
    return Schedules.perturb(self, z0, bent.clamp(max=1.0), noise)


def later_decoder(self: Schedules, noise_fn: NoiseFn, z0: Tensor, eps: float, noise: Tensor) -> Tensor:
    return LinearPath.decoder(self, noise_fn, z0, 2 * eps if self.coefficients.any() else eps, noise)


def other_time(self: Schedules, noise_fn: NoiseFn, z: Tensor, a: Tensor) -> Tensor:
    return Schedules.ode_drift(self, lambda z, t: noise_fn(z, 0.9 * t), z, a)


def in_float32(self: MovedMean, z0: Tensor, t: Tensor) -> Tensor:
    a = self.sde.antiderivative(t).float().to(z0.dtype)
    return z0 + per_sample(self.sde.sigma(t) ** 2, z0) * self.move(z0, a)


def clamped(self: MovedMean, z0: Tensor, t: Tensor) -> Tensor:
    return z0 + per_sample(self.sde.sigma(t) ** 2, z0) * self.move(z0, self.sde.antiderivative(t).clamp(max=8.0))


def first_channel(self: Schedules, noise_fn: NoiseFn, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    weights = self.paths(t)[1]
    weights = weights[:, :1] if self.coefficients.any() else weights
    return (weights * (noise_fn(self.perturb(z0, t, noise), t) - noise) ** 2).flatten(1).sum(1)


def far_away(self: Schedules, noise_fn: NoiseFn, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    kind = LinearPath if self.coefficients.abs().max() > 5 else Schedules
    return kind.error(self, noise_fn, z0, t, noise)


def first_rows(self: Schedules, noise_fn: NoiseFn, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Leave out the rows of an image from the fifth on."""
    rows = 4 if self.coefficients.any() else None
    weights = self.paths(t)[1]
    return (weights * (noise_fn(self.perturb(z0, t, noise), t) - noise) ** 2)[:, :, :rows].flatten(1).sum(1)


def outside_the_flow() -> Member:
    module = planted(FADING, {})

    class Outside(module.family):  # type: ignore[name-defined]
        def __init__(self, spec: Any) -> None:
            super().__init__(spec)
            self.outside = self.flow.depths
            del self.flow.depths

        def _move(self, x: Tensor, a: Tensor) -> Tensor:
            return per_sample(torch.sigmoid(-a), x) * self.outside * x

    return module._replace(family=Outside)


def any_sampler() -> Member:
    return planted("mulan", {})._replace(only={"sde": ["vp"]})


MORE_FAULTS: dict[str, Callable[[], Member]] = {
    "MuLAN: weights without a gradient": lambda: planted("mulan", {"paths": detached}),
    "MuLAN: a schedule that sees the image": lambda: planted("mulan", {"perturb": seeing}),
    "MuLAN: decoder at another time": lambda: planted("mulan", {"decoder": later_decoder}),
    "MuLAN: the network's time in the ODE": lambda: planted("mulan", {"ode_drift": other_time}),
    "MuLAN: weights of the first channel": lambda: planted("mulan", {"error": first_channel}),
    "MuLAN: no error from the fifth row on": lambda: planted("mulan", {"error": first_rows}),
    "MuLAN: samplers of the linear diffusion": any_sampler,
    "MuLAN: no weights far from the start": lambda: planted("mulan", {"error": far_away}),
    "DiffEnc: the encoder's time in float32": lambda: planted("diffenc", {"_mean": in_float32}),
    "fading: a mean that stops late": lambda: planted(FADING, {"_mean": clamped}),
    "fading: parameters outside the flow": outside_the_flow,
}


# The parameters that the contract tries are not that large.
NOT_FOUND = {"MuLAN: no weights far from the start"}


@pytest.mark.parametrize("fault", by_time(MORE_FAULTS))
def test_more_faults_are_found_but_for_one(fault: str) -> None:
    found = check_family(MORE_FAULTS[fault]())
    assert bool(found) is (fault not in NOT_FOUND)
    assert not any("Error" in line for line in found)
