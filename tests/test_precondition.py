"""Preconditioned networks against Gaussian data whose cosine coefficients are independent, with a mean that is not zero."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

from indm.bench.models.begin import step_flops
from indm.bench.models.spec import build_trainer, model_spec
from indm.bench.suite.load import load_suite
from indm.bench.suite.schema.suite import Suite
from indm.bench.trials import with_trial
from indm.diffusion.likelihood import four_numbers
from indm.diffusion.model import load_model
from indm.diffusion.noise import NoiseModel
from indm.diffusion.objectives import perturb
from indm.diffusion.path import LinearPath
from indm.diffusion.precondition import Kind, Preconditioner
from indm.diffusion.sde import SDE, T, build_sde
from indm.errors import DataError
from indm.flows.cosine import cosine_basis, to_cosine
from indm.flows.fixed import FixedFilter, over_circles
from indm.training.batches import draw
from indm.training.saving import write_training
from tests.conftest import REPOSITORY

SHAPE = CHANNELS, SIZE, _ = (2, 4, 4)
DIMS = math.prod(SHAPE)
# Late enough that the decoder costs several nats.
LATE = 0.1
KINDS: tuple[Kind, ...] = ("spectrum", "skip")
RUN = "digits-vp-ddpmpp-nll-s0"


class Data:
    """Gaussian images whose density is that of a dense covariance, which does not know the cosine transform."""

    def __init__(self) -> None:
        frequency = torch.arange(SIZE, dtype=torch.float64)
        self.variance = 0.5 / (1 + frequency + frequency[:, None]) ** 3 * torch.tensor([1.0, 0.1])[:, None, None]
        self.mean = 0.3 * torch.randn(SHAPE, generator=seeded(3), dtype=torch.float64)
        basis = torch.block_diag(*[torch.kron(cosine_basis(SIZE), cosine_basis(SIZE))] * CHANNELS)
        self.covariance = basis.T @ self.variance.flatten().diag() @ basis
        self.pixels = basis.T @ self.mean.flatten()

    def draw(self, count: int, seed: int = 1) -> Tensor:
        noise = torch.randn(count, DIMS, generator=seeded(seed), dtype=torch.float64)
        return (self.pixels + noise @ torch.linalg.cholesky(self.covariance).T).view(-1, *SHAPE)

    def noise(self, sde: SDE, z: Tensor, t: Tensor) -> Tensor:
        """The expected noise given z_t, by the dense covariance, one image after the other."""
        alphas, sigmas, noises = sde.alpha(t), sde.sigma(t), []
        for alpha, sigma, image in zip(alphas, sigmas, z.flatten(1), strict=True):
            covariance = alpha**2 * self.covariance + sigma**2 * torch.eye(DIMS, dtype=torch.float64)
            noises.append(sigma * torch.linalg.solve(covariance, image - alpha * self.pixels))
        return torch.stack(noises).view_as(z)

    def entropy(self) -> float:
        return 0.5 * self.covariance.logdet().item() + 0.5 * DIMS * math.log(2 * math.pi * math.e)


class Network(nn.Module):
    """A network with a given output for each image."""

    scale_by_sigma, embedding = False, "log_snr"

    def __init__(self, output: Tensor | float = 0.0) -> None:
        super().__init__()
        self.output, self.seen = output, torch.empty(0)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        self.seen = x
        return torch.zeros_like(x) + self.output


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def fitted(kind: Kind, data: Data) -> Preconditioner:
    found = Preconditioner(kind, SHAPE).double()
    found.mean.copy_(data.mean)
    found.variance.copy_(data.variance)
    return found


def noise_model(kind: Kind, sde: SDE, output: Tensor | float = 0.0, predict: Any = "noise") -> NoiseModel:
    return NoiseModel(Network(output), sde, predict=predict, precondition=fitted(kind, Data()))  # type: ignore[arg-type]


def noisy(sde: SDE, count: int = 9) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return z_t, t, z_0 and the noise of a few images, one for each of times from eps to 1."""
    t = torch.logspace(-5, 0, count, dtype=torch.float64)
    z0, noise = Data().draw(count), torch.randn((count, *SHAPE), generator=seeded(2), dtype=torch.float64)
    return perturb(sde, z0, t, noise), t, z0, noise


@pytest.mark.parametrize("predict", ["noise", "v"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["vp", "ve"])
def test_a_network_that_says_nothing_predicts_the_conditional_mean(name: str, kind: Kind, predict: str) -> None:
    sde = build_sde(name)
    z, t, *_ = noisy(sde)
    found = noise_model(kind, sde, predict=predict)(z, t)
    torch.testing.assert_close(found, Data().noise(sde, z, t), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["vp", "ve"])
def test_both_predictions_are_the_same_for_the_same_network(name: str) -> None:
    sde = build_sde(name)
    z, t, *_ = noisy(sde)
    output = torch.randn(z.shape, generator=seeded(5), dtype=torch.float64)
    noise, v = (noise_model("spectrum", sde, output, predict)(z, t) for predict in ("noise", "v"))
    torch.testing.assert_close(noise, v, rtol=1e-10, atol=1e-10)
    assert (noise - noise_model("spectrum", sde)(z, t)).abs().max() > 0.1


@pytest.mark.parametrize("name", ["vp", "ve"])
def test_a_skip_leaves_input_and_output_alone(name: str) -> None:
    sde = build_sde(name)
    z, t, *_ = noisy(sde)
    model, silent = noise_model("skip", sde, 0.7), noise_model("skip", sde)
    torch.testing.assert_close(model(z, t), silent(z, t) + 0.7)
    assert torch.equal(model.network.seen, z)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["vp", "ve"])
def test_input_and_target_have_variance_one_at_every_frequency_and_time(name: str) -> None:
    """The target is the network's output with which the noise is exact; 40,000 images bring variances within 4 %."""
    sde, data, count = build_sde(name), Data(), 40_000
    for time in (1e-5, 0.1, 0.5, 1.0):
        z0, t = data.draw(count), torch.full((count,), time, dtype=torch.float64)
        noise = torch.randn((count, *SHAPE), generator=seeded(2), dtype=torch.float64)
        alpha, sigma, deviation = sde.alpha(t[0]), sde.sigma(t[0]), data.variance.sqrt()
        centred = to_cosine(z0) - data.mean
        target = (alpha * deviation * to_cosine(noise) - sigma * centred / deviation) / (
            alpha**2 * data.variance + sigma**2
        ).sqrt()
        model = noise_model("spectrum", sde, cosine_basis(SIZE).T @ target @ cosine_basis(SIZE))
        torch.testing.assert_close(model(perturb(sde, z0, t, noise), t), noise, rtol=1e-7, atol=1e-7)
        for values in (to_cosine(model.network.seen), target):  # type: ignore[arg-type]
            torch.testing.assert_close(values.var(0), torch.ones_like(data.variance), rtol=0.04, atol=0)
            assert values.mean(0).abs().max() < 0.03


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["vp", "ve"])
def test_bound_and_likelihood_of_a_network_that_says_nothing_have_their_closed_forms(name: str, kind: Kind) -> None:
    r"""Beside the entropy, bound and likelihood have two costs, for each coefficient with v = alpha^2 S + sigma^2 at T and at eps.

    .. math::
        \mathrm{KL}(p_T\|\pi) = \tfrac12\Big(\frac{v_T + (\alpha_T m)^2}{s^2} - 1 - \log\frac{v_T}{s^2}\Big), \qquad
        \mathrm{decoder} = \tfrac12\Big(r - 1 - \log r\Big), \quad r = \frac{\alpha_\epsilon^2 S}{v_\epsilon}
    """
    sde, data, count = build_sde(name), Data(), 4000
    end, begin = (torch.tensor(time, dtype=torch.float64) for time in (T, LATE))
    late = sde.alpha(end) ** 2 * data.variance + sde.sigma(end) ** 2
    spread = late / sde.prior_std**2
    prior = 0.5 * (spread + (sde.alpha(end) * data.mean / sde.prior_std) ** 2 - 1 - spread.log()).sum()
    signal = sde.alpha(begin) ** 2 * data.variance
    ratio = signal / (signal + sde.sigma(begin) ** 2)
    decoder = 0.5 * (ratio - 1 - ratio.log()).sum()
    x = data.draw(count)
    numbers = four_numbers(
        noise_model(kind, sde),
        LinearPath(sde),
        lambda images: (images, torch.zeros(len(images), dtype=images.dtype)),
        x,
        eps=LATE,
        time_draws=40,
        tolerance=1e-6,
        ode_steps=1,
        uncorrected=False,
        generator=seeded(0),
    )
    truth = -torch.distributions.MultivariateNormal(data.pixels, data.covariance).log_prob(x.flatten(1))
    # The entropy in place of the images' own log-densities has their spread, which differences from the truth do not have.
    assert truth.mean().item() == pytest.approx(data.entropy(), abs=4 * truth.std().item() / count**0.5)
    assert decoder > 1
    for metric in ("nelbo", "nll"):
        excess = numbers[metric] - truth
        error = excess.std().item() / count**0.5
        assert error < 0.1
        assert excess.mean().item() == pytest.approx((prior + decoder).item(), abs=4 * error), metric


@pytest.mark.parametrize("size", [100, 7])
def test_mean_and_spectrum_are_those_of_the_latents_however_batched(size: int) -> None:
    x, found = Data().draw(300), Preconditioner("spectrum", SHAPE).double()
    found.fit(lambda: x.split(size))
    coefficients = to_cosine(x).numpy()
    np.testing.assert_allclose(found.mean, coefficients.mean(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.variance, coefficients.var(0), rtol=1e-9)


def test_a_coefficient_that_does_not_vary_is_refused() -> None:
    x = Data().draw(20)
    x[:, 1] = x[:1, 1]
    with pytest.raises(DataError, match=r"train.score.precondition: found variance .* of the coefficient \(1, 0, 0\)"):
        Preconditioner("skip", SHAPE).fit(lambda: [x.round(decimals=3)])


# ----------------------------------------------------------------------------------------------------------------------
# In a model


def suite(kind: str, **train: Any) -> Suite:
    found = load_suite(REPOSITORY / "params/smoke.yaml")
    score = found.runs[RUN].train.model_dump(exclude_unset=True).get("score") or {}
    return with_trial(found, RUN, 0, {"score": score | {"precondition": kind, "normalise_input": "none"}} | train)


def digits(count: int = 256) -> Tensor:
    """Levels of smooth images, whose spectrum is steep."""
    noise = torch.randn(count, 1, 8, 8, generator=seeded(0)).cumsum(2).cumsum(3)
    return (8 + noise).round().clamp(0, 16).to(torch.uint8)


def trained(kind: str, steps: int = 2, **train: Any) -> Any:
    torch.manual_seed(0)
    x = (digits().float() + 0.5) / 8.5 - 1
    trainer = build_trainer(suite(kind, **train), RUN, [1, 8, 8], torch.device("cpu"), batches=lambda: x.split(100))
    for step in range(steps):
        trainer.step(draw(digits(), 17, 32, ("digits", 0), step), 1.0)
    return trainer


@pytest.mark.parametrize("kind", KINDS)
def test_constants_are_stored_with_the_model_and_read_again(tmp_path: Path, kind: Kind) -> None:
    trainer = trained(kind)
    write_training(tmp_path, trainer, [{"step": 2, "flow_loss": 0.0}], {"run": RUN, "step": 2}, {})
    weights = {"score": "ema", "flow": "ema"}
    read = load_model(tmp_path / "checkpoint.safetensors", torch.device("cpu"), weights)
    first = trainer.model.noise.precondition
    assert torch.equal(read.noise.precondition.variance, first.variance)  # type: ignore[union-attr]
    assert first.variance.std() > 0.1 * first.variance.mean()
    z, t = torch.randn(4, 1, 8, 8), torch.full((4,), 0.3, dtype=torch.float64)
    assert torch.equal(read.noise(z, t), trainer.averaged().noise(z, t))


def test_the_latent_is_the_data_and_behind_a_fixed_filter_the_filters() -> None:
    alone = trained("spectrum", steps=0).model
    x = torch.randn(3, 1, 8, 8)
    latent, log_det = alone.flow(x, "exact")
    assert torch.equal(latent, x)
    assert not log_det.any()
    fixed = {"latent": {"fixed": {"curve": False, "exponent": 0.5}}}
    behind = trained("spectrum", steps=0, **fixed).model
    torch.testing.assert_close(behind.noise.precondition.variance, torch.ones(1, 8, 8), rtol=1e-4, atol=0)


def test_only_the_network_computes_in_bfloat16() -> None:
    model = trained("spectrum", steps=0).model
    for parameter in model.noise.network.conv_out.parameters():
        nn.init.zeros_(parameter)
    z, t = torch.randn(4, 1, 8, 8), torch.full((4,), 0.3, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.noise(z, t)
    assert torch.equal(found, model.noise(z, t))


def test_models_without_one_have_the_description_of_before() -> None:
    found = load_suite(REPOSITORY / "params/smoke.yaml")
    assert "precondition" not in model_spec(found, RUN, [1, 8, 8])["score"]
    assert model_spec(suite("skip"), RUN, [1, 8, 8])["score"]["precondition"] == "skip"


def test_operations_of_a_step_are_counted_with_the_transforms() -> None:
    """Each transform of an image of S x S takes 4 S^3 operations; forward, ``spectrum`` has four and ``skip`` two."""
    batch = draw(digits(), 17, 32, ("digits", 0), 0)
    plain, skip, spectrum = (step_flops(trained(kind, steps=0), batch) for kind in ("none", "skip", "spectrum"))
    transform = 32 * 4 * 8**3
    assert 2 * transform <= skip - plain <= 6 * transform
    assert 4 * transform <= spectrum - plain <= 12 * transform


# ----------------------------------------------------------------------------------------------------------------------
# Circles of equal frequency


def test_a_mean_over_circles_keeps_what_is_equal_on_them_and_evens_out_the_rest() -> None:
    axis = torch.arange(8, dtype=torch.float64)
    circle = torch.hypot(axis[:, None], axis).round()
    smooth = torch.stack([1 / (1 + circle), 2 / (1 + circle) ** 2])
    torch.testing.assert_close(over_circles(smooth), smooth)
    rough = smooth * (1 + 0.5 * torch.rand(smooth.shape, generator=seeded(0), dtype=torch.float64))
    found = over_circles(rough)
    for radius in circle.unique():
        on = circle == radius
        torch.testing.assert_close(found[:, on], rough[:, on].mean(1, keepdim=True).expand(-1, int(on.sum())))


@pytest.mark.parametrize("exponent", [0.0, 0.15, 0.5])
def test_a_filter_over_circles_has_variance_one_and_the_gains_of_its_spectrum(exponent: float) -> None:
    x = Data().draw(5000)
    flow = FixedFilter(CHANNELS, SIZE, exponent, "circles").double()
    flow.fit(lambda: x.split(700))
    z, log_det = flow(x, "exact")
    assert z.var(0, correction=0).mean().item() == pytest.approx(1, rel=1e-9)
    spectrum = over_circles(to_cosine(x).var(0, correction=0))
    gains = to_cosine(z).std(0, correction=0) / to_cosine(x).std(0, correction=0)
    assert (gains * spectrum**exponent).std().item() < 1e-9 * gains.mean().item()
    assert log_det[0].item() == pytest.approx(gains.log().sum().item(), rel=1e-9)
    torch.testing.assert_close(flow.inverse(z), x)
