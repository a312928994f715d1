"""Closed forms of forward processes on Gaussian data, and planted faults; the contract of all families is in test_contract.py.

All that is affine is exact here: for a linear prediction of Gaussian data, an error is a quadratic form of data and noise, whose
mean is the mean over a few nodes with the same moments. The best prediction is found by least squares on these nodes.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Generator, Tensor

from indm.densities.movers import Range
from indm.diffusion.checks.gaussian import Linear
from indm.diffusion.families.registered.mulan import Schedules
from indm.diffusion.learned_range import LearnedRange
from indm.diffusion.likelihood import ode_nll
from indm.diffusion.model import ImplicitNonlinearDiffusion, build_model
from indm.diffusion.moved_mean import MovedMean
from indm.diffusion.objectives import NoiseFn, squared_norm
from indm.diffusion.path import ForwardPath, LinearPath
from indm.diffusion.registered.vp import VP
from indm.diffusion.samplers.loops import PredictorCorrector, Schedule
from indm.diffusion.samplers.registered import ancestral, ode
from indm.diffusion.sde import SDE, T, importance_time
from tests.gaussian import GaussianData

EPS, SHAPE = 1e-5, (1, 2, 2)
DIMS = math.prod(SHAPE)
SCORE = {
    "name": "unet",
    "channels": 4,
    "multipliers": [1],
    "blocks": 1,
    "attention_resolutions": [2],
    "normalise_input": "unit",
}
SPEC = {
    "shape": [*SHAPE],
    "sde": {"name": "vp"},
    "eps": EPS,
    "centered": True,
    "score": SCORE,
    "flow": {"name": "identity"},
}


def nodes(data: GaussianData) -> tuple[Tensor, Tensor]:
    """Data and noise (N, D) with their means and covariances, by a cubature of degree three."""
    unit = math.sqrt(2 * data.dims) * torch.eye(2 * data.dims, dtype=torch.float64)
    white, noise = torch.cat([unit, -unit]).chunk(2, 1)
    return data.mean + white @ torch.linalg.cholesky(data.covariance).T, noise


def draws(data: GaussianData, count: int) -> tuple[Tensor, Tensor]:
    return data.draw(count), torch.randn(count, data.dims, generator=Generator().manual_seed(5), dtype=torch.float64)


def targets(path: ForwardPath, x: Tensor, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return z_t, and the prediction of each entry for which a path's error is least: its error is a sum of squares."""
    seen: list[Tensor] = []

    def gradient(value: float) -> Tensor:
        output = torch.full_like(x, value).requires_grad_()

        def predict(z: Tensor, t: Tensor) -> Tensor:
            seen.append(z.detach())
            return output

        return torch.autograd.grad(path.error(predict, x, t, noise).sum(), output)[0]

    zero, one = gradient(0.0), gradient(1.0)
    return seen[0], -zero / (one - zero)


def best(path: ForwardPath, x: Tensor, noise: Tensor, times: Tensor) -> Linear:
    """Fit data and noise (N, *) at K times."""
    each = [values.repeat(len(times), *[1] * (values.dim() - 1)) for values in (x, noise)]
    z, target = targets(path, each[0], times.repeat_interleave(len(x)), each[1])
    z, target = (values.reshape(len(times), len(x), -1) for values in (z, target))
    design = torch.cat([z, torch.ones_like(z[..., :1])], -1)
    return Linear(torch.linalg.lstsq(design, target).solution)


def bounds(
    path: ForwardPath, eps: float, x: Tensor, noise: Tensor, predict: Callable[[Tensor], NoiseFn], count: int
) -> Tensor:
    """Return the NELBO of data (N, *) for its noises, with ``count`` times at the middles of equal parts of A."""
    times, z = importance_time(path.sde, (torch.arange(count, dtype=torch.float64) + 0.5) / count, eps)
    each = [values.repeat(count, *[1] * (values.dim() - 1)) for values in (x, noise)]
    error = path.error(predict(times), each[0], times.repeat_interleave(len(x)), each[1]).view(count, -1).mean(0)
    end = predict(torch.tensor([eps], dtype=torch.float64))
    likelihood: Tensor = path.prior(x) + z / 2 * error + path.entropy(x, z, eps)
    return likelihood + path.decoder(end, x, eps, noise)


def gap(
    path: ForwardPath, data: GaussianData, eps: float = EPS, shape: tuple[int, ...] | None = None, count: int = 2000
) -> float:
    """Return NELBO - NLL of a path that is affine in the data, with the best prediction, in nats per dimension."""
    x, noise = (values.reshape(-1, *(shape or (data.dims,))) for values in nodes(data))
    bound = bounds(path, eps, x, noise, lambda times: best(path, x, noise, times), count).mean().item()
    entropy = torch.linalg.slogdet(2 * math.pi * math.e * data.covariance).logabsdet.item() / 2
    return (bound - entropy) / data.dims


def family(name: str) -> ImplicitNonlinearDiffusion:
    torch.manual_seed(0)
    return build_model(SPEC | {"family": name}).double().requires_grad_(False)


def moved(name: str) -> ForwardPath:
    """The forward process of a family, away from its start."""
    model = family(name)
    for parameter in model.flow.parameters():
        parameter.add_(
            torch.randn(parameter.shape, generator=Generator().manual_seed(1), dtype=torch.float64), alpha=0.3
        )
    return model.path


class Affine(NamedTuple):
    r"""A mean :math:`a(A) x + c(A)`, with its derivatives in A."""

    a: Tensor
    slope: Tensor
    c: Tensor
    rise: Tensor


def wave(a: Tensor) -> Affine:
    y, dy, sigma2 = 0.5 + 0.3 * torch.sin(a / 2), 0.15 * torch.cos(a / 2), torch.sigmoid(a)
    ds = sigma2 * (1 - sigma2)
    return Affine(1 - sigma2 + sigma2 * y, -ds + ds * y + sigma2 * dy, 0.2 * sigma2, 0.2 * ds)


def fading(a: Tensor) -> Affine:
    sigma2 = torch.sigmoid(a)
    return Affine(1 - sigma2, -sigma2 * (1 - sigma2), 0 * a, 0 * a)


MOVES = {
    "wave": lambda x, a: (0.3 * torch.sin(a / 2)[:, None] - 0.5) * x + 0.2,
    "fading": lambda x, a: -x,
}
MEANS: dict[str, Callable[[Tensor], Affine]] = {"wave": wave, "fading": fading}
# The mean, the ends of A, and the gap in nats; beside the ends of the paper, a range so short that prior and decoder matter.
EXAMPLES = {
    "wave": ("wave", (-11.5, 9.2), 0.00520),
    "fading": ("fading", (-11.5, 9.2), 0.02768),
    "wave, short": ("wave", (-3.0, 2.0), None),
}
MEAN, VARIANCE = 0.4, 0.3


def between(ends: tuple[float, float]) -> tuple[SDE, float]:
    """A diffusion with these ends of A, and its eps."""
    big_b = math.log1p(math.exp(ends[1]))
    sde = VP(0.1, 2 * big_b - 0.1)
    return sde, sde.time(torch.tensor(ends[0], dtype=torch.float64)).item()


def one_dimensional() -> GaussianData:
    data = GaussianData(1)
    data.mean, data.covariance = torch.tensor([MEAN]).double(), torch.tensor([[VARIANCE]]).double()
    return data


def by_quadrature(mean: Callable[[Tensor], Affine], ends: tuple[float, float], points: int = 200_000) -> float:
    r"""NELBO - NLL of a moved mean on N(m, v) with :math:`\hat x = E[m - m'|z]`, worked out by hand.

    .. math::
        \tfrac12\int e^{-A}(a - a')^2 \mathrm{Var}[x|z]\,\mathrm dA, \qquad
        \mathrm{Var}[x|z] = \frac{v\sigma^2}{\alpha^2a^2v + \sigma^2}
    """
    low, high = ends
    at = low + (torch.arange(points, dtype=torch.float64) + 0.5) / points * (high - low)

    def rest(a: Tensor, found: Affine) -> Tensor:
        return VARIANCE * torch.sigmoid(a) / (torch.sigmoid(-a) * found.a**2 * VARIANCE + torch.sigmoid(a))

    inner = mean(at)
    diffusion = (0.5 * torch.exp(-at) * (inner.a - inner.slope) ** 2 * rest(at, inner)).mean() * (high - low)
    start, end = (torch.tensor(value, dtype=torch.float64) for value in ends)
    last, first = mean(end), mean(start)
    second = (last.a * MEAN + last.c) ** 2 + last.a**2 * VARIANCE
    prior = 0.5 * (torch.sigmoid(-end) * second + torch.sigmoid(end) - 1 - torch.sigmoid(end).log())
    known, factor = VARIANCE - rest(start, first), first.a - first.slope
    bias = ((1 - factor) * MEAN - first.c + first.rise) ** 2 + (1 - factor) ** 2 * known
    decoder = 0.5 * (math.log(2 * math.pi) + start + torch.exp(-start) * (rest(start, first) + bias))
    return (prior + diffusion + decoder).item() - 0.5 * math.log(2 * math.pi * math.e * VARIANCE)


def has_the_closed_form(example: str, kind: type[MovedMean] = MovedMean) -> None:
    mean, ends, known = EXAMPLES[example]
    sde, eps = between(ends)
    expected = by_quadrature(MEANS[mean], ends)
    assert known is None or expected == pytest.approx(known, abs=1e-4)
    assert gap(kind(sde, MOVES[mean]), one_dimensional(), eps) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_moved_mean_has_its_closed_form(example: str) -> None:
    has_the_closed_form(example)


COEFFICIENTS = torch.tensor([[[2.0, 0.5], [-1.5, 1.0]]], dtype=torch.float64)


def exact_of(path: Schedules, data: GaussianData) -> NoiseFn:
    """The exact noise prediction for schedules of each dimension, with the whole covariance."""

    def predict(z: Tensor, t: Tensor) -> Tensor:
        a, _ = path.paths(t)
        alpha, sigma = torch.sigmoid(-a).sqrt(), torch.sigmoid(a).sqrt()
        total = alpha[:, :, None] * data.covariance * alpha[:, None] + (sigma**2).diag_embed()
        return sigma * torch.linalg.solve(total, z - alpha * data.mean)

    return predict


def is_tight_whatever_the_schedules(kind: type[Schedules] = Schedules) -> None:
    assert gap(kind(VP(), COEFFICIENTS, EPS), GaussianData(2)) == pytest.approx(0, abs=1e-4)


def test_schedules_of_correlated_gaussians_cost_nothing() -> None:
    is_tight_whatever_the_schedules()


def test_learned_ends_of_points_are_the_diffusion_with_learned_ends() -> None:
    """Replicas with other ends, each against the SDE of a single model, and both in one stack."""
    data, moves = GaussianData(2), torch.tensor([[0.7, -1.5], [-0.4, 0.3]], dtype=torch.float64)
    (x, noise), t = draws(data, 5), torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    errors = []
    for one in moves:
        sde, path = LearnedRange(VP(), EPS).double().requires_grad_(False), Range(VP(), one[None, :, None], EPS)
        sde.moves.copy_(one)
        each = [
            bounds(each, EPS, x, noise, lambda times: lambda z, t: torch.tanh(z), 50)
            for each in (path, LinearPath(sde))
        ]
        torch.testing.assert_close(*each, rtol=1e-9, atol=1e-9)
        assert gap(path, data) == pytest.approx(0, abs=1e-3)
        errors.append(path.error(lambda z, t: torch.tanh(z), x, t, noise))
    both = Range(VP(), moves[..., None], EPS)
    found = both.error(lambda z, t: torch.tanh(z), x.repeat(2, 1), t.repeat(2), noise.repeat(2, 1))
    torch.testing.assert_close(found, torch.cat(errors))


def has_the_likelihood_of_the_ode(kind: type[Schedules] = Schedules) -> None:
    data, path = GaussianData(2), kind(VP(), COEFFICIENTS, EPS)
    z = data.draw(20).repeat(2, 1)
    probes = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64).repeat_interleave(20, 0)
    found = ode_nll(exact_of(path, data), path, z, EPS, 1e-6, probes).view(2, 20).mean(0)
    torch.testing.assert_close(found, data.nll(z[:20]), rtol=0, atol=0.03)


def test_schedules_have_the_likelihood_of_the_ode() -> None:
    has_the_likelihood_of_the_ode()


def samples_have_the_moments(
    path: ForwardPath, data: GaussianData, eps: float, sampler: Any = ancestral.SAMPLER
) -> None:
    """With the best prediction at each time; DiffEnc's model is off by its gap."""
    low, high = path.sde.antiderivative(torch.tensor([eps, T], dtype=torch.float64)).tolist()
    times = path.sde.time(torch.linspace(high, low, 500, dtype=torch.float64))
    fitted = best(path, *nodes(data), times)
    table = {time: fitted.weights[i] for i, time in enumerate(times.tolist())}

    def predict(z: Tensor, t: Tensor) -> Tensor:
        weights = table[t[0].item()]
        return z @ weights[:-1] + weights[-1]

    start = torch.randn(8000, data.dims, generator=Generator().manual_seed(2), dtype=torch.float64)
    z = sampler(predict, path, start, Schedule(times.tolist()), Generator().manual_seed(3))
    scale = data.covariance.diagonal().max().sqrt()
    assert (z.mean(0) - data.mean).abs().max() < 0.08 * scale
    assert (torch.cov(z.T) - data.covariance).abs().max() < 0.08 * scale**2


def test_ancestral_samples_of_schedules_have_the_moments_of_the_data() -> None:
    samples_have_the_moments(Schedules(VP(), COEFFICIENTS, EPS), GaussianData(2), EPS)


def test_a_step_of_schedules_with_the_exact_noise_has_the_posteriors_moments() -> None:
    """Of one latent, over any length: the mean of z_s given z_0, and its variance, from those of z_t."""
    path, z0 = Schedules(VP(), COEFFICIENTS, EPS), torch.full((1, 2), 0.7, dtype=torch.float64)
    t, s = torch.tensor([0.6], dtype=torch.float64), torch.tensor([0.2], dtype=torch.float64)

    def mean(x: Tensor, noise: Tensor) -> Tensor:
        return path.reverse_step(path.perturb(x, t, noise), noise, t, s)[0]

    zero, one = torch.zeros_like(z0), torch.ones_like(z0)
    slope, scale = mean(z0, one) - mean(z0, zero), path.reverse_step(z0, zero, t, s)[1]
    torch.testing.assert_close(mean(z0, zero), path.perturb(z0, s, zero))
    torch.testing.assert_close(slope**2 + scale**2, path.perturb(zero, s, one) ** 2)


def test_ancestral_samples_of_a_moved_mean_have_the_moments_of_the_data() -> None:
    sde, eps = between((-11.5, 9.2))
    samples_have_the_moments(MovedMean(sde, MOVES["wave"]), one_dimensional(), eps)


def test_the_slope_of_an_encoder_is_a_central_difference() -> None:
    path = moved("diffenc")
    assert isinstance(path, MovedMean)
    x, a, step = torch.randn(5, *SHAPE).double(), torch.linspace(-9, 9, 5).double(), 1e-5
    _, slope = path._with_slope(x, a)
    torch.testing.assert_close(slope, (path.move(x, a + step) - path.move(x, a - step)) / (2 * step), rtol=0, atol=1e-7)
    assert slope.abs().max() > 1e-3


# Faults of which a check must tell. A fault replaces a method.
Fault = tuple[type[LinearPath], str, Any, Callable[[Any], None]]


def of_wave(kind: type[MovedMean]) -> None:
    has_the_closed_form("wave", kind)


def of_short_wave(kind: type[MovedMean]) -> None:
    has_the_closed_form("wave, short", kind)


def of_schedules(kind: type[Schedules]) -> None:
    samples_have_the_moments(kind(VP(), COEFFICIENTS, EPS), GaussianData(2), EPS)


def never_below(kind: type[MovedMean]) -> None:
    sde, eps = between((-11.5, 9.2))
    assert gap(kind(sde, MOVES["wave"]), one_dimensional(), eps) > -1e-4


def mean_weight(self: Schedules, t: Tensor) -> tuple[Tensor, Tensor]:
    a, weights = Schedules.paths(self, t)
    return a, weights.mean(-1, keepdim=True).expand_as(weights)


def with_slope(factor: float) -> Any:
    def changed(self: MovedMean, z0: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        move, slope = MovedMean._with_slope(self, z0, a)
        return move, factor * slope

    return changed


def no_counterterm(self: MovedMean, noise_fn: NoiseFn, z0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    return squared_norm(noise_fn(self.perturb(z0, t, noise), t) - noise)


FAULTS: dict[str, Fault] = {
    "DiffEnc: no derivative of the encoder": (MovedMean, "_with_slope", with_slope(0.0), of_wave),
    "DiffEnc: derivative of the other sign": (MovedMean, "_with_slope", with_slope(-1.0), of_wave),
    "DiffEnc: no counterterm": (MovedMean, "error", no_counterterm, of_wave),
    "DiffEnc: no counterterm, below the truth": (MovedMean, "error", no_counterterm, never_below),
    "DiffEnc: prior of the data": (MovedMean, "prior", LinearPath.prior, of_short_wave),
    "DiffEnc: decoder of the mean": (MovedMean, "decoder", LinearPath.decoder, of_short_wave),
    "MuLAN: mean weight": (Schedules, "paths", mean_weight, is_tight_whatever_the_schedules),
    "MuLAN: mean weight in the ODE": (Schedules, "paths", mean_weight, has_the_likelihood_of_the_ode),
    "MuLAN: one schedule in the samples": (Schedules, "reverse_step", LinearPath.reverse_step, of_schedules),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(fault: str) -> None:
    kind, method, replaced, check = FAULTS[fault]
    check(kind)
    with pytest.raises(AssertionError):
        check(type("Faulty", (kind,), {method: replaced}))


def test_a_sampler_takes_the_paths_step() -> None:
    assert isinstance(ancestral.SAMPLER, PredictorCorrector)
    data, path = GaussianData(2), Schedules(VP(), COEFFICIENTS, EPS)
    start = torch.randn(20_000, 2, generator=Generator().manual_seed(2), dtype=torch.float64)
    z = ode.SAMPLER(exact_of(path, data), path, start, Schedule([T, EPS], tolerance=1e-5))
    torch.testing.assert_close(z.mean(0), data.mean, rtol=0, atol=0.03)
    torch.testing.assert_close(torch.cov(z.T), data.covariance, rtol=0, atol=0.03)
