"""The referee's T-step bounds, lossless bounds, continuous data, and small times at which a network was not trained."""

import math
import re
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from benchmarks import decoders
from indm.diffusion.sde import SDE, build_sde
from indm.errors import DataError, ParamsError
from indm.foreign.conventions import Network
from indm.foreign.kinds import Grid
from indm.foreign.likelihood import referee
from indm.foreign.report import Report
from indm.foreign.tabulated import Tabulated, cosine_table
from tests.test_referee import MEANS, STD, draw, levels_of, mean, network_of, of_gaussian, of_mixture

VP = build_sde("vp")
COSINE = Tabulated(cosine_table(1000))


def judge(network: Network, sde: SDE, images: Any, **changes: Any) -> Report:
    return referee(network, sde, images, **{"time_draws": 20, "batch_size": 4000, "ode_steps": 32, **changes})


# Continuous data.
WIDTHS = torch.tensor([0.05, 0.3, 2.0], dtype=torch.float64)


def of_widths(sde: SDE, z: Tensor, t: Tensor) -> Tensor:
    """Exact noise prediction of Gaussians with another deviation in each dimension, around 1."""
    alpha, sigma = (value(t)[:, None] for value in (sde.alpha, sde.sigma))
    return sigma * (z - alpha) / (alpha**2 * WIDTHS**2 + sigma**2)


@pytest.mark.parametrize("name", ["vp", "cosine"])
def test_vectors_have_the_nats_of_their_density(name: str) -> None:
    sde = {"vp": VP, "cosine": COSINE}[name]
    density = torch.distributions.Normal(torch.ones(3, dtype=torch.float64), WIDTHS)
    x = 1 + WIDTHS * torch.randn(2000, 3, generator=Generator().manual_seed(0), dtype=torch.float64)
    report = judge(network_of(of_widths, sde, "noise"), sde, x, levels=None, ode_steps=64)
    truth = -density.log_prob(x).sum(1) / 3
    for key in ("nelbo", "nll", "nelbo_fixed", "nll_fixed"):
        # sigma at eps is 0.001, so that the narrowest dimension is 0.02 % wider.
        assert mean(report, key) == pytest.approx(float(truth.mean()), abs=0.01), key
    np.testing.assert_allclose(report.images["nll"] - truth.numpy(), 0, atol=0.2)
    assert report.remarks() == []
    text = str(report)
    assert "nats/dim" in text
    assert not any(word in text for word in ("bits/dim", "levels", "dequantised", "ξ"))


def test_volumes_are_evaluated_in_nats() -> None:
    x = draw(200, (2, 3, 2, 2))
    report = judge(network_of(of_gaussian, VP, "score"), VP, x, kind="score", levels=None)
    truth = -torch.distributions.Normal(0, STD).log_prob(x).mean()
    assert report.dims == 24
    for key in ("nelbo", "nll"):
        assert mean(report, key) == pytest.approx(float(truth), abs=0.02)


def test_levels_of_16_bits_have_the_bits_of_their_density() -> None:
    x = draw(1000)
    pixels = ((x + 1) / 2 * 65536).floor().clamp(0, 65535).int()
    report = judge(network_of(of_gaussian, VP, "noise"), VP, pixels, levels=65536)
    truth = -torch.distributions.Normal(0, STD).log_prob(x).mean() / math.log(2) + 15
    assert mean(report, "nelbo") == pytest.approx(float(truth), abs=0.02)
    assert "lossless_vdm" not in report.images
    assert np.isfinite(mean(report, "lossless_ddpm"))


@pytest.mark.parametrize("said", ["v", "score"])
def test_another_kind_is_named_for_continuous_data(said: str) -> None:
    network = network_of(of_mixture, VP, "noise")
    x = draw(64, (48,), MEANS)
    try:
        text = str(judge(network, VP, x, kind=said, levels=None, time_draws=4, ode_steps=8))
    except ParamsError as error:
        text = str(error)
    assert "set the kind to noise" in text
    assert "[0, 1]" not in text


@pytest.mark.parametrize(
    ("data", "changes", "error", "words"),
    [
        (np.zeros((4, 3), np.uint8), {}, DataError, "found uint8 with levels=None"),
        (np.full((4, 3), np.nan), {}, DataError, "not finite"),
        (np.zeros((4, 8, 8, 3)), {}, DataError, r"\(N, \*\)"),
        (np.tile(np.linspace(-1, 1, 16), (400, 1)), {}, DataError, "16 different values among 6400"),
        (draw(4), {"centered": False}, ParamsError, "^centered: found False with levels=None"),
        (draw(4), {"steps": 10}, ParamsError, "^steps: found 10 with levels=None"),
    ],
)
def test_data_that_are_not_continuous_are_refused(
    data: Any, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        judge(lambda z, t: z, VP, data, levels=None, **changes)


# Small times.
NARROW = 0.03


def of_narrow(sde: SDE, z: Tensor, t: Tensor) -> Tensor:
    alpha, sigma = (value(t)[:, None] for value in (sde.alpha, sde.sigma))
    return sigma * z / (alpha**2 * NARROW**2 + sigma**2)


def untrained(below: Callable[[Tensor, Tensor], Tensor]) -> Network:
    """The exact network from t = 1/1000 on, and another one below."""

    def call(z: Tensor, t: Tensor) -> Tensor:
        is_early = (t < 0.00099)[:, None]
        exact = of_narrow(VP, z.double(), t.double().clamp(min=0.001))
        return torch.where(is_early, below(z.double(), exact), exact).float()

    return call


EARLY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "held constant": lambda z, exact: exact,
    "random": lambda z, exact: torch.sin(1000 * z),
    "an embedding that is not trained": lambda z, exact: exact + 0.5,
}


@pytest.mark.parametrize("name", EARLY)
def test_times_at_which_a_network_was_not_trained_are_found_with_the_eps_to_use(name: str) -> None:
    x = NARROW / STD * draw(200)
    found = judge(untrained(EARLY[name]), VP, x, levels=None)
    assert found.untrained is not None
    assert 1e-5 < found.untrained.first <= 0.001
    assert any(f"set eps to {found.untrained.first:g}" in remark for remark in found.remarks())
    assert not any("raise ode_steps" in remark for remark in found.remarks())
    better = judge(untrained(EARLY[name]), VP, x, levels=None, eps=found.untrained.first)
    assert better.untrained is None
    gained = mean(found, "nelbo") - mean(better, "nelbo")
    assert gained == pytest.approx(found.untrained.cost, rel=0.3, abs=0.05)
    assert gained > 0.01


@pytest.mark.parametrize("sde", [VP, build_sde("ve"), COSINE], ids=["vp", "ve", "cosine"])
@pytest.mark.parametrize("noise", [of_gaussian, of_mixture])
def test_an_exact_network_is_not_accused(sde: SDE, noise: Callable[[SDE, Tensor, Tensor], Tensor]) -> None:
    images = levels_of(draw(64, means=None if noise is of_gaussian else MEANS))
    for seed in range(3):
        found = judge(network_of(noise, sde, "noise"), sde, images, seed=seed, time_draws=2, ode_steps=16)
        assert found.untrained is None


def of_steps(z: Tensor, t: Tensor) -> Tensor:
    """A network that looks its step up in a table of a thousand, and has none before the first one."""
    step = (1000 * t - 1).round().long()
    if (step < 0).any():
        raise IndexError("index -1 is out of range")
    return of_gaussian(VP, z.double(), t.double()).float()


def without_numbers(z: Tensor, t: Tensor) -> Tensor:
    return torch.where((t < 0.0005)[:, None], torch.nan, of_gaussian(VP, z.double(), t.double()).float())


@pytest.mark.parametrize("network", [of_steps, without_numbers])
def test_a_network_without_numbers_at_small_times_is_refused_with_the_eps_to_use(network: Network) -> None:
    with pytest.raises(ParamsError, match=r"^network: .*set eps to 0\.00056$"):
        judge(network, VP, levels_of(draw(40)))


def test_a_table_names_its_first_step_as_the_eps_to_use() -> None:
    def call(z: Tensor, t: Tensor) -> Tensor:
        exact = of_narrow(COSINE, z.double(), t.double())
        return torch.where((t < 0.0005)[:, None], 1.0, exact).float()

    found = judge(call, COSINE, NARROW / STD * draw(64), levels=None)
    assert found.untrained is not None
    assert found.untrained.first == 0.001


# Lossless bounds.
LEVELS = 6


def grid(where: str) -> Tensor:
    level = torch.arange(LEVELS, dtype=torch.float64)
    return 2 * level / (LEVELS - 1) - 1 if where == "ends" else 2 * (level + 0.5) / LEVELS - 1


def probabilities() -> Tensor:
    """Of the levels to which a Gaussian is rounded."""
    edges = torch.distributions.Normal(0.1, 0.4).cdf(torch.linspace(-1, 1, LEVELS + 1, dtype=torch.float64)[1:-1])
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    return torch.cat([zero, edges, one]).diff()


def of_rounded(where: str) -> Callable[[SDE, Tensor, Tensor], Tensor]:
    """Exact noise prediction for Gaussian data that are rounded to levels, in every dimension."""

    def predict(sde: SDE, z: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (value(t)[:, None, None] for value in (sde.alpha, sde.sigma))
        apart = z[..., None] - alpha * grid(where)
        weights = torch.softmax(probabilities().log() - (apart / sigma).square() / 2, -1)
        return (weights * apart).sum(-1) / sigma[..., 0]

    return predict


@pytest.fixture(scope="module", params=["ends", "centres"])
def rounded(request: pytest.FixtureRequest) -> Report:
    draws = torch.multinomial(probabilities(), 24000, replacement=True, generator=Generator().manual_seed(0))
    network = network_of(of_rounded(request.param), VP, "noise")
    images = draws.reshape(2000, 12).byte()
    return judge(network, VP, images, levels=LEVELS, grid=request.param, steps=200, ode_steps=2, eps=1e-4)


def test_lossless_bounds_of_an_exact_network_approach_the_entropy_from_above(rounded: Report) -> None:
    p = probabilities()
    entropy = float(-(p * p.log2()).sum())
    for key in ("lossless_ddpm", "lossless_vdm"):
        values = rounded.images[key].to_numpy()
        # The data are a sample: entropy is the mean over all images.
        assert abs(values.mean() - entropy) < 3 * values.std() / len(values) ** 0.5 + 0.005, key
    # The bound of an image is above its own code length, by the noise of its times only.
    assert rounded.steps is not None
    for name in ("ddpm_small", "ddpm_large", "vdm"):
        assert rounded.steps.images[name].mean() > entropy


def test_differences_between_nelbo_and_the_bounds_of_steps_add_up(rounded: Report) -> None:
    steps = rounded.steps
    assert steps is not None
    for name in steps.names:
        total = rounded.images["nelbo"] + sum(steps.differences(name).values())
        np.testing.assert_allclose(total, steps.images[name], atol=1e-9)
        terms = {term: means[name] for term, means in steps.terms().items()}
        assert terms.pop("bound") == pytest.approx(sum(terms.values()))
        assert f"{steps.images[name].mean():.3f}" in str(rounded)
    assert len(steps.names) == 3


def test_bounds_that_begin_at_eps_have_no_row_for_their_beginning() -> None:
    network, images = network_of(of_gaussian, VP, "noise"), levels_of(draw(20))
    report = judge(network, VP, images, eps=0.1, steps=10, time_draws=3, ode_steps=4)
    assert report.steps is not None
    differences = report.steps.differences("vdm")
    assert not any("begins" in str(name) for name in differences)
    total = report.images["nelbo"] + sum(differences.values())
    np.testing.assert_allclose(total, report.steps.images["vdm"], atol=1e-9)


def test_a_network_of_a_table_is_called_at_all_of_its_steps() -> None:
    called = set()

    def network(z: Tensor, t: Tensor) -> Tensor:
        called.update(t.tolist())
        return of_gaussian(COSINE, z.double(), t.double()).float()

    judge(network, COSINE, levels_of(draw(2)), steps=1000, time_draws=1, ode_steps=1)
    steps = 1000 * np.array(sorted(called)) - 1
    for step in range(1000):
        assert np.abs(steps - step).min() < 1e-3


@pytest.mark.parametrize("kind", ["clean", "v"])
def test_the_kinds_of_diffusers_have_one_number_under_a_table(kind: str) -> None:
    x = levels_of(draw(100, means=MEANS))
    found = [
        judge(network_of(of_mixture, COSINE, name), COSINE, x, kind=name, ode_steps=8, steps=10)
        for name in ("noise", kind)
    ]
    assert mean(found[1], "nelbo") == pytest.approx(mean(found[0], "nelbo"), abs=1e-3)
    first, second = (report.steps.images["vdm"].mean() for report in found if report.steps is not None)
    assert second == pytest.approx(first, abs=1e-3)


def test_the_grid_is_no_part_of_densities() -> None:
    network, images = network_of(of_gaussian, VP, "noise"), levels_of(draw(20))
    ends, centres = (
        judge(network, VP, images, grid=where, time_draws=3, ode_steps=4).images for where in get_args(Grid)
    )
    changed = {column for column in ends if (ends[column] != centres[column]).any()}
    assert changed == {"lossless_ddpm", "lossless_vdm"}


def test_the_batch_does_not_change_any_number() -> None:
    network, images = network_of(of_gaussian, VP, "noise"), levels_of(draw(9))
    found = [judge(network, VP, images, batch_size=size, steps=5, time_draws=3, ode_steps=4) for size in (2, 9)]
    np.testing.assert_allclose(found[0].images, found[1].images, atol=1e-4)
    first, second = (report.steps.images for report in found if report.steps is not None)
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_a_claimed_number_of_steps_is_named() -> None:
    network, images = network_of(of_gaussian, VP, "noise"), levels_of(draw(300))
    report = judge(network, VP, images, steps=50, ode_steps=8)
    assert report.steps is not None
    claimed = Report(**{**vars(report), "claimed": float(report.steps.images["ddpm_large"].mean())})
    assert any("large variance" in line for line in claimed.explanation())


@pytest.mark.long
def test_the_benchmark_of_decoders_prints_both_tables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decoders, "EPS", (0.01,))
    monkeypatch.setattr("sys.argv", ["decoders", "--images", "2", "--time-draws", "2", "--steps", "3"])
    decoders.main()
    printed = capsys.readouterr().out
    assert re.search(r"^\| 0\.01 (\| -?\d+\.\d{3} ± \d\.\d{3} ){4}\|$", printed, re.MULTILINE)
    assert "## Bounds of 3 steps" in printed
