"""Networks that are described wrongly: the report begins with the right reading; networks described rightly are let through."""

import itertools
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

import indm
from benchmarks import planted
from indm.data.levels import dequantise
from indm.diffusion.sde import SDE, build_sde
from indm.errors import ParamsError
from indm.foreign.comparison import DECIDING, SELECTING, Comparison, compare_readings
from indm.foreign.conventions import CONVENTIONS, Called, Network
from indm.foreign.likelihood import referee
from indm.foreign.readings import (
    CENTRED,
    INVERTED,
    REVERSED,
    SCHEDULES,
    TRANSPOSED,
    UNIT,
    Ends,
    Reading,
    View,
    other_readings,
    views,
)
from indm.foreign.report import UNSEEN
from indm.foreign.tabulated import Tabulated, cosine_table
from indm.library import Run
from indm.registry import DATASETS
from tests.test_referee import EPS, MEANS, STD, draw, levels_of, mean, network_of, of_mixture

VP, SHORT, VE, EDM, COSINE, SIGMOID = (SCHEDULES[index] for index in (0, 1, 2, 5, 6, 7))
RANGES = {CENTRED: "[-1, 1]", UNIT: "[0, 1]"}
# Kinds that get the time, which depends on the diffusion.
TIMED = ("noise", "score", "clean", "v")
IMAGES = levels_of(draw(32, (48,), MEANS))


def exact(reading: Reading) -> Network:
    """The best network for the mixture of which the images are, as a reading describes it."""
    low, high = reading.ends or CENTRED
    scale, shift = (high - low) / 2, (high + low) / 2
    return network_of(partial(of_mixture, means=MEANS * scale + shift, std=STD * scale), reading.sde, reading.kind)


def compared(network: Network, described: Reading, seed: int = 0) -> Comparison:
    generator = Generator().manual_seed(seed)
    x = dequantise(IMAGES, 256, generator)
    with torch.no_grad():
        return compare_readings(Called(network), described, EPS, x, 1000, generator)


@pytest.mark.parametrize("kind", CONVENTIONS)
def test_a_network_that_is_described_rightly_is_let_through(kind: str) -> None:
    for sde, ends in itertools.product((VP, SHORT, VE, EDM), RANGES):
        found = compared(exact(right := Reading(kind, sde, ends)), right)
        assert not found.is_better, (sde, ends, found)
        assert found.is_explained


@pytest.mark.parametrize(("given", "said"), [*itertools.permutations(CONVENTIONS, 2)])
def test_another_kind_is_named(given: str, said: str) -> None:
    right = Reading(given, VP)
    found = compared(exact(right), Reading(said, VP))
    assert found.is_better
    assert found.best == right


@pytest.mark.parametrize("kind", CONVENTIONS)
@pytest.mark.parametrize(("ends", "said"), [(CENTRED, UNIT), (UNIT, CENTRED)])
def test_another_range_is_named(kind: str, ends: Ends, said: Ends) -> None:
    right = Reading(kind, VP, ends)
    found = compared(exact(right), Reading(kind, VP, said))
    assert found.is_better
    assert found.best == right
    assert RANGES[ends] in found.best.words(found.described)


@pytest.mark.parametrize("kind", TIMED)
@pytest.mark.parametrize(("given", "said"), [*itertools.permutations((VP, SHORT, VE, EDM), 2)], ids=str)
def test_another_diffusion_is_named(kind: str, given: SDE, said: SDE) -> None:
    right = Reading(kind, given)
    found = compared(exact(right), Reading(kind, said))
    assert found.is_better
    assert found.best is not None
    # Those that have the same times where there is data are as good.
    assert found.best == right or (found.best.kind, type(found.best.sde)) == (kind, type(given))


@pytest.mark.parametrize("kind", TIMED)
@pytest.mark.parametrize("name", ["cosine", "sigmoid"])
def test_a_schedule_of_a_function_is_named_as_it_is_built(kind: str, name: str) -> None:
    found = compared(exact(Reading(kind, {"cosine": COSINE, "sigmoid": SIGMOID}[name])), Reading(kind, VP))
    assert found.is_better
    assert found.best is not None
    assert f"set the sde to Tabulated({name}_table(1000))" in found.best.remedy(found.described)


def test_the_diffusion_is_no_part_of_networks_that_get_the_noise() -> None:
    for kind in ("denoiser", "velocity"):
        assert not compared(exact(Reading(kind, VP)), Reading(kind, VE)).is_better


def test_two_mistakes_at_once_are_named() -> None:
    right = Reading("v", VP, UNIT)
    found = compared(exact(right), Reading("noise", VP))
    assert found.is_better
    assert found.best == right


@pytest.fixture(scope="module")
def run() -> Run:
    return indm.load_run("digits-vp-ddpmpp-nll-s4")


def digits(count: int) -> Tensor:
    return torch.from_numpy(next(DATASETS["digits"].load(split_seed=0)["test"].pieces())[:count])


def judged(run: Run, network: Network, **changes: object) -> str:
    settings = {"levels": run.levels, "time_draws": 4, "ode_steps": 8} | changes
    return str(referee(network, settings.pop("sde", run.model.sde), digits(16), **settings))  # type: ignore[arg-type]


def test_a_trained_network_is_let_through(run: Run) -> None:
    text = judged(run, run.model.noise)
    assert "described wrongly" not in text
    assert "Readings: none of 317 other" in text


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"kind": "v"}, "set the kind to noise"),
        ({"centered": False}, "set centered to True"),
        ({"sde": SHORT}, "set the sde to VP(beta_min=0.1, beta_max=20.0)"),
    ],
    ids=str,
)
def test_the_report_of_a_trained_network_begins_with_a_wrong_description(
    run: Run, changes: dict[str, object], remedy: str
) -> None:
    text = judged(run, run.model.noise, **changes)
    assert text.index(remedy) < text.index("16 images, D = ")


def test_the_gain_is_the_difference_of_the_bounds() -> None:
    """To within its error, for a kind, whose ratios are all those of the diffusion."""
    network = exact(Reading("noise", VP))
    wrong, right = (referee(network, VP, IMAGES, kind=kind, time_draws=40, ode_steps=8) for kind in ("v", "noise"))
    difference = mean(wrong, "nelbo_no_reconstruction") - mean(right, "nelbo_no_reconstruction")
    assert wrong.comparison.gain.mean == pytest.approx(difference, abs=4 * wrong.comparison.gain.se)
    assert wrong.comparison.gain.se < 0.1 * difference


def of_a_table(z: Tensor, t: Tensor) -> Tensor:
    """A network that looks its condition up in a table of a thousand times."""
    times = torch.linspace(0, 1, 1000)
    return exact(Reading("noise", VP))(z, times[(999 * t).round().long()])


@pytest.mark.parametrize(("network", "said"), [(exact(Reading("score", VP)), "noise"), (of_a_table, "denoiser")])
def test_a_description_that_is_worse_than_no_network_is_refused_with_the_right_one(network: Network, said: str) -> None:
    """Also if the network raises an error when it is called as it is described."""
    with pytest.raises(ParamsError, match=r"read as (score|noise), better by .*; set the kind to "):
        referee(network, VP, IMAGES, kind=said)


@pytest.mark.parametrize("kind", CONVENTIONS)
def test_an_untrained_network_is_not_talked_into_another_kind(kind: str) -> None:
    """Its output is neither noise nor an image, so that no reading explains it."""
    found = compared(lambda z, t: torch.sin(3 * z + t[:, None]), Reading(kind, VP))
    assert not found.is_better
    assert not found.is_explained


@pytest.mark.parametrize("kind", CONVENTIONS)
def test_a_network_of_other_data_is_not_talked_into_another_kind(kind: str) -> None:
    """Also described rightly, its numbers are bad."""
    network = exact(Reading(kind, VP))
    found = compared(lambda z, t: network(z + 0.5, t), Reading(kind, VP))
    assert not found.is_better


@pytest.mark.parametrize("kind", ["v", "velocity", "noise"])
def test_an_exact_network_of_standard_normal_data_is_let_through(kind: str) -> None:
    """Read as v, the output is 0, so that the network is its own null."""
    network = network_of(partial(of_mixture, means=0 * MEANS, std=1.0), VP, kind)
    x = torch.randn(32, 48, generator=Generator().manual_seed(0))
    with torch.no_grad():
        found = compare_readings(Called(network), Reading(kind, VP, None), EPS, x, 1000, Generator().manual_seed(1))
    assert not found.is_better
    assert found.is_explained


def test_a_diffusion_without_a_hash_is_taken() -> None:
    class Own(type(VP)):  # type: ignore[misc]
        __hash__ = None  # type: ignore[assignment]

    own = Own()
    assert not compared(exact(Reading("noise", VP)), Reading("noise", own)).is_better


def test_the_words_of_a_diffusion_build_it() -> None:
    assert {str(build_sde("ve", sigma_max=90.0)), str(VP)} <= set(map(str, SCHEDULES))
    assert np.all([sde.log_snr(torch.tensor(1.0, dtype=torch.float64)) < 0 for sde in SCHEDULES])


# Of each channel, row and column.
PLACES = 0.3 * torch.arange(3.0).view(3, 1, 1) - 0.2 * torch.arange(4.0).view(4, 1) + 0.05 * torch.arange(4.0)


def of_places(z: Tensor, t: Tensor) -> Tensor:
    """The best network for images with a mean in each place."""
    alpha, sigma = (value(t).view(-1, 1, 1, 1) for value in (VP.alpha, VP.sigma))
    return sigma * (z - alpha * PLACES) / (alpha**2 * STD**2 + sigma**2)


@pytest.mark.parametrize("view", views((3, 4, 4)), ids=lambda view: view.words)
def test_another_look_of_the_images_is_named_and_never_refused(view: View) -> None:
    images = levels_of(PLACES + draw(40, (3, 4, 4)))
    other = {INVERTED: 255 - images, REVERSED: images.flip(1), TRANSPOSED: images.mT}[view]
    right, wrong = (
        referee(of_places, VP, given.contiguous(), time_draws=4, ode_steps=2, progress=False)
        for given in (images, other)
    )
    assert right.warnings() == []
    assert wrong.mean("nelbo") > right.mean("nelbo") + 1
    (warning,) = wrong.warnings()
    assert view.words in warning
    assert wrong.comparison.remedy() == view.remedy


def test_only_looks_that_images_can_have_are_tried() -> None:
    assert views((12,)) == [INVERTED]
    assert views((1, 4, 4)) == [INVERTED, TRANSPOSED]
    assert views((3, 4, 6)) == [INVERTED, REVERSED]


def test_the_page_counts_readings_and_calls() -> None:
    """For all kinds, diffusions and shapes: 200 to 340 readings, of which at most 70 call the network differently."""
    counts, calls = {}, set()
    for kind, sde, second, shape in itertools.product(
        CONVENTIONS, (VP, EDM, Tabulated(cosine_table(10))), (None, "999*t", "sigma"), ((1, 8, 8), (3, 8, 8), (12,))
    ):
        described = Reading(kind, sde, second=second)
        found = [*other_readings(described, torch.device("cpu"), (-0.8, 1.7), shape)]
        counts[kind, str(sde), second, shape] = len(found)
        calls.add(len({reading.call for reading in (described, *found)}))
    assert [counts["noise", str(VP), None, shape] for shape in ((1, 8, 8), (3, 8, 8))] == [317, 318]
    assert (min(counts.values()), max(counts.values()), max(calls)) == (204, 334, 70)
    assert (math.prod(SELECTING), math.prod(DECIDING)) == (64, 512)


def test_the_report_lists_the_errors_that_the_benchmark_plants_unseen() -> None:
    assert {*planted.SILENT.values()} == {*UNSEEN}


@pytest.mark.long
def test_what_no_reading_can_see_moves_the_bound_by_what_the_report_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trains the benchmark's networks: minutes. Weights differ from processor to processor, and their NELBO with them."""
    monkeypatch.setattr(planted, "CACHE", tmp_path / "weights")
    assert planted.unseen(32) == pytest.approx(UNSEEN, abs=0.03)
