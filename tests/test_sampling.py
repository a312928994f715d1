"""Samplers on Gaussian data with the exact score: right mean and covariance, counted calls."""

import pytest
import torch
from torch import Generator, Tensor

from indm.sampling import PREDICTORS, CountedNoise, sample_ode, sample_pc
from indm.sde import SDES
from tests.gaussian import GaussianData

CPU = torch.device("cpu")
EPS = 1e-5
COUNT = 8000
DATA = GaussianData(4)


def error(samples: Tensor) -> float:
    """Largest deviation of mean and covariance, in units of the data's largest standard deviation."""
    scale = DATA.covariance.diagonal().max().sqrt()
    mean = (samples.double().mean(0) - DATA.mean).abs().max() / scale
    covariance = (torch.cov(samples.double().T) - DATA.covariance).abs().max() / scale**2
    return max(mean.item(), covariance.item())


def exact(name: str) -> CountedNoise:
    sde = SDES[name]()
    return CountedNoise(lambda z, t: DATA.noise_fn(sde, z.double(), t).to(z.dtype))


def draw(name: str, predictor: str, steps: int, snr: float | None = None) -> tuple[Tensor, int]:
    noise = exact(name)
    samples = sample_pc(
        noise,
        SDES[name](),
        (COUNT, 4),
        Generator().manual_seed(0),
        predictor=predictor,
        steps=steps,
        corrector_snr=snr,
        eps=EPS,
        device=CPU,
    )
    return samples, noise.calls


# VE runs over five decades of sigma on a uniform grid, so it needs more steps for the same accuracy.
STEPS = {"vp": 200, "ve": 400}


@pytest.mark.parametrize("name", sorted(SDES))
@pytest.mark.parametrize("predictor", sorted(PREDICTORS))
def test_predictor_reaches_the_data(name: str, predictor: str) -> None:
    samples, calls = draw(name, predictor, STEPS[name])
    assert calls == STEPS[name]
    assert error(samples) < 0.08


@pytest.mark.parametrize("name", sorted(SDES))
def test_error_falls_with_steps(name: str) -> None:
    few, many = (error(draw(name, "ancestral", steps)[0]) for steps in (6, 100))
    assert few > 3 * many


@pytest.mark.parametrize("predictor", ["ancestral", "reverse_diffusion"])
def test_few_steps_stay_finite(predictor: str) -> None:
    samples, calls = draw("vp", predictor, 4)
    assert calls == 4
    assert torch.isfinite(samples).all()


def test_corrector_is_counted_and_keeps_the_law() -> None:
    samples, calls = draw("ve", "reverse_diffusion", 100, snr=0.16)
    assert calls == 200
    assert error(samples) < 0.15


@pytest.mark.parametrize("name", sorted(SDES))
def test_ode_reaches_the_data(name: str) -> None:
    noise = exact(name)
    samples = sample_ode(
        noise, SDES[name](), (COUNT, 4), Generator().manual_seed(0), tolerance=1e-4, eps=EPS, device=CPU
    )
    assert error(samples) < 0.06
    assert noise.calls > 10


def test_same_seed_same_samples() -> None:
    assert torch.equal(draw("vp", "ancestral", 10)[0], draw("vp", "ancestral", 10)[0])
