"""The schedules of MuLAN: likelihoods against closed forms, and against the ordinary diffusion where they do not differ."""

import math

import torch
from torch import Generator, Tensor

from indm.diffusion.families.registered.mulan import PixelSchedules
from indm.diffusion.likelihood import four_numbers
from indm.diffusion.registered.vp import VP
from indm.diffusion.samplers.loops import Schedule
from indm.diffusion.sde import SDE
from indm.registry import SAMPLERS

EPS, SHAPE = 1e-5, (1, 2, 2)
MEAN = torch.linspace(-0.5, 0.5, 4, dtype=torch.float64).reshape(SHAPE)
VARIANCE = torch.tensor([0.05, 0.2, 0.5, 1.0], dtype=torch.float64).reshape(SHAPE)


def schedules(*bends: float) -> PixelSchedules:
    sde = PixelSchedules(VP(), EPS, SHAPE).requires_grad_(False)
    sde.bends.copy_(torch.tensor(bends).reshape(SHAPE))
    return sde


def exact_noise(sde: PixelSchedules, z: Tensor, t: Tensor) -> Tensor:
    """Noise prediction of Gaussian data with independent pixels."""
    a, _ = sde.paths(t)
    alpha2, sigma2 = torch.sigmoid(-a), torch.sigmoid(a)
    return sigma2.sqrt() * (z - alpha2.sqrt() * MEAN) / (alpha2 * VARIANCE + sigma2)


def numbers(sde: SDE, exact: PixelSchedules, x: Tensor) -> dict[str, Tensor]:
    return four_numbers(
        lambda z, t: exact_noise(exact, z, t),
        sde,
        lambda images: (images, images.new_zeros(len(images))),
        x,
        eps=EPS,
        time_draws=20,
        tolerance=1e-5,
        ode_steps=1,
        uncorrected=False,
        generator=Generator().manual_seed(0),
    )


def data(count: int) -> Tensor:
    noise = torch.randn((count, *SHAPE), generator=Generator().manual_seed(1), dtype=torch.float64)
    return MEAN + VARIANCE.sqrt() * noise


def test_likelihoods_of_gaussian_data_are_exact_whatever_the_schedules() -> None:
    bent, x = schedules(-2.0, -0.5, 0.5, 2.0), data(20_000)
    truth = -torch.distributions.Normal(MEAN, VARIANCE.sqrt()).log_prob(x).flatten(1).sum(1)
    found = {key: (values - truth) / (4 * math.log(2)) for key, values in numbers(bent, bent, x).items()}
    assert abs(found["nll"].mean()) < 1e-3
    # The bound's control variate has the ordinary schedule: it leaves the bound unbiased, but takes away less of its noise.
    error = found["nelbo"].std() / math.sqrt(len(x))
    assert abs(found["nelbo"].mean()) < 4 * error
    assert error < 0.03


def test_pixels_of_one_straight_schedule_are_the_ordinary_diffusion() -> None:
    straight, x = schedules(0.0, 0.0, 0.0, 0.0), data(8)
    ordinary = numbers(VP(), straight, x)
    for key, values in numbers(straight, straight, x).items():
        torch.testing.assert_close(values, ordinary[key], rtol=1e-4, atol=1e-4)


def test_samples_have_the_moments_of_gaussian_data() -> None:
    bent = schedules(-2.0, -0.5, 0.5, 2.0)
    start = torch.randn((20_000, *SHAPE), generator=Generator().manual_seed(2), dtype=torch.float64)
    schedule = Schedule([1.0, EPS], tolerance=1e-5)
    drawn = SAMPLERS["ode"](lambda z, t: exact_noise(bent, z, t), bent, start, schedule, Generator())
    torch.testing.assert_close(drawn.mean(0), MEAN, rtol=0, atol=0.03)
    torch.testing.assert_close(drawn.var(0), VARIANCE, rtol=0.05, atol=0)
