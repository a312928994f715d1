"""The referee in the words of other packages: kinds, schedulers, outputs, labels, learned variances, and reports for machines."""

import json
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

import indm
from indm.bench.cli import main
from indm.errors import DataError, IndmError, ParamsError
from indm.foreign.conventions import CONVENTIONS
from indm.foreign.kinds import ALIASES, SECONDS
from indm.foreign.likelihood import _hash, from_diffusers, referee
from indm.foreign.readings import CENTRED, UNIT, Reading
from indm.foreign.report import Report
from indm.foreign.schedulers import find_diffusion
from indm.foreign.tabulated import Tabulated, cosine_table, sigmoid_table
from tests.test_referee import MEANS, STD, draw, levels_of, network_of, of_gaussian, of_mixture

TABLE = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
DDPM = Tabulated(TABLE)
VP = indm.build_sde("vp")
FAST: dict[str, Any] = {"time_draws": 4, "ode_steps": 4, "progress": False}


def scheduler(**config: Any) -> Any:
    """What the referee reads of a scheduler of diffusers."""
    return SimpleNamespace(alphas_cumprod=TABLE.float(), config={"num_train_timesteps": 1000, **config})


def by_steps(kind: str) -> Any:
    """The exact network of a Gaussian under DDPM's schedule, which gets steps from 0 to 999."""
    exact = network_of(of_gaussian, DDPM, kind)
    return lambda z, step: exact(z, (step.double() + 1) / 1000)


@pytest.mark.parametrize("alias", ["eps", "x0", "v_prediction", "flow"])
def test_a_kind_by_its_other_names_has_the_same_numbers(alias: str) -> None:
    network, images = network_of(of_gaussian, VP, ALIASES[alias]), levels_of(draw(20))
    one, other = (referee(network, VP, images, kind=kind, **FAST) for kind in (alias, ALIASES[alias]))
    assert one.kind == other.kind == ALIASES[alias]
    np.testing.assert_array_equal(one.columns["nelbo"], other.columns["nelbo"])


def test_diffusions_are_built_by_name() -> None:
    for name in ("vp", "ve"):
        assert str(find_diffusion(name).sde) == str(indm.build_sde(name))
    for name, table in (("cosine", cosine_table), ("sigmoid", sigmoid_table)):
        assert find_diffusion(name).sde == Tabulated(table(1000))


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_a_scheduler_tells_diffusion_kind_steps_and_truncation(prediction: str) -> None:
    kind, images = ALIASES[prediction], levels_of(draw(300))
    report = referee(by_steps(kind), scheduler(prediction_type=prediction), images, **FAST)
    assert (report.kind, report.eps) == (kind, 1e-3)
    assert not report.warnings()
    truth = -torch.distributions.Normal(0, STD).log_prob(draw(300)).mean() / np.log(2) + 7
    assert report.mean("nelbo") == pytest.approx(float(truth), abs=0.05)


def test_an_object_with_a_table_tells_steps_and_truncation_but_no_kind() -> None:
    """As ``GaussianDiffusion`` of improved-diffusion, whose table is an array, and of denoising-diffusion-pytorch."""
    for table in (TABLE.numpy(), TABLE.float()):
        found = find_diffusion(SimpleNamespace(alphas_cumprod=table))
        assert (found.kind, found.second, found.eps) == (None, "1000*t-1", 1e-3)
        assert found.sde.alpha(torch.tensor(0.5)) == pytest.approx(float(DDPM.alpha(torch.tensor(0.5))), rel=1e-4)


def test_a_kind_that_contradicts_the_scheduler_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"kind: found 'v' .* prediction_type is noise"):
        referee(by_steps("v"), scheduler(prediction_type="epsilon"), levels_of(draw(9)), kind="v", **FAST)


class Unet(nn.Module):
    """A network as those of diffusers: it returns an object, and holds its weights in a type of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float32))
        self.were: set[bool] = set()

    def forward(self, z: Tensor, step: Tensor) -> Any:
        self.were.add(self.training)
        return SimpleNamespace(sample=by_steps("noise")(z, step) + self.weight)


def test_a_network_of_diffusers_is_evaluated_in_evaluation_mode_and_left_as_it_was() -> None:
    unet, images = Unet().train(), levels_of(draw(20))
    report = from_diffusers(unet, scheduler(prediction_type="epsilon"), images, **FAST)
    assert unet.were == {False}
    assert unet.training
    other = referee(by_steps("noise"), scheduler(prediction_type="epsilon"), images, **FAST)
    np.testing.assert_allclose(report.columns["nelbo"], other.columns["nelbo"], atol=1e-5)


def test_labels_go_with_their_images() -> None:
    """With the label of another image, the exact network of two classes would be far off."""
    labels = torch.arange(40) % 2
    x = MEANS[labels][:, None] + draw(40)

    def network(z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        alpha = VP.alpha(t.double())[:, None]
        return of_gaussian(VP, z.double() - alpha * MEANS[label][:, None], t.double()).float()

    found = [referee(network, VP, levels_of(x), conditions=labels, batch_size=size, **FAST) for size in (7, 40)]
    truth = -torch.distributions.Normal(0, STD).log_prob(draw(40)).mean() / np.log(2) + 7
    for report in found:
        assert report.mean("nelbo") == pytest.approx(float(truth), abs=0.1)
    np.testing.assert_allclose(found[0].columns["nelbo"], found[1].columns["nelbo"], atol=1e-4)
    with pytest.raises(DataError, match=r"conditions: found shape \(39,\), expected one for each of 40"):
        referee(network, VP, levels_of(x), conditions=labels[1:], **FAST)


def test_learned_variances_between_both_fixed_ones_have_their_own_bound() -> None:
    """At either end of their range they are the fixed ones."""
    exact, images = by_steps("noise"), levels_of(draw(20, (3, 2, 2)))
    given = {**FAST, "steps": 20, "control": "pixels"}
    for end, name in ((-1.0, "ddpm_small"), (1.0, "ddpm_large")):
        report = referee(
            lambda z, step, end=end: torch.cat([exact(z, step), torch.full_like(z, end)], 1),
            scheduler(prediction_type="epsilon"),
            images,
            **given,
        )
        assert report.steps is not None
        learned, fixed = (report.steps.columns[f"{key}_diffusion"] for key in ("ddpm_learned", name))
        np.testing.assert_allclose(learned, fixed, rtol=1e-6)
        assert "learned variance" in str(report)


@pytest.mark.parametrize("second", sorted(set(SECONDS) - {"t"}))
def test_a_second_argument_is_taken_as_it_is_named(second: str) -> None:
    """By a network that turns it back into the time: whole steps only nearly."""
    exact, images = network_of(of_gaussian, VP, "noise"), levels_of(draw(20))

    def network(z: Tensor, given: Tensor) -> Tensor:
        given = given.double()
        log_ratio = {"log_snr": -given / 2, "log_snr/2": -given, "log(sigma/alpha)/4": 4 * given}.get(second)
        log_ratio = {"log(sigma/alpha)": given, "2*log(sigma/alpha)": given / 2}.get(second, log_ratio)
        if second in ("sigma", "sigma/alpha", "alpha_bar"):
            ratio = {"sigma": given / (1 - given**2).sqrt(), "alpha_bar": (1 / given - 1).sqrt()}.get(second, given)
            log_ratio = ratio.log()
        times = {"999*t": given / 999, "1000*t": given / 1000, "t/999": 999 * given, "1-t": 1 - given}
        steps = {"1000*t-1": (given + 1) / 1000, "(1000*t).long()": (given + 0.5) / 1000}
        t = VP.time(2 * log_ratio) if log_ratio is not None else (times | steps)[second]
        return exact(z, t.clamp(1e-5, 1))

    right, found = (
        referee(function, VP, images, eps=0.01, second=name, **FAST)
        for function, name in ((exact, None), (network, second))
    )
    assert found.mean("nelbo") == pytest.approx(right.mean("nelbo"), abs=0.1)
    assert not found.comparison.is_refused


@pytest.mark.parametrize("name", ["1000*t", "sigma", "log_snr/2"])
def test_a_forgotten_second_argument_is_named(name: str) -> None:
    from tests.test_readings import compared

    exact = network_of(partial(of_mixture, means=MEANS, std=STD), VP, "noise")
    back = {
        "1000*t": lambda c: c / 1000,
        "sigma": lambda c: VP.time(2 * (c.double() / (1 - c.double() ** 2).clamp(min=1e-9).sqrt()).log()),
        "log_snr/2": lambda c: VP.time(-2 * c.double()),
    }[name]
    found = compared(lambda z, c: exact(z, back(c).clamp(1e-5, 1)), Reading("noise", VP, CENTRED))
    assert found.is_better
    assert found.best is not None
    # One step of a thousand more is as good.
    assert found.remedy().replace("999*t", "1000*t") == f"set second to '{name}'"


def test_each_channel_may_have_its_own_range() -> None:
    """A standardised image has the same number, by the change of variables."""
    low, high = torch.tensor([-2.0, -1.0]), torch.tensor([1.0, 3.0])
    images = levels_of(draw(200, (2, 4, 4)))
    scale, shift = ((end.view(2, 1, 1).double()) for end in ((high - low) / 2, (high + low) / 2))

    def network(z: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (value(t.double()).view(-1, 1, 1, 1) for value in (VP.alpha, VP.sigma))
        return (sigma * (z - alpha * shift) / (alpha**2 * (STD * scale) ** 2 + sigma**2)).float()

    report = referee(network, VP, images, data_range=(low.tolist(), high.tolist()), **FAST)
    plain = referee(network_of(of_gaussian, VP, "noise"), VP, images, **FAST)
    assert report.mean("nelbo") == pytest.approx(plain.mean("nelbo"), abs=0.02)


@pytest.fixture(scope="module")
def report() -> Report:
    return referee(network_of(of_gaussian, VP, "noise"), VP, levels_of(draw(20)), seed=3, **FAST)


def test_a_report_for_machines_holds_numbers_arguments_versions_and_the_hash_of_the_images(report: Report) -> None:
    found = json.loads(report.to_json())
    assert found["status"] == report.status
    assert found["numbers"]["nelbo"]["mean"] == report.mean("nelbo")
    assert found["each"]["nll"] == report.columns["nll"].tolist()
    assert found["arguments"]["seed"] == 3
    assert found["arguments"]["sde"] == str(VP)
    assert found["versions"]["indm"] == indm.__version__
    assert len(found["images"]["sha256"]) == 64


def test_the_status_tells_a_wrong_description(report: Report) -> None:
    wrong = referee(network_of(of_gaussian, VP, "noise"), VP, levels_of(draw(20)), kind="v", **FAST)
    assert wrong.status == "warned"
    assert wrong.to_dict()["reading"]["remedy"] == "set the kind to noise"


def test_the_total_error_has_the_ode_s(report: Report) -> None:
    for name in ("nll", "nll_uncorrected"):
        error = report.error(name)
        assert error.ode == abs(report.mean(f"{name}_half_steps") - report.mean(name))
        assert error.total == pytest.approx(np.hypot(error.images, error.ode))
    assert report.error("nelbo").ode == 0


def test_the_package_names_what_it_offers() -> None:
    assert {"Report", "Tabulated", "build_sde", "referee"} <= set(dir(indm)) & set(indm.__all__)
    assert set(CONVENTIONS) >= set(ALIASES.values())


def test_bars_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    referee(network_of(of_gaussian, VP, "noise"), VP, levels_of(draw(4)), **FAST)
    assert capsys.readouterr().err == ""


def test_the_report_says_what_no_reading_can_see(report: Report) -> None:
    found = report.to_dict()["unseen"]
    assert found
    assert all(words in str(report) for words in found)


def test_a_remedy_can_be_followed() -> None:
    """Of the kind's own second argument, and of the range, whose argument depends on the one that was given."""
    plain = Reading("noise", VP)
    timed = Reading("noise", VP, second="999*t")
    assert plain.remedy(timed) == "set second to 't'"
    assert Reading("noise", VP, UNIT).remedy(plain) == "set centered to False"
    assert Reading("noise", VP, UNIT).remedy(Reading("noise", VP, (-0.8, 1.8))) == "set data_range to (0, 1)"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"conditions": ["a"] * 8}, "conditions: found"),
        ({"conditions": {}}, "conditions: found"),
        ({"levels": None, "data_range": np.array([0.0, 1.0])}, "data_range: found"),
    ],
)
def test_what_is_no_number_is_refused_in_one_line(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(IndmError, match=f"^{words}"):
        indm.referee(lambda z, t: z, VP, np.zeros((8, 1, 4, 4), np.uint8), **changes)


def test_conditions_of_any_type_have_a_hash() -> None:
    values = torch.ones(4, 2, dtype=torch.bfloat16, requires_grad=True)
    assert _hash(values) != _hash(values + 1)
    assert _hash(torch.arange(3)) == _hash(torch.arange(6)[:3])


LABELLED = """
import indm

sde = indm.build_sde("vp")
low, high = -0.8, 1.6


def network(z, t, label):
    alpha, sigma = (value(t)[:, None] for value in (sde.alpha, sde.sigma))
    mean = low + (high - low) * (0.3 + 0.3 * label[:, None])
    return sigma * (z - alpha * mean) / (alpha**2 * 0.2**2 + sigma**2)
"""


def test_the_command_takes_labels_and_a_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("labelled_model.py").write_text(LABELLED)
    labels = np.arange(40) % 2
    x = 2 * (0.3 + 0.3 * labels[:, None]) - 1 + draw(40).numpy() * 2 / 2.4
    np.save("images.npy", levels_of(torch.from_numpy(x)).numpy())
    np.save("labels.npy", labels)
    np.savez("several.npz", labels, labels)
    command = "referee labelled_model:network --images images.npy --sde labelled_model:sde"
    told = [*command.split(), "--conditions", "labels.npy", "--data-range", "-0.8", "1.6", "--json", "referee.json"]
    done = CliRunner().invoke(main, told)
    assert done.exit_code == 0, done.output
    found = json.loads(Path("referee.json").read_text())
    truth = -torch.distributions.Normal(0, STD).log_prob(draw(40)).mean() / np.log(2) + np.log2(256 / 2.4)
    assert found["numbers"]["nelbo"]["mean"] == pytest.approx(float(truth), abs=0.1)
    assert "conditions_sha256" in found["images"]
    for changed, words in ((["--conditions", "several.npz"], "several arrays"), (["--zero-one"], "data_range: found")):
        refused = CliRunner().invoke(main, [*told, *changed])
        assert refused.exit_code == 1
        assert words in refused.output
