"""Samplers on Gaussian data with the exact score: right mean and covariance, at the expected order, calls counted."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Generator, Tensor

from indm.diffusion.generate import CountedNoise
from indm.diffusion.samplers import prior_draw, sample_ode, sample_ode_fixed, sample_pc, time_grid
from indm.diffusion.sde import T
from indm.diffusion.steps import DENOISERS, PREDICTORS, tweedie
from indm.registry import DIFFUSIONS
from tests.gaussian import GaussianData

CPU = torch.device("cpu")
EPS = 1e-5
COUNT = 8000
DATA = GaussianData(4)
EACH_SDE = pytest.mark.parametrize("name", sorted(DIFFUSIONS))
# VE runs over four decades of sigma, so it needs more steps for the same accuracy; of others, nothing is known.
STEPS = dict.fromkeys(DIFFUSIONS, 1000) | {"vp": 200, "ve": 400}


def error(samples: Tensor) -> float:
    """Largest deviation of mean and covariance, in units of the data's largest standard deviation."""
    scale = DATA.covariance.diagonal().max().sqrt()
    mean = (samples.double().mean(0) - DATA.mean).abs().max() / scale
    covariance = (torch.cov(samples.double().T) - DATA.covariance).abs().max() / scale**2
    return max(mean.item(), covariance.item())


def exact(name: str) -> CountedNoise:
    sde = DIFFUSIONS[name]()
    return CountedNoise(lambda z, t: DATA.noise_fn(sde, z.double(), t).to(z.dtype))


def start(name: str) -> tuple[Tensor, Generator]:
    generator = Generator().manual_seed(0)
    return prior_draw(DIFFUSIONS[name](), (COUNT, 4), generator, CPU), generator


def draw(
    name: str,
    predictor: str,
    steps: int,
    snr: tuple[float, float] | None = None,
    corrector_steps: int = 1,
    grid: str = "uniform",
    denoise: str = "tweedie",
) -> tuple[Tensor, int]:
    noise, sde = exact(name), DIFFUSIONS[name]()
    z, generator = start(name)
    samples = sample_pc(
        noise,
        sde,
        z,
        generator,
        predictor=predictor,
        times=time_grid(sde, grid, steps, EPS),
        corrector_snr=snr,
        corrector_steps=corrector_steps,
        denoise=denoise,
    )
    return samples, noise.calls


@EACH_SDE
@pytest.mark.parametrize("predictor", sorted(PREDICTORS))
def test_predictor_reaches_the_data(name: str, predictor: str) -> None:
    samples, calls = draw(name, predictor, STEPS[name])
    assert calls == STEPS[name]
    assert error(samples) < 0.08


def moments(name: str, predictor: str, steps: int, grid: str) -> tuple[float, float]:
    """Errors of mean and variance that a predictor makes on N(0.3, 0.4), exactly: every step is affine in z."""
    sde, mean0, variance0 = DIFFUSIONS[name](), 0.3, 0.4
    times = torch.tensor(time_grid(sde, grid, steps, EPS), dtype=torch.float64)
    probe = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    end = times[0]
    # From the true marginal at T, so that only the steps err.
    mean = (sde.alpha(end) * mean0).item()
    variance = (sde.alpha(end) ** 2 * variance0 + sde.sigma(end) ** 2).item()
    for t, s in zip(times[:-1].expand(2, -1).T, times[1:].expand(2, -1).T, strict=True):
        alpha, sigma = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
        noise = sigma * (probe - alpha * mean0) / (alpha**2 * variance0 + sigma**2)
        moved, scale = PREDICTORS[predictor](sde, probe, noise, t, s)
        intercept, slope = moved[0].item(), (moved[1] - moved[0]).item()
        mean, variance = slope * mean + intercept, slope**2 * variance + scale[0].item() ** 2
    last = times[-1]
    return mean - (sde.alpha(last) * mean0).item(), variance - (
        sde.alpha(last) ** 2 * variance0 + sde.sigma(last) ** 2
    ).item()


@EACH_SDE
@pytest.mark.parametrize("grid", ["uniform", "log_snr"])
@pytest.mark.parametrize("predictor", sorted(PREDICTORS))
def test_predictors_are_of_weak_order_one(name: str, predictor: str, grid: str) -> None:
    """Twice the steps halve the error of mean and variance."""
    coarse, fine = (moments(name, predictor, steps, grid) for steps in (401, 801))
    for first, second in zip(coarse, fine, strict=True):
        # Euler-Maruyama under VE does better: its first-order errors of the variance cancel.
        assert abs(second) < 1e-6 or math.log2(abs(first / second)) > 0.8


@EACH_SDE
@pytest.mark.parametrize(("second_order", "order"), [(False, 1), (True, 2)])
def test_fixed_step_ode_is_of_its_order(name: str, second_order: bool, order: int) -> None:
    """Against the exact flow of the ODE, which is affine for Gaussian data."""
    sde = DIFFUSIONS[name]()
    z = prior_draw(sde, (50, 4), Generator().manual_seed(0), CPU).double()
    ends = torch.tensor([T, EPS], dtype=torch.float64)
    alpha, sigma = sde.alpha(ends)[:, None], sde.sigma(ends)[:, None]
    std = (alpha**2 * DATA.variances + sigma**2).sqrt()
    rotated = (z - alpha[0] * DATA.mean) @ DATA.axes * (std[1] / std[0])
    expected = alpha[1] * DATA.mean + rotated @ DATA.axes.T
    errors = []
    for steps in (80, 160):
        noise = exact(name)
        times = time_grid(sde, "log_snr", steps + 1, EPS)
        found = sample_ode_fixed(noise, sde, z, times=times, second_order=second_order, denoise="none")
        assert noise.calls == steps * (2 if second_order else 1)
        errors.append((found - expected).norm().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


@EACH_SDE
@pytest.mark.parametrize("points", [2, 3, 10, 1000])
def test_grids_fall_from_the_end_to_eps(name: str, points: int) -> None:
    for grid in ("uniform", "log_snr"):
        times = time_grid(DIFFUSIONS[name](), grid, points, EPS)
        assert len(times) == points
        assert (times[0], times[-1]) == (T, EPS)
        assert all(a > b for a, b in pairwise(times))


@pytest.mark.parametrize("grid", ["uniform", "log_snr"])
@pytest.mark.parametrize("predictor", ["ancestral", "reverse_diffusion"])
def test_few_steps_stay_finite(predictor: str, grid: str) -> None:
    samples, calls = draw("vp", predictor, 4, grid=grid)
    assert calls == 4
    assert torch.isfinite(samples).all()


def test_corrector_is_counted_and_keeps_the_law() -> None:
    samples, calls = draw("ve", "reverse_diffusion", 100, snr=(0.16, 0.16))
    assert calls == 200
    assert error(samples) < 0.15
    assert draw("ve", "reverse_diffusion", 10, snr=(0.16, 0.05), corrector_steps=2)[1] == 30


def test_corrector_schedule_changes_the_samples() -> None:
    constant, falling = (draw("ve", "reverse_diffusion", 10, snr=snr)[0] for snr in ((0.16, 0.16), (0.16, 0.01)))
    assert not torch.equal(constant, falling)


@EACH_SDE
def test_ode_reaches_the_data(name: str) -> None:
    noise = exact(name)
    samples = sample_ode(noise, DIFFUSIONS[name](), start(name)[0], eps=EPS, tolerance=1e-4, denoise="tweedie")
    assert error(samples) < 0.06
    assert noise.calls > 10


@EACH_SDE
def test_tweedie_is_the_posterior_mean(name: str) -> None:
    """At any time, by regression: E[z_0 | z_t] is affine with the posterior's coefficients."""
    sde, t = DIFFUSIONS[name](), 0.4
    z0 = DATA.draw(1000)
    times = torch.full((1000,), t, dtype=torch.float64)
    alpha, sigma = sde.alpha(times[0]), sde.sigma(times[0])
    z_t = alpha * z0 + sigma * torch.randn_like(z0)
    gain = alpha * DATA.covariance @ torch.linalg.inv(alpha**2 * DATA.covariance + sigma**2 * torch.eye(4).double())
    expected = DATA.mean + (z_t - alpha * DATA.mean) @ gain.T
    torch.testing.assert_close(tweedie(exact(name), sde, z_t, times), expected)


def test_released_ve_denoising_overshoots_by_the_log_ratio() -> None:
    """ln(5000) = 8.5 times Tweedie's step: (t + 1) g^2 / 2 against sigma^2."""
    sde, z = DIFFUSIONS["ve"](), DATA.draw(10)
    times = torch.full((10,), EPS, dtype=torch.float64)
    steps = {name: denoiser(exact("ve"), sde, z, times) - z for name, denoiser in DENOISERS.items()}
    torch.testing.assert_close(steps["released_ve"], math.log(5000) * (1 + EPS) * steps["tweedie"])
    assert not steps["none"].any()


def test_prior_can_be_centred() -> None:
    mean = torch.tensor([1.0, 2.0, 3.0, 4.0])
    centred, plain = (prior_draw(DIFFUSIONS["ve"](), (5, 4), Generator().manual_seed(0), CPU, m) for m in (mean, None))
    torch.testing.assert_close(centred - plain, mean.expand(5, 4), rtol=0, atol=1e-4)


def test_same_seed_same_samples() -> None:
    assert torch.equal(draw("vp", "ancestral", 10)[0], draw("vp", "ancestral", 10)[0])
