"""Likelihoods against the closed form of Gaussian data."""

import math
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pandas as pd
import pytest
import torch
from torch import Generator, Tensor

from indm.bench.models.spec import model_spec
from indm.bench.suite.load import load_suite
from indm.data.levels import bits_per_dim, dequantise
from indm.diffusion.decoder import alpha_at_eps
from indm.diffusion.evaluation import Evaluation, bounds, likelihoods
from indm.diffusion.fixed_decoder import with_fixed
from indm.diffusion.likelihood import GaussianControl, four_numbers, nelbo_alone, ode_nll, stratified_nelbo
from indm.diffusion.model import ImplicitNonlinearDiffusion
from indm.diffusion.path import LinearPath
from indm.diffusion.sde import SDE, T, build_sde, importance_time
from indm.flows.build import build_flow
from indm.flows.log_det import Series
from indm.registry import DIFFUSIONS
from tests.conftest import REPOSITORY
from tests.gaussian import GaussianData
from tests.test_sde import LEARNED, build
from tests.test_training import model

EPS = 1e-5


def bits(nats: Tensor, dims: int) -> Tensor:
    return nats / (dims * math.log(2))


def no_flow(images: Tensor) -> tuple[Tensor, Tensor]:
    return images, torch.zeros(len(images), dtype=images.dtype)


def numbers_of(noise_fn: Any, sde: SDE, x: Tensor, flow: Any = no_flow, **changes: Any) -> dict[str, Tensor]:
    """Return the four numbers of a prediction."""
    settings: dict[str, Any] = {"eps": EPS, "time_draws": 20, "tolerance": 1e-5, "ode_steps": 1, "uncorrected": True}
    settings |= {"generator": Generator().manual_seed(0)}
    return four_numbers(noise_fn, LinearPath(sde), flow, x, **settings | changes)


@pytest.mark.parametrize("name", [*sorted(DIFFUSIONS), LEARNED])
def test_four_numbers_of_exact_score(name: str) -> None:
    """The acceptance: NLL and NELBO within 0.01 bits/dim of the truth."""
    sde, data = build(name), GaussianData(8)
    x = data.draw(20_000)
    numbers = numbers_of(partial(data.noise_fn, sde), sde, x)
    assert set(numbers) == {"nll", "nll_uncorrected", "nelbo", "nelbo_no_reconstruction"}
    truth = data.nll(x)
    for key in ("nll", "nelbo"):
        error = bits((numbers[key] - truth).mean(), 8).item()
        assert abs(error) < 0.01, f"{key} is off by {error}"


# Late enough that the fixed cost -log2 alpha is 0.08 bits/dim under VP, and 0.5 and more with a learned range.
LATE = 0.1


def both_decoders(sde: SDE, data: GaussianData, noise_fn: Any, count: int) -> pd.Series:
    """Mean likelihoods at LATE, in bits/dim, from the same code as in tables."""
    numbers = numbers_of(noise_fn, sde, data.draw(count), eps=LATE, tolerance=1e-4, uncorrected=False)
    table = pd.DataFrame({key: bits(value, data.dims).numpy() for key, value in numbers.items()})
    alpha = alpha_at_eps(SimpleNamespace(sde=sde, path=LinearPath(sde), eps=LATE))  # type: ignore[arg-type]
    return with_fixed(table, pd.Series(alpha, table.index)).mean()


@pytest.mark.parametrize("name", [*sorted(DIFFUSIONS), LEARNED])
def test_both_decoders_have_their_closed_forms_on_gaussian_data(name: str) -> None:
    r"""With an exact score, the bound is tight but for the decoder; v is the variance along an axis, s = sigma / alpha at eps.

    .. math::
        \mathrm{fixed} = \tfrac12 \sum \log 2\pi e (v + s^2), \qquad
        \mathrm{learned} = \mathrm{fixed} - \tfrac12 \sum \frac{s^2}{v + s^2}
    """
    sde, data = build(name), GaussianData(8)
    found = both_decoders(sde, data, partial(data.noise_fn, sde), 20_000)
    t = torch.tensor(LATE, dtype=torch.float64)
    noise = (sde.sigma(t) / sde.alpha(t)) ** 2
    total = data.variances + noise
    fixed = bits((2 * math.pi * math.e * total).log().sum() / 2, 8).item()
    learned = fixed - bits((noise / total).sum() / 2, 8).item()
    for metric, expected in (("nelbo", learned), ("nll", learned), ("nelbo_fixed", fixed), ("nll_fixed", fixed)):
        assert found[metric] == pytest.approx(expected, abs=0.01), metric


@pytest.mark.parametrize("name", sorted(DIFFUSIONS))
def test_a_network_that_is_wrong_at_eps_alone_moves_the_learned_decoder_alone(name: str) -> None:
    sde, data = build(name), GaussianData(8)

    def spoilt(z: Tensor, t: Tensor) -> Tensor:
        return data.noise_fn(sde, z, t) + 2 * (t < LATE * (1 + 1e-4))[:, None]

    sound, found = (both_decoders(sde, data, noise_fn, 4000) for noise_fn in (partial(data.noise_fn, sde), spoilt))
    for metric in ("nelbo", "nll"):
        assert found[metric] - sound[metric] == pytest.approx(2 / math.log(2), abs=0.1), metric
        assert found[f"{metric}_fixed"] == pytest.approx(sound[f"{metric}_fixed"], abs=0.01), metric


@pytest.mark.parametrize("name", sorted(DIFFUSIONS))
def test_bound_alone_of_exact_score(name: str) -> None:
    """Within 0.01 bits/dim of the truth, a flow's log-determinant included: of data three times as wide."""
    sde, data = DIFFUSIONS[name](), GaussianData(8)
    x = data.draw(20_000)
    found = nelbo_alone(
        lambda z, t: data.noise_fn(sde, z, t),
        LinearPath(sde),
        lambda images: (images / 3, torch.full((len(images),), -8 * math.log(3), dtype=images.dtype)),
        3 * x,
        eps=EPS,
        time_draws=20,
        generator=Generator().manual_seed(0),
    )
    assert found.shape == (20_000,)
    assert abs(bits((found - data.nll(x)).mean(), 8).item() - math.log2(3)) < 0.01


def test_models_of_one_seed_meet_the_same_noise_whatever_their_flow_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A series draws its probe, before the noise of the bound."""
    met: list[list[Tensor]] = []

    def note(_: Any, __: SDE, z0: Tensor, ___: Tensor, noise: Tensor, *____: Any) -> tuple[Tensor, Tensor]:
        met[-1].append(noise)
        return z0.new_zeros(len(z0)), z0.new_zeros(len(z0))

    monkeypatch.setattr("indm.diffusion.likelihood._bound_and_cost", note)
    series = Evaluation(4, 1, None, 1, 1e-3, uncorrected=False)
    for flow in ("identity", "resflow"):
        met.append([])
        images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        arguments: dict[str, Any] = {"seed": ("digits", 0), "device": torch.device("cpu")}
        bounds(model(flow).eval(), images, 17, series, **arguments)
        likelihoods(model(flow).eval(), images, 17, series, description="", once=lambda _, make: make(), **arguments)
    assert all(torch.equal(*pair) for pair in zip(*met, strict=True))


def test_noise_of_the_bound_differs_from_batch_to_batch_and_from_image_to_image() -> None:
    """Four equal images have four bounds, although the model and the times of a batch are the same."""
    evaluation = Evaluation(2, 1, None, 1, None, uncorrected=False)
    images = torch.full((4, 1, 8, 8), 7, dtype=torch.uint8)
    found = bounds(model("identity").eval(), images, 17, evaluation, seed=("digits", 0), device=torch.device("cpu"))
    assert len(set(found.tolist())) == 4


@pytest.mark.parametrize("tolerance", [None, 1e-2])
def test_nll_does_not_depend_on_what_else_is_asked_for(tolerance: float | None) -> None:
    sde, data = DIFFUSIONS["vp"](), GaussianData(8)
    x = data.draw(50)

    def nll(*, uncorrected: bool) -> Tensor:
        settings: dict[str, Any] = {"time_draws": 1, "tolerance": tolerance, "ode_steps": 4, "uncorrected": uncorrected}
        return numbers_of(lambda z, t: torch.tanh(data.noise_fn(sde, z, t)), sde, x, **settings)["nll"]

    torch.testing.assert_close(nll(uncorrected=True), nll(uncorrected=False))


def test_probes_of_the_ode_differ_from_batch_to_batch_and_from_image_to_image() -> None:
    r"""Hutchinson's estimates for equal images vary as those of independent probes :math:`v` do.

    .. math:: \mathrm{Var}\, v^\top M v = 2 \sum_{i \ne j} M_{ij}^2

    with M the Jacobian of the ODE, integrated over its path: on Gaussian data it is the same at all latents.
    """
    sde, data = DIFFUSIONS["vp"](), GaussianData(6)
    settings: dict[str, Any] = {"time_draws": 1, "tolerance": None, "ode_steps": 32}
    x, noise_fn = data.draw(1).expand(20, -1), partial(data.noise_fn, sde)
    draws = (numbers_of(noise_fn, sde, x, generator=Generator().manual_seed(batch), **settings) for batch in range(10))
    found = torch.stack([numbers["nll_uncorrected"] for numbers in draws])
    ends = torch.tensor([EPS, T], dtype=torch.float64)[:, None]
    deviations = (sde.alpha(ends) ** 2 * data.variances + sde.sigma(ends) ** 2).sqrt()
    jacobian = data.axes * deviations.log().diff(dim=0) @ data.axes.T
    expected = 2 * (jacobian - jacobian.diag().diag()).square().sum()
    for dim in (0, 1):
        torch.testing.assert_close(found.var(dim).mean(), expected, rtol=0.4, atol=0)


def exact_case() -> tuple[Any, SDE, Tensor, Tensor]:
    """Noise prediction, diffusion, starts and exact negative log-densities of one-dimensional Gaussian data."""
    sde, data = DIFFUSIONS["vp"](), GaussianData(1)
    z = data.draw(50)
    # The ODE carries N(m_eps, s_eps^2) to N(m_T, s_T^2) by an affine map; the model's prior is N(0, 1).
    ends = torch.tensor([EPS, 1.0], dtype=torch.float64)
    mean, std = sde.alpha(ends) * data.mean, (sde.alpha(ends) ** 2 * data.variances + sde.sigma(ends) ** 2).sqrt()
    z_end = mean[1] + std[1] / std[0] * (z - mean[0])
    expected = -torch.distributions.Normal(0.0, 1.0).log_prob(z_end) - torch.log(std[1] / std[0])
    return (lambda z_t, t: data.noise_fn(sde, z_t, t)), sde, z, expected[:, 0].double()


def test_ode_nll_of_each_image_is_exact_without_probe_noise() -> None:
    """In one dimension the divergence has no estimator noise: every single density is right, not only the mean."""
    noise_fn, sde, z, expected = exact_case()
    found = ode_nll(noise_fn, LinearPath(sde), z, EPS, 1e-8, torch.ones_like(z))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_fixed_steps_converge_with_the_fifth_power_at_a_call_each() -> None:
    noise_fn, sde, z, expected = exact_case()
    errors, calls = [], []
    for steps in (128, 256):
        counted = Mock(side_effect=noise_fn)
        found = ode_nll(counted, LinearPath(sde), z, EPS, None, torch.ones_like(z), steps)
        errors.append((found - expected).abs().max().item())
        calls.append(counted.call_count)
    assert errors[0] < 1e-5
    assert 2**4.5 < errors[0] / errors[1] < 2**5.5
    assert calls == [128 + 6, 256 + 6]


def test_log_det_of_a_flow_enters_every_number() -> None:
    """Scaling the data by 3 through a "flow" must give the density of the scaled data times the volume."""
    sde, data = DIFFUSIONS["vp"](), GaussianData(4)
    x = data.draw(4000)

    def flow(images: Tensor) -> tuple[Tensor, Tensor]:
        return 3 * images, torch.full((len(images),), 4 * math.log(3), dtype=images.dtype)

    class Scaled(GaussianData):
        def __init__(self) -> None:
            super().__init__(4)
            self.mean, self.variances = 3 * self.mean, 9 * self.variances

    numbers = numbers_of(partial(Scaled().noise_fn, sde), sde, x, flow)
    truth = data.nll(x).mean()
    for key in numbers:
        assert abs(bits(numbers[key].mean() - truth, 4)) < 0.02, key


AFFINES = {
    "scale": {"scale": 3.0, "mean": 0.0, "std": 1.0},
    "standardise": {"scale": 1.0, "mean": 0.1, "std": 0.5},
    "both": {"scale": 0.3, "mean": 0.1, "std": 0.5},
}


@pytest.mark.parametrize(("name", "affine"), [("vp", "scale"), ("vp", "standardise"), ("ve", "both")])
def test_affine_map_of_the_latent_leaves_the_likelihood(name: str, affine: str) -> None:
    """With the exact score of the mapped data: NLL and NELBO are those of the data, within 0.01 bits/dim."""
    options = AFFINES[affine]
    sde, data = DIFFUSIONS[name](), GaussianData(4)
    flow = build_flow("identity", channels_in=1, image_size=2, affine=options)
    x = data.draw(20_000)
    mapped = GaussianData(4)
    factor = options["scale"] / options["std"]
    mapped.mean, mapped.variances = factor * (data.mean - options["mean"]), factor**2 * data.variances
    numbers = numbers_of(
        lambda z, t: mapped.noise_fn(sde, z.flatten(1), t).view(z.shape),
        sde,
        x.view(-1, 1, 2, 2),
        lambda images: flow(images, "exact"),
    )
    for key in ("nll", "nelbo"):
        assert abs(bits((numbers[key] - data.nll(x)).mean(), 4)) < 0.01, key


def test_wrong_score_is_seen() -> None:
    """The test above can fail: a score of the wrong scale costs likelihood."""
    sde, data = DIFFUSIONS["vp"](), GaussianData(4)
    x = data.draw(500)
    numbers = numbers_of(lambda z, t: 0.9 * data.noise_fn(sde, z, t), sde, x, tolerance=1e-4)
    assert bits((numbers["nelbo"] - data.nll(x)).mean(), 4) > 0.02


@pytest.mark.parametrize("name", sorted(DIFFUSIONS))
def test_control_variate_is_unbiased_and_pays(name: str) -> None:
    """Its expectation is the mean of its draws, even for a mean and variance that are wrong."""
    sde = DIFFUSIONS[name]()
    z0 = GaussianData(6).draw(1).repeat(100_000, 1)
    control = GaussianControl(
        sde, torch.full((6,), 0.2, dtype=torch.float64), torch.full((6,), 0.7, dtype=torch.float64)
    )
    u = (torch.arange(len(z0), dtype=torch.float64) + 0.5) / len(z0)
    t, _ = importance_time(sde, u, EPS)
    draws = control.draw(z0, t, torch.randn(z0.shape, dtype=torch.float64))
    standard_error = draws.std() / len(z0) ** 0.5
    assert abs(draws.mean() - control.expectation(z0[:1], EPS)[0]) < 4 * standard_error

    data = GaussianData(6)
    x = data.draw(2000)
    noise_fn, generator = partial(data.noise_fn, sde), Generator().manual_seed(0)
    bound = stratified_nelbo(noise_fn, LinearPath(sde), x, torch.zeros(len(x)), EPS, 10, generator)
    # Without the control variate the spread of this estimate is above two bits/dim.
    assert bits((bound - data.nll(x)).std(), 6) < 0.7


@pytest.mark.parametrize("name", sorted(DIFFUSIONS))
def test_bound_of_the_linear_prediction_is_its_integral(name: str) -> None:
    r"""The control variate is exact for it: no draw is left of the bound, which is known in closed form.

    With s the signal-to-noise ratio, whose logarithm is uniform, and :math:`w = s v`:

    .. math::
        \int a^2\,\mathrm d\log s = -\frac{1}{v(1 + w)}, \qquad \int b^2\,\mathrm d\log s = \log(1 + w) + \frac{1}{1 + w}
    """
    sde, dims = DIFFUSIONS[name](), 6
    x = GaussianData(dims).draw(200)
    mean, variance = x.mean(0), x.var(0)

    def linear(z: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
        return sigma * (z - alpha * mean) / (alpha**2 * variance + sigma**2)

    found = stratified_nelbo(linear, LinearPath(sde), x, torch.zeros(len(x)), EPS, 2, Generator().manual_seed(0))

    ends = torch.tensor([T, EPS], dtype=torch.float64)
    log_snr = sde.log_snr(ends)
    w = log_snr.exp()[:, None] * variance
    a_squared, b_squared = (-1 / (variance * (1 + w))).diff(dim=0)[0], ((1 + w).log() + 1 / (1 + w)).diff(dim=0)[0]
    alpha, std = sde.alpha(ends[0]), sde.prior_std
    prior = math.log(2 * math.pi * std**2) / 2 + ((alpha * x) ** 2 + sde.sigma(ends[0]) ** 2) / (2 * std**2)
    path = (a_squared * (x - mean) ** 2 + b_squared - log_snr.diff()) / 2
    expected = (prior + path).sum(1) - dims * sde.divergence_integral(EPS)
    # Half a cell of the midpoint rule would be 0.005 to 0.009 bits/dim.
    assert bits((found - expected).abs().max(), dims) < 1e-4


def test_a_batch_of_one_image_is_evaluated() -> None:
    sde, data = DIFFUSIONS["vp"](), GaussianData(4)
    noise_fn, generator = partial(data.noise_fn, sde), Generator().manual_seed(0)
    bound = stratified_nelbo(noise_fn, LinearPath(sde), data.draw(1), torch.zeros(1), EPS, 50, generator)
    assert torch.isfinite(bound).all()


# ----------------------------------------------------------------------------------------------------------------------
# Before training, under VE


# An untrained network's score is nearly zero: the latent stays where it is, under a prior N(0, 50^2 I).
UNTRAINED_NLL = math.log2(50 * math.sqrt(2 * math.pi)) + 8
UNTRAINED_NELBO = UNTRAINED_NLL + 1 / (2 * math.log(2))
# In the released code's log, of CIFAR-10 and NCSN++ before its first step.
RELEASED_NLL, RELEASED_NELBO = 14.977, 15.698
PROTOCOL: dict[str, Any] = {"batch_size": 10, "time_draws": 2, "tolerance": None, "ode_steps": 2}
PROTOCOL |= {"log_det_tolerance": None}


def synthetic_images(count: int) -> Tensor:
    """Levels (N, 3, 32, 32), clipped normal, independent from pixel to pixel: CIFAR-10's mean and deviation in each channel."""
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
    noise = torch.randn(count, 3, 32, 32, generator=Generator().manual_seed(0))
    return (256 * (mean[:, None, None] + std[:, None, None] * noise)).clamp(0, 255).byte()


def untrained(name: str) -> ImplicitNonlinearDiffusion:
    """A small network of the released VE kind (NCSN++), or what the suites train on digits."""
    torch.manual_seed(0)
    score: dict[str, Any] = {"name": "unet", "channels": 8, "multipliers": [1, 1], "blocks": 1, "dropout": 0.0}
    score |= {"attention_resolutions": [], "fourier_scale": 16.0}
    kind = {"embedding": "fourier", "fir": True, "progressive_input": "residual", "scale_by_sigma": True}
    plain = {"embedding": "log_snr", "fir": False, "progressive_input": "none", "scale_by_sigma": False}
    score |= kind | {"normalise_input": "none"} if name == "ncsnpp" else plain | {"normalise_input": "unit"}
    sde = {"name": "ve", "sigma_min": 0.01, "sigma_max": 50.0}
    flow = {"name": "identity"}
    spec = {"shape": [3, 32, 32], "sde": sde, "eps": EPS, "score": score, "centered": False, "flow": flow}
    return ImplicitNonlinearDiffusion(spec).eval().requires_grad_(False)


def test_score_of_zero_under_ve_has_the_likelihoods_of_its_prior() -> None:
    """NLL 14.970 and NELBO 15.691 bits/dim, with and without the reconstruction: it does not know z_0 either."""
    generator = Generator().manual_seed(0)
    images, sde = (
        dequantise(synthetic_images(20), 256, generator, False),
        build_sde("ve", sigma_min=0.01, sigma_max=50.0),
    )
    settings: dict[str, Any] = {"time_draws": 500, "tolerance": None, "ode_steps": 2, "generator": generator}
    nats = numbers_of(lambda z, _: 0 * z, sde, images, **settings)
    found = {key: bits_per_dim(value, 3072, 256, False).mean().item() for key, value in nats.items()}
    # As far as the released code's log of an untrained network, too.
    assert found["nll"] == pytest.approx(RELEASED_NLL, abs=0.01)
    assert found["nelbo"] == pytest.approx(RELEASED_NELBO, abs=0.01)
    assert found["nll"] == pytest.approx(UNTRAINED_NLL, abs=0.01)
    assert found["nll_uncorrected"] == pytest.approx(UNTRAINED_NLL, abs=0.01)
    assert found["nelbo"] == pytest.approx(UNTRAINED_NELBO, abs=0.01)
    assert found["nelbo_no_reconstruction"] == pytest.approx(UNTRAINED_NELBO, abs=0.01)


@pytest.mark.parametrize("name", ["ncsnpp", "digits"])
def test_untrained_network_under_ve_has_the_likelihoods_of_a_score_of_zero(name: str) -> None:
    """On the same images, times and noise."""
    model, images = untrained(name), synthetic_images(10)
    zero = untrained(name)
    zero.noise.forward = lambda z, _: 0 * z  # type: ignore[method-assign, assignment]
    evaluation = Evaluation(**PROTOCOL, uncorrected=True)
    options: dict[str, Any] = {"seed": ("synthetic", 0), "device": torch.device("cpu")}
    found, expected = (
        likelihoods(each, images, 256, evaluation, once=lambda _, make: make(), description="", **options)
        for each in (model, zero)
    )
    assert ((found - expected).abs() < 0.01).all(axis=None)
    assert expected["nll"].mean() == pytest.approx(UNTRAINED_NLL, abs=0.01)
    # From two times alone; of pixels instead of their channels, it would be 31.
    assert bounds(model, images, 256, evaluation, **options).mean() == pytest.approx(UNTRAINED_NELBO, abs=0.5)


def test_untrained_network_under_vp_has_the_likelihood_of_docs_paper() -> None:
    """It predicts no noise, so the ODE only scales the data: to a normal latent of hardly any signal."""
    text = (REPOSITORY / "docs/paper.md").read_text()
    untrained_nll = (math.log(2 * math.pi) / 2 + 10.05 / 2) / math.log(2)
    assert f"{untrained_nll + math.log2(256 / 2):.2f} bits/dim" in text
    shape = [1, 8, 8]
    torch.manual_seed(0)
    spec = model_spec(load_suite(REPOSITORY / "params/smoke.yaml"), "digits-vp-ddpmpp-nll-s0", shape)
    network = ImplicitNonlinearDiffusion(spec).eval().requires_grad_(False)
    images = torch.randint(0, 17, (20, *shape), generator=Generator().manual_seed(0), dtype=torch.uint8)
    evaluation = Evaluation(20, 5, None, 32, None, uncorrected=False)
    options: dict[str, Any] = {"seed": ("digits", 0), "device": torch.device("cpu"), "description": ""}
    found = likelihoods(network, images, 17, evaluation, once=lambda _, make: make(), **options)
    assert found["nll"].mean() == pytest.approx(untrained_nll + math.log2(17 / 2), abs=0.02)


def test_tolerance_of_the_log_determinant_is_in_bits_per_dimension() -> None:
    series = Evaluation(**PROTOCOL | {"log_det_tolerance": 1e-3}, uncorrected=False)
    exact = Evaluation(**PROTOCOL, uncorrected=False)
    assert (exact.estimator, exact.log_det_bound(has_flow=True), exact.log_det_bound(has_flow=False)) == ("exact", 0, 0)
    assert (series.log_det_bound(has_flow=True), series.log_det_bound(has_flow=False)) == (1e-3, 0)
    assert isinstance(series.estimator, Series)
    dims = 64
    rest = torch.tensor([series.estimator.tolerance * dims])
    assert (bits_per_dim(rest, dims, 256) - bits_per_dim(0 * rest, dims, 256)).item() == pytest.approx(1e-3, rel=1e-3)
