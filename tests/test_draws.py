"""Likelihoods whose random numbers are an image's own, beside those of a batch, whose numbers stay as they were published."""

import json
import math
from functools import partial
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Generator, Tensor

import indm
from indm.diffusion.draws import of_images
from indm.diffusion.evaluation import Evaluation, bounds, control_of, likelihoods
from indm.diffusion.likelihood import GaussianControl, nelbo_alone, strata, stratified_nelbo
from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.diffusion.path import LinearPath
from indm.diffusion.sde import T, build_sde, importance_time
from indm.errors import ParamsError
from indm.flows.cosine import cosine_basis, to_cosine
from indm.library import load_run
from tests.conftest import GOLDEN
from tests.test_library import digits
from tests.test_training import model

CPU = torch.device("cpu")
EPS = 1e-5
SIZES = (1, 7, 100)
# Rounding of float32 in networks whose matmuls take other paths for other sizes of batches.
ROUNDING = 2e-4


def evaluation(batch_size: int = 100, **changes: Any) -> Evaluation:
    settings: dict[str, Any] = {"time_draws": 2, "tolerance": None, "ode_steps": 2, "log_det_tolerance": 1e-3}
    return Evaluation(**settings | {"batch_size": batch_size, "uncorrected": True, "draws": "image"} | changes)


def small(flow: str = "resflow") -> ImplicitNonlinearDiffusion:
    return model(flow).eval().requires_grad_(False)


def images(count: int = 9) -> Tensor:
    return torch.randint(0, 17, (count, 1, 8, 8), generator=Generator().manual_seed(0), dtype=torch.uint8)


def numbers(network: Any, pixels: Tensor, settings: Evaluation, training: Tensor | None = None) -> pd.DataFrame:
    """Likelihoods of images, and their bounds alone as a search has them."""
    options: dict[str, Any] = {"seed": ("digits", 4), "device": CPU}
    options |= {"training": None if training is None else lambda: training}
    table = likelihoods(network, pixels, 17, settings, description="", once=lambda _, make: make(), **options)
    return table.assign(bounds=bounds(network, pixels, 17, settings, **options).numpy())


# ----------------------------------------------------------------------------------------------------------------------
# Draws by batch, as published


@pytest.mark.parametrize("flow", ["resflow", "identity"])
def test_draws_by_batch_give_the_numbers_that_they_gave_before_there_were_others(flow: str) -> None:
    """Twelve images in batches of five, with every number; other draws move them by a hundredth and more.

    The golden numbers are of commit 5ef1992e. Random weights, because a suite that is run again has other weights.
    """
    golden = pd.DataFrame(json.loads((GOLDEN / "likelihoods.json").read_text())[flow])
    found = numbers(moved(small(flow)), images(12), Evaluation(5, 3, None, 4, 1e-3, uncorrected=True))
    pd.testing.assert_frame_equal(found[list(golden)], golden, rtol=1e-4, atol=1e-4)


def moved(network: ImplicitNonlinearDiffusion) -> ImplicitNonlinearDiffusion:
    """Move every parameter, so that no part of the network is zero as at its initialisation."""
    generator = Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


# ----------------------------------------------------------------------------------------------------------------------
# Draws by image


@pytest.mark.parametrize(("flow", "control"), [("resflow", "cosine"), ("identity", "pixels")])
def test_a_number_does_not_depend_on_the_batch_size(flow: str, control: str) -> None:
    found = [numbers(small(flow), images(), evaluation(size, control=control), images(20)) for size in SIZES]
    for other in found[1:]:
        pd.testing.assert_frame_equal(other, found[0], rtol=0, atol=ROUNDING)
    by_batch = [numbers(small(flow), images(), evaluation(size, draws="batch")) for size in (1, 7)]
    assert (by_batch[0] - by_batch[1]).abs().max().max() > 100 * ROUNDING


def test_a_number_does_not_depend_on_the_other_images_and_is_of_the_seed() -> None:
    whole, part = (numbers(small(), images()[:count], evaluation(), images(20)) for count in (9, 4))
    pd.testing.assert_frame_equal(whole[:4], part, rtol=0, atol=ROUNDING)
    same = numbers(small(), images()[:1].expand(4, -1, -1, -1), evaluation(), images(20))
    assert same["nelbo"].std() > 100 * ROUNDING


def test_the_numbers_of_a_run_in_python_do_not_depend_on_the_batch_size() -> None:
    run = load_run("digits-vp-indm-nll-s4")
    settings: dict[str, Any] = {"ode_steps": 4, "time_draws": 2, "log_det_tolerance": 1e-3}
    found = [run.likelihood(digits(9), batch_size=size, **settings) for size in SIZES]
    for other in found[1:]:
        torch.testing.assert_close(other.nelbo, found[0].nelbo, rtol=0, atol=ROUNDING)
        torch.testing.assert_close(other.nll, found[0].nll, rtol=0, atol=ROUNDING)
    fitted = run.likelihood(digits(9), training=digits(60)[20:], **settings)
    assert (fitted.nelbo - found[0].nelbo).abs().max() > 1e-3
    torch.testing.assert_close(fitted.nll, found[0].nll, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(("shape", "control"), [((1, 4, 4), None), ((12,), "pixels")])
def test_the_numbers_of_the_referee_do_not_depend_on_the_batch_size(
    shape: tuple[int, ...], control: str | None
) -> None:
    pixels = torch.randint(0, 256, (9, *shape), generator=Generator().manual_seed(0), dtype=torch.uint8)
    options: dict[str, Any] = {"time_draws": 2, "ode_steps": 2, "control": control}
    found = [
        indm.referee(
            lambda x, t: torch.tanh(x) * t.view(-1, *[1] * (x.dim() - 1)),
            build_sde("vp"),
            pixels,
            batch_size=size,
            **options,
        ).images
        for size in SIZES
    ]
    for other in found[1:]:
        pd.testing.assert_frame_equal(other, found[0], rtol=0, atol=ROUNDING)


def test_bases_that_do_not_fit_are_refused_by_library_and_referee() -> None:
    run, pixels = load_run("digits-vp-ddpmpp-nll-s4"), torch.zeros(2, 12, dtype=torch.uint8)
    wrong: list[tuple[dict[str, Any], str]] = [({"draws": "pixel"}, "draws: found 'pixel'")]
    wrong += [({"control": "wavelet"}, "control: found 'wavelet'")]
    wrong += [
        ({"draws": "batch", "control": "cosine"}, "control: found 'cosine', expected pixels, or cosine with draws")
    ]
    for options, words in wrong:
        with pytest.raises(ParamsError, match=words):
            run.likelihood(digits(1), **options)
    with pytest.raises(ParamsError, match=r"control: found 'cosine' for images \(2, 12\)"):
        indm.referee(lambda x, t: x, build_sde("vp"), pixels, control="cosine")


def test_times_of_an_image_are_stratified() -> None:
    """Each image meets one time in each of ten equal shares of the log-SNR, and no two images meet the same."""
    sde, z0 = build_sde("vp"), torch.zeros(5, 1, 4, 4)
    met = torch.stack([t for t, _ in strata(sde, z0, EPS, 10, of_images(range(5), "seed"))])
    a = sde.antiderivative(met)
    low, high = sde.antiderivative(torch.tensor([EPS, T], dtype=torch.float64))
    places = (a - low) / (high - low) * 10
    assert torch.equal(places.floor().long(), torch.arange(10)[:, None].expand(10, 5))
    assert (places.frac().flatten().unique().numel(), met.dtype) == (50, torch.float64)


def test_images_of_one_seed_meet_the_same_noise_whatever_their_flow_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[Tensor] = []

    def note(_: Any, __: Any, z0: Tensor, ___: Tensor, noise: Tensor, *____: Any) -> tuple[Tensor, Tensor]:
        met.append(noise)
        return z0.new_zeros(len(z0)), z0.new_zeros(len(z0))

    monkeypatch.setattr("indm.diffusion.likelihood._bound_and_cost", note)
    for flow in ("identity", "resflow"):
        bounds(small(flow), images(4), 17, evaluation(), seed=("digits", 0), device=CPU)
    assert torch.equal(*met)


# ----------------------------------------------------------------------------------------------------------------------
# The control variate


class CosineGaussian:
    """Gaussian images whose cosine coefficients are independent, with the exact noise prediction."""

    def __init__(self, channels: int = 2, size: int = 4) -> None:
        k = torch.arange(size, dtype=torch.float64)
        self.variance = (1 / (1 + k[:, None] + k) ** 2).expand(channels, -1, -1).clone()
        self.mean = torch.zeros_like(self.variance)
        self.mean[:, 0, 0] = 0.7
        self.basis = cosine_basis(size)

    def draw(self, count: int) -> Tensor:
        noise = torch.randn(count, *self.mean.shape, generator=Generator().manual_seed(1), dtype=torch.float64)
        return self.basis.T @ (self.mean + self.variance.sqrt() * noise) @ self.basis

    def noise_fn(self, sde: Any, z: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (value.view(-1, 1, 1, 1) for value in (sde.alpha(t), sde.sigma(t)))
        y = self.basis @ z @ self.basis.T
        return self.basis.T @ (sigma * (y - alpha * self.mean) / (alpha**2 * self.variance + sigma**2)) @ self.basis


@pytest.mark.parametrize("name", ["vp", "ve"])
def test_the_bound_of_data_with_independent_cosine_coefficients_has_no_variance(name: str) -> None:
    """With the moments of the data, the control variate is the error, draw by draw, so that one draw of time gives the mean."""
    sde, data = build_sde(name), CosineGaussian()
    x, exact = data.draw(50), GaussianControl(sde, data.mean, data.variance, cosine=True)
    zeros = torch.zeros(len(x), dtype=torch.float64)
    bound = partial(stratified_nelbo, partial(data.noise_fn, sde), LinearPath(sde), x, zeros, EPS)
    one, other, many = (bound(draws, Generator().manual_seed(seed), exact) for draws, seed in ((1, 0), (1, 1), (50, 2)))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-8)
    torch.testing.assert_close(one, many, rtol=0, atol=1e-8)
    pixels = GaussianControl(sde, x.mean(0), x.var(0))
    assert (bound(1, Generator().manual_seed(0), pixels) - one).abs().max() > 1


@pytest.mark.parametrize("name", ["vp", "ve"])
def test_the_control_variate_in_the_cosine_basis_is_unbiased_for_any_moments(name: str) -> None:
    """Planted moments that are far off leave the mean over draws, for each image."""
    sde, data = build_sde(name), CosineGaussian()
    x, count = data.draw(1), 40_000
    planted = GaussianControl(sde, data.mean + 0.5, 3 * data.variance + 0.1, cosine=True)
    u = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    t, _ = importance_time(sde, u, EPS)
    noise = torch.randn(count, *x.shape[1:], generator=Generator().manual_seed(0), dtype=torch.float64)
    draws = planted.draw(x, t, noise)
    assert abs(draws.mean() - planted.expectation(x, EPS)[0]) < 4 * draws.std() / count**0.5


def test_moments_are_of_training_images_and_not_of_the_batch() -> None:
    network, settings = small("identity"), evaluation(control="cosine")
    control = control_of(network, images(300), 17, settings, CPU)
    # Independent levels from 0 to 16, dequantised, of a map that turns them.
    level, cell = (17**2 - 1) / 12 + 1 / 12, 2 / 17
    assert control.variance.mean().item() == pytest.approx(cell**2 * level, rel=0.05)
    assert control.mean[0, 0, 0].item() == pytest.approx(0, abs=0.3)


def test_draws_by_batch_do_not_read_the_training_images() -> None:
    """Their jobs do not have them as an input, so that they may not be there."""

    def absent() -> torch.Tensor:
        raise AssertionError("training images were read")

    options: dict[str, Any] = {"seed": ("digits", 4), "device": CPU, "training": absent}
    settings = evaluation(draws="batch")
    likelihoods(small("identity"), images(2), 17, settings, description="", once=lambda _, make: make(), **options)
    bounds(small("identity"), images(2), 17, settings, **options)
    with pytest.raises(AssertionError, match="training images were read"):
        bounds(small("identity"), images(2), 17, evaluation(), **options)


def test_a_single_image_gives_the_control_variate_a_variance() -> None:
    """Without one, its error grows without bound where the noise vanishes."""
    control = GaussianControl.fitted(build_sde("vp"), to_cosine(torch.rand(1, 1, 4, 4)), cosine=True)
    assert (control.variance > 0.01).all()
    found = load_run("digits-vp-ddpmpp-nll-s4").likelihood(digits(1), ode_steps=1, time_draws=40)
    assert found.nelbo.item() < 5


def test_the_number_of_images_with_an_ode_moves_no_other_number() -> None:
    """Neither the bound nor the likelihoods of the images that keep one; batches of four end before, in and after."""
    whole = numbers(small(), images(), evaluation(4))
    for count in (0, 6, 9, 20):
        found = numbers(small(), images(), evaluation(4, ode_images=count))
        pd.testing.assert_frame_equal(found[:count], whole[:count], rtol=0, atol=ROUNDING)
        assert found[["nelbo", "nelbo_no_reconstruction", "bounds"]].equals(
            whole[["nelbo", "nelbo_no_reconstruction", "bounds"]]
        )
        assert found[count:][["nll", "nll_uncorrected", "gap"]].isna().all(axis=None)


def test_the_bound_of_draws_by_image_is_within_its_error_of_the_bound_by_batch() -> None:
    """The mean over images, whose noise differs."""
    data, sde = CosineGaussian(1), build_sde("vp")
    x = data.draw(4000)
    options: dict[str, Any] = {"eps": EPS, "time_draws": 4}
    flow = lambda z: (z, torch.zeros(len(z), dtype=z.dtype))  # noqa: E731
    of = partial(nelbo_alone, lambda z, t: 0.9 * data.noise_fn(sde, z, t), LinearPath(sde), flow, x, **options)
    found = of(generator=of_images(range(len(x)), "seed")) - of(generator=Generator().manual_seed(0))
    assert abs(found.mean()) < 4 * found.std() / math.sqrt(len(x))
