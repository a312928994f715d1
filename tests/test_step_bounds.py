"""Bounds of T steps, decoders of levels and tabulated schedules, against closed forms."""

import math
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import Normal, kl_divergence

import indm
from indm.diffusion.sde import SDE, build_sde
from indm.errors import ParamsError
from indm.foreign import discrete
from indm.foreign.discrete import step_bounds, step_times
from indm.foreign.kinds import ALIASES, Grid
from indm.foreign.lossless import ddpm_log_prob, places, vdm_log_prob
from indm.foreign.tabulated import Tabulated, cosine_table, sigmoid_table
from tests.test_referee import STD, levels_of, network_of, of_gaussian

LINEAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
SCHEDULES: dict[str, SDE] = {
    "vp": build_sde("vp"),
    "ve": build_sde("ve"),
    "linear": Tabulated(LINEAR),
    "cosine": Tabulated(cosine_table(1000)),
}


def grid_of(levels: int, centered: bool, grid: Grid) -> Tensor:
    found = places(torch.arange(levels, dtype=torch.float64), levels, grid)
    return 2 * found - 1 if centered else found


GRID = grid_of(256, True, "ends")


def exact(sde: SDE) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda z, t: of_gaussian(sde, z, t)


def error_of(sde: SDE, t: Tensor, variance: Tensor | float = STD**2) -> Tensor:
    """Mean squared error of the exact network per dimension, for the mean over images."""
    signal = sde.alpha(t) ** 2 * variance
    return signal / (signal + sde.sigma(t) ** 2)


def levels(count: int, dims: int = 12) -> Tensor:
    """Levels near the middle, which no clipping reaches."""
    x = STD * torch.randn(count, dims, generator=Generator().manual_seed(0), dtype=torch.float64)
    return ((x + 1) / 2 * 255).round().clamp(0, 255).byte()


class Signs:
    """Two opposite draws of noise, in turn: they integrate squares in each dimension exactly."""

    def __init__(self, sign: int) -> None:
        self.sign = sign

    def __call__(self, generator: object, like: Tensor) -> Tensor:
        return self.sign * torch.ones_like(like)


def averaged(sde: SDE, pixels: Tensor, times: Tensor, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The sums over steps, whose mean over the noise is exact."""
    x, found = GRID[pixels.long()], []
    for sign in (1, -1):
        monkeypatch.setattr(discrete, "normal", Signs(sign))
        found.append(step_bounds(exact(sde), sde, x, pixels, GRID, times, Generator()))
    return {name: (found[0][name] + found[1][name]) / 2 for name in found[0]}


def gaussian_step(sde: SDE, s: Tensor, t: Tensor, z: Tensor, x: Tensor) -> tuple[Normal, Normal]:
    """The posterior of z_s given z_t and x, and the same mean with the large variance (Ho et al., equations 6 and 7)."""
    ratio = sde.alpha(t) / sde.alpha(s)
    beta = sde.sigma(t) ** 2 - ratio**2 * sde.sigma(s) ** 2
    mean = (ratio * sde.sigma(s) ** 2 * z + sde.alpha(s) * beta * x) / sde.sigma(t) ** 2
    return Normal(mean, beta.sqrt() * sde.sigma(s) / sde.sigma(t)), Normal(mean, beta.sqrt())


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_sums_are_the_divergences_of_gaussians_per_dimension(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step as two Gaussians: the posterior of z_s given z_t and x, and the network's with x replaced by its estimate."""
    sde, pixels, times = SCHEDULES[name], levels(5), step_times(40)
    x, expected = GRID[pixels.long()], dict.fromkeys(("posterior", "large"), torch.zeros(5, dtype=torch.float64))
    for s, t in pairwise(times):
        for sign in (1, -1):
            z = sde.alpha(t) * x + sign * sde.sigma(t)
            clean = sde.alpha(t) * STD**2 / (sde.alpha(t) ** 2 * STD**2 + sde.sigma(t) ** 2) * z
            posterior, _ = gaussian_step(sde, s, t, z, x)
            small, large = gaussian_step(sde, s, t, z, clean)
            for variance, of_step in (("posterior", small), ("large", large)):
                cost = kl_divergence(posterior, of_step).sum(1)
                expected[variance] = expected[variance] + cost / 2
    found = averaged(sde, pixels, times, monkeypatch)
    for variance, value in expected.items():
        torch.testing.assert_close(found[variance], value, rtol=1e-9, atol=0)
    # Nothing reaches the ends of the range, so that clipping changes nothing.
    if name != "ve":
        torch.testing.assert_close(found["small"], found["posterior"], rtol=1e-9, atol=0)
    end = torch.ones((), dtype=torch.float64)
    last = Normal(sde.alpha(end) * x, sde.sigma(end))
    prior = kl_divergence(last, Normal(0.0, torch.tensor(sde.prior_std, dtype=torch.float64))).sum(1)
    torch.testing.assert_close(found["prior"], prior, rtol=1e-6, atol=1e-9)


def of_ddpm(
    table: Tensor, x: Tensor, network: Callable[[Tensor, Tensor], Tensor], noises: list[Tensor], variance: str
) -> Tensor:
    """The bound in DDPM's own terms: steps, betas and coefficients of the posterior's mean; in nats, (B,)."""
    betas = 1 - table / torch.cat([torch.ones(1, dtype=torch.float64), table[:-1]])
    before = torch.cat([torch.ones(1, dtype=torch.float64), table[:-1]])
    posterior = betas * (1 - before) / (1 - table)
    small = torch.cat([posterior[1:2], posterior[1:]])
    of_model = {"small": small, "large": torch.cat([posterior[1:2], betas[1:]])}[variance]
    total = kl_divergence(Normal(table[-1].sqrt() * x, (1 - table[-1]).sqrt()), Normal(0.0, torch.ones_like(x))).sum(1)
    for i, noise in enumerate(noises):
        z = table[i].sqrt() * x + (1 - table[i]).sqrt() * noise
        predicted = network(z, torch.full((len(x),), (i + 1) / len(table), dtype=torch.float64))
        start = ((1 / table[i]).sqrt() * z - (1 / table[i] - 1).sqrt() * predicted).clamp(-1, 1)
        first, second = (
            betas[i] * before[i].sqrt() / (1 - table[i]),
            (1 - before[i]) * (1 - betas[i]).sqrt() / (1 - table[i]),
        )
        cell = Normal(first * start + second * z, of_model[i].sqrt())
        if i == 0:
            low = torch.where(x < -0.999, 0.0, cell.cdf(x - 1 / 255))
            high = torch.where(x > 0.999, 1.0, cell.cdf(x + 1 / 255))
            total = total - (high - low).log().sum(1)
        else:
            total = total + kl_divergence(Normal(first * x + second * z, small[i].sqrt()), cell).sum(1)
    return total


@pytest.mark.parametrize("variance", ["small", "large"])
def test_the_bound_is_the_one_of_ddpms_code(variance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network that is far off, whose clean images leave the range and are clipped, and with black and white pixels."""
    table, pixels = torch.cumprod(1 - torch.linspace(1e-4, 0.3, 30, dtype=torch.float64), 0), levels(6)
    pixels[:, 0], pixels[:, 1] = 0, 255
    sde, generator = Tabulated(table), Generator().manual_seed(4)
    noises = [torch.randn(6, 12, generator=generator, dtype=torch.float64) for _ in table]

    def network(z: Tensor, t: Tensor) -> Tensor:
        return 0.5 * torch.sin(3 * z) + t[:, None]

    x, given = GRID[pixels.long()], iter(noises)
    monkeypatch.setattr(discrete, "normal", lambda generator, like: next(given))
    found = step_bounds(network, sde, x, pixels, GRID, step_times(30), Generator())
    total = found["prior"] + found[variance] + found["ddpm"]
    torch.testing.assert_close(total, of_ddpm(table, x, network, noises, variance), rtol=1e-9, atol=0)
    assert (found["small"] < found["posterior"]).all()


@pytest.mark.parametrize("name", ["vp", "cosine"])
def test_more_steps_between_the_same_ends_approach_the_integral_at_first_order(name: str) -> None:
    """With the same noise at all times, in the mean over data, which has a closed form."""
    sde = SCHEDULES[name]
    ends = sde.antiderivative(torch.tensor([0.01, 1.0], dtype=torch.float64))
    fine = sde.time(torch.linspace(float(ends[0]), float(ends[1]), 200_001, dtype=torch.float64))
    integral = 0.5 * torch.trapezoid(error_of(sde, fine), sde.antiderivative(fine))

    def apart(count: int) -> float:
        times = torch.linspace(0.01, 1, count, dtype=torch.float64)
        weight = 0.5 * torch.expm1(sde.log_snr(times[:-1]) - sde.log_snr(times[1:]))
        return float((weight * error_of(sde, times[1:])).sum() - integral)

    assert apart(4000) / apart(8000) == pytest.approx(2, abs=0.05)
    assert 0 < apart(8000) < 0.01


def test_the_mean_over_images_and_noise_is_the_closed_form() -> None:
    """By Monte Carlo, for continuous data in place of levels, so that both are Gaussian."""
    sde, times = SCHEDULES["vp"], step_times(100)
    x = STD * torch.randn(400, 12, generator=Generator().manual_seed(1), dtype=torch.float64)
    found = step_bounds(exact(sde), sde, x, levels(400), GRID, times, Generator().manual_seed(2))["posterior"]
    weight = 0.5 * torch.expm1(sde.log_snr(times[:-1]) - sde.log_snr(times[1:]))
    expected = 12 * (weight * error_of(sde, times[1:])).sum()
    assert abs(found.mean() - expected) < 4 * found.std() / 20
    assert found.std() / 20 < 0.02 * expected


def lost_by_equal_steps(count: int) -> float:
    """The sum over steps of VP minus the integral from the first latent on, for the Gaussian, in nats per dimension."""
    sde, times = SCHEDULES["vp"], step_times(count)
    log_snr = sde.log_snr(times)
    weight = 0.5 * (torch.expm1(-log_snr.diff()) + log_snr.diff())
    return float((weight * error_of(sde, times[1:])).sum())


def test_equal_steps_of_vp_lose_half_of_eulers_constant_however_many_they_are() -> None:
    """Near t = 0, log-SNR is -log t, and the error 1, so that the loss of first steps does not depend on their number."""
    for count, tolerance in ((10**5, 0.005), (10**6, 0.0007)):
        assert lost_by_equal_steps(count) == pytest.approx(np.euler_gamma / 2, abs=tolerance)
    # The page has these numbers in bits.
    assert np.euler_gamma / 2 / math.log(2) == pytest.approx(0.42, abs=0.005)
    assert lost_by_equal_steps(1000) / math.log(2) == pytest.approx(0.62, abs=0.005)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_a_table_is_a_diffusion(name: str) -> None:
    sde = SCHEDULES[name]
    table = {"linear": LINEAR, "cosine": cosine_table(1000)}[name]
    times = step_times(1000)
    torch.testing.assert_close(sde.alpha(times) ** 2, table, rtol=1e-9, atol=0)
    between = torch.rand(200, generator=Generator().manual_seed(0), dtype=torch.float64).clamp(1e-5)
    for t in (times, between):
        torch.testing.assert_close(sde.time(sde.antiderivative(t)), t, rtol=1e-9, atol=1e-12)
    # f and g² are the derivatives of log alpha and of A: by finite differences inside of an interval.
    middle, step = times - 0.0005, 1e-7
    ahead, behind = middle + step, middle - step
    drift = (sde.alpha(ahead).log() - sde.alpha(behind).log()) / (2 * step)
    torch.testing.assert_close(sde.drift(middle), drift, rtol=1e-5, atol=1e-7)
    rate = (sde.antiderivative(ahead) - sde.antiderivative(behind)) / (2 * step)
    torch.testing.assert_close(sde.diffusion(middle) ** 2 / sde.sigma(middle) ** 2, rate, rtol=1e-5, atol=1e-7)
    assert sde.divergence_integral(1e-5) == pytest.approx(
        float(sde.alpha(torch.tensor(1.0, dtype=torch.float64)).log()), rel=1e-4
    )


def test_the_linear_table_is_nearly_the_continuous_diffusion() -> None:
    times = step_times(1000)
    apart = SCHEDULES["linear"].log_snr(times) - SCHEDULES["vp"].log_snr(times)
    assert apart.abs().max() < 0.15


def test_the_cosine_table_has_the_numbers_of_its_equation() -> None:
    table = cosine_table(1000)
    f = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in (0, 1, 500)]
    assert float(table[0]) == pytest.approx(f[1] / f[0], rel=1e-12)
    assert float(table[499]) == pytest.approx(f[2] / f[0], rel=1e-9)
    # The last beta is cut off at 0.999.
    assert float(table[-1] / table[-2]) == pytest.approx(0.001)


def test_the_sigmoid_table_has_the_numbers_of_its_equation() -> None:
    def left(t: float) -> float:
        return 1 / (1 + math.exp(-3)) - 1 / (1 + math.exp(3 - 6 * t))

    table = sigmoid_table(1000)
    assert float(table[0]) == pytest.approx(left(0.001) / left(0), rel=1e-12)
    assert float(table[499]) == pytest.approx(0.5, rel=1e-9)
    assert float(table[-1] / table[-2]) == pytest.approx(0.001)


@pytest.mark.parametrize("table", [[0.9], [0.9, 0.95], [1.0, 0.5], [0.9, 0.0], [[0.9, 0.5]], [0.9, math.nan]])
def test_a_table_that_does_not_fall_inside_of_0_and_1_is_refused(table: list[float]) -> None:
    with pytest.raises(ParamsError, match=r"^alphas_cumprod: found shape .*, expected"):
        Tabulated(table)


@pytest.mark.parametrize("std", [1e-3, 0.01, 0.3])
@pytest.mark.parametrize("count", [2, 17, 256])
@pytest.mark.parametrize("where", ["ends", "centres"])
def test_probabilities_of_the_levels_sum_to_one(std: float, count: int, where: Grid) -> None:
    grid = grid_of(count, True, where)
    every = torch.arange(count)[:, None].expand(-1, 9)
    mean = torch.linspace(-1.3, 1.3, 9, dtype=torch.float64).expand(count, -1)
    one = torch.zeros(9, dtype=torch.float64)
    torch.testing.assert_close(ddpm_log_prob(every, mean, std, grid).logsumexp(0), one, rtol=0, atol=1e-12)
    torch.testing.assert_close(vdm_log_prob(every, mean, 0.9, std, grid).logsumexp(0), one, rtol=0, atol=1e-12)


def test_the_probability_of_a_level_is_the_mass_of_its_cell() -> None:
    grid, std = grid_of(256, True, "ends"), 0.01
    pixels = torch.tensor([[100, 101, 120, 0, 255]])
    mean = torch.tensor([[-0.21, -0.2, -0.2, -0.99, 0.7]], dtype=torch.float64)
    expected = []
    for v, m in zip(pixels[0].tolist(), mean[0].tolist(), strict=True):
        # As in DDPM's code: levels are v / 127.5 - 1, and cells end at ± 1/255.
        place, cell = v / 127.5 - 1, Normal(torch.tensor(m, dtype=torch.float64), std)
        low = 0.0 if v == 0 else cell.cdf(torch.tensor(place - 1 / 255, dtype=torch.float64))
        high = 1.0 if v == 255 else cell.cdf(torch.tensor(place + 1 / 255, dtype=torch.float64))
        expected.append(float(high - low))
    found = ddpm_log_prob(pixels, mean, std, grid)[0]
    torch.testing.assert_close(found[:4].exp(), torch.tensor(expected[:4], dtype=torch.float64), rtol=1e-9, atol=1e-15)
    # Thirty deviations away, the masses of both ends are 1 to all digits, but the logarithm is there.
    assert float(found[4]) == pytest.approx(-0.5 * ((1 - 1 / 255 - 0.7) / std) ** 2, rel=0.02)


def test_levels_lie_where_the_published_code_has_them() -> None:
    level = torch.arange(256, dtype=torch.float64)
    torch.testing.assert_close(grid_of(256, True, "ends"), level / 127.5 - 1)
    torch.testing.assert_close(grid_of(256, True, "centres"), 2 * (level + 0.5) / 256 - 1)
    torch.testing.assert_close(grid_of(17, False, "ends"), torch.arange(17, dtype=torch.float64) / 16)


# Of the larger log-variance, for networks with learned variances.
SHARE = 0.3


def steps_of_a_gaussian(sde: Tabulated) -> dict[str, float]:
    """The expected bounds of an exact network, with a step for each entry of the table, in bits/dim.

    Levels are a Gaussian rounded to cells, so that the network of the Gaussian is off by the place of each level in its cell; its
    error is a quadratic form, and the decoders are integrals over levels and noise.
    """
    times, edges = step_times(sde.steps), torch.linspace(-1, 1, 257, dtype=torch.float64)
    probability = Normal(0.0, torch.tensor(STD, dtype=torch.float64)).cdf(edges).diff()
    second_moment = float((probability * GRID**2).sum() / probability.sum())
    alpha, sigma = sde.alpha(times), sde.sigma(times)
    factor = sigma / (alpha**2 * STD**2 + sigma**2)
    error = (factor * alpha) ** 2 * second_moment + (factor * sigma - 1) ** 2
    weight = 0.5 * torch.expm1(sde.log_snr(times[:-1]) - sde.log_snr(times[1:]))
    ratio = (sigma[:-1] / sigma[1:]) ** 2
    prior = float((alpha[-1] ** 2 * second_moment + sigma[-1] ** 2 - 1) / 2 - torch.log(sigma[-1]))
    found = {"vdm": float((weight * error[1:]).sum())}
    for name, share in (("ddpm_small", 0.0), ("ddpm_learned", SHARE), ("ddpm_large", 1.0)):
        narrower = ratio**share
        found[name] = float((0.5 * (narrower - 1 - narrower.log()) + narrower * weight * error[1:]).sum())
    # At the first time, over levels that have any probability, and over noise by its quantiles.
    levels, noise = torch.arange(256).repeat_interleave(400), Normal(0.0, 1.0).icdf((torch.arange(400) + 0.5) / 400)
    z = alpha[0] * GRID[levels] + sigma[0] * noise.double().repeat(256)
    clean = (z - sigma[0] * factor[0] * z) / alpha[0]
    beta_tilde = -torch.expm1(sde.log_snr(times[1]) - sde.log_snr(times[0])) * sigma[0] ** 2
    small, large = float(beta_tilde.sqrt()), float(sigma[0])
    for name in found:
        if name == "vdm":
            log_prob = vdm_log_prob(levels[None], z[None], float(alpha[0]), float(sigma[0]), GRID)[0]
        else:
            std = small ** (1 - SHARE) * large**SHARE if name == "ddpm_learned" else small
            log_prob = ddpm_log_prob(levels, clean, std, GRID)
        found[name] -= float((probability[levels] * log_prob).sum() / 400)
    return {name: (value + prior) / math.log(2) for name, value in found.items()}


def errors_of_a_gaussian(prediction: str, table: Tensor, count: int, seed: int) -> dict[str, float]:
    """How far the referee's bounds of steps are off the expected ones, in standard errors, by a scheduler of diffusers."""
    scheduler = SimpleNamespace(alphas_cumprod=table, config={"prediction_type": prediction})
    sde, kind = Tabulated(table), ALIASES[prediction]
    x = STD * torch.randn(count, 12, generator=Generator().manual_seed(seed), dtype=torch.float64)
    mean = network_of(of_gaussian, sde, kind)

    def network(z: Tensor, step: Tensor) -> Tensor:
        out = mean(z, (step.double() + 1) / len(table))
        return torch.cat([out, torch.full_like(out, 2 * SHARE - 1)], 1)

    given: dict[str, Any] = {"steps": len(table), "time_draws": 2, "ode_steps": 1, "seed": seed, "progress": False}
    bounds = indm.referee(network, scheduler, levels_of(x), control="pixels", **given).steps
    assert bounds is not None
    expected = steps_of_a_gaussian(sde)
    each = {name: bounds.columns[name] for name in expected}
    return {name: float((each[name].mean() - expected[name]) / each[name].std() * count**0.5) for name in each}


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_bounds_of_a_scheduler_s_steps_are_expected_values_within_their_errors(prediction: str, schedule: str) -> None:
    """Of DDPM with small, large and learned variances, and of VDM, which share their draws."""
    table = {"linear": torch.cumprod(1 - torch.linspace(1e-3, 0.2, 60, dtype=torch.float64), 0)}
    found = errors_of_a_gaussian(prediction, table.get(schedule, cosine_table(60)), 300, 0)
    assert set(found) == {"vdm", "ddpm_small", "ddpm_large", "ddpm_learned"}
    assert max(map(abs, found.values())) < 4, found
