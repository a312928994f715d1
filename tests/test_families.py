"""Model families: the contract over every registered family, and the rule of what a family goes with."""

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from indm import facts
from indm.bench.models.spec import build_trainer, model_spec
from indm.bench.suite import rules
from indm.bench.suite.load import load_suite
from indm.diffusion.model import ImplicitNonlinearDiffusion, build_model
from indm.errors import ParamsError
from indm.facts import goes_with
from indm.registry import DATASETS, DIFFUSIONS, FAMILIES, SAMPLERS
from indm.report.names import NAMES
from indm.report.plotting import DARK, MODELS
from indm.training.batches import step_batch
from indm.training.losses import Loss, score_loss
from tests.conftest import REPOSITORY

SMOKE = REPOSITORY / "params/smoke.yaml"
RUN = "digits-vp-ddpmpp-nll-s0"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_is_rebuilt_from_its_specification_as_one_of_its_family(name: str) -> None:
    suite = load_suite(SMOKE)
    suite.runs[RUN] = suite.runs[RUN].model_copy(update={"model": name})
    model = build_model(model_spec(suite, RUN, [1, 8, 8]))
    again = build_model(model.spec)
    assert type(model) is type(again) is FAMILIES[name]
    assert model.state_dict().keys() == again.state_dict().keys()
    assert bool(model.spec["flow"]["name"] == "identity") is not facts.family(name).flow


@pytest.mark.parametrize("name", ["diffenc", "mulan"])
def test_a_path_in_the_flows_place_is_trained_in_turn_and_can_be_frozen(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    suite = load_suite(SMOKE)
    suite.runs[RUN] = suite.runs[RUN].model_copy(update={"model": name, "objective": "fid"})
    torch.manual_seed(0)
    trainer = build_trainer(suite, RUN, [1, 8, 8], torch.device("cpu"))
    images, needed = torch.randint(0, 17, (16, 1, 8, 8), dtype=torch.uint8), []

    def noting(model: ImplicitNonlinearDiffusion, *others: Any) -> Loss:
        needed.append(any(parameter.requires_grad for parameter in model.flow.parameters()))
        return score_loss(model, *others)

    def step_of(number: int) -> Tensor:
        trainer.step(step_batch(images, 17, 16, ("digits", 0), number, torch.device("cpu")), 1.0)
        return torch.cat([parameter.detach().flatten() for parameter in trainer.model.flow.parameters()])

    monkeypatch.setattr("indm.training.trainer.score_loss", noting)
    assert (step_of(1) != step_of(0)).any()
    trainer.start_afresh(1)
    assert torch.equal(step_of(2), step_of(3))
    assert needed == [False] * 4


def test_diffencs_encoder_sees_the_time_of_each_image() -> None:
    suite = load_suite(SMOKE)
    suite.runs[RUN] = suite.runs[RUN].model_copy(update={"model": "diffenc"})
    torch.manual_seed(0)
    model = build_model(model_spec(suite, RUN, [1, 8, 8])).double()
    for parameter in model.flow.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, a = torch.randn(3, 1, 8, 8).double(), torch.tensor([-5.0, 0.0, 4.0]).double()
    encoder = cast(torch.nn.Module, model.flow.encoder)
    together, apart = encoder(x, a), torch.cat([encoder(*one) for one in zip(x.split(1), a.split(1), strict=True)])
    torch.testing.assert_close(together, apart)
    assert not torch.allclose(encoder(x, a[:1].expand(3))[1:], together[1:])


def shown(name: str) -> dict[str, str]:
    """Return what readers see of a family."""
    return {"name": NAMES[name], **MODELS[name, ""]}


@pytest.mark.parametrize("name", FAMILIES)
def test_readers_tell_a_family_from_the_others_in_either_theme(name: str) -> None:
    assert shown(name).keys() == {"name", "color", "marker", "linestyle"}
    assert shown(name)["color"] in DARK
    for other in FAMILIES:
        assert other == name or not shown(name).items() & shown(other).items()


def test_every_member_has_its_facts() -> None:
    assert facts.FAMILY.keys() == set(FAMILIES)
    assert facts.SAMPLER.keys() == set(SAMPLERS)
    assert facts.REFERENCE in FAMILIES
    assert set(DATASETS) >= facts.CLUSTERED


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_goes_with_some_of_what_there_is(name: str) -> None:
    assert set(facts.family(name).only) <= {"sde", "objective", "sampler"}
    assert set(goes_with(name, "sde")) <= set(DIFFUSIONS)
    assert set(goes_with(name, "sampler")) <= set(SAMPLERS)
    assert set(goes_with(name, "objective")) <= {"nll", "fid"}


@pytest.mark.parametrize(
    ("kind", "allowed", "message"),
    [
        ("sde", "ve", "key sde: found 'vp'; allowed: ve, since the model is ddpmpp"),
        ("objective", "nll", "key objective: found 'fid'; allowed: nll, since the model is ddpmpp"),
        ("sampler", "ode_heun", "key sample.sampler: found 'ancestral'; allowed: ode_heun, since the model is ddpmpp"),
        ("sampler", "ancestral", "key sweep.samplers: found 'pc'; allowed: ancestral, since the model is ddpmpp"),
    ],
)
def test_a_run_beyond_what_its_model_goes_with_is_one_line(
    monkeypatch: pytest.MonkeyPatch, kind: str, allowed: str, message: str
) -> None:
    def only(family: str, asked: str) -> list[str]:
        return [allowed] if (family, asked) == ("ddpmpp", kind) else []

    monkeypatch.setattr(rules, "goes_with", only)
    with pytest.raises(ParamsError) as raised:
        load_suite(SMOKE)
    assert message in str(raised.value)
    assert "model is indm" not in str(raised.value)
