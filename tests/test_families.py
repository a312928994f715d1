"""Model families: the contract over every registered family, and the rule of what a family goes with."""

import pytest

from indm.diffusion.model import build_model
from indm.errors import ParamsError
from indm.registry import DIFFUSIONS, FAMILIES, SAMPLERS, goes_with
from indm.report.palette import DARK
from indm.suite import rules
from indm.suite.load import load_suite
from indm.training.spec import model_spec
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
    assert bool(model.spec["flow"]["name"] == "identity") is not FAMILIES.literal(name, "FLOW")


def shown(name: str) -> dict[str, str]:
    """Return what readers see of a family."""
    return {"LABEL": FAMILIES.literal(name, "LABEL"), **FAMILIES.literal(name, "STYLE")}


@pytest.mark.parametrize("name", FAMILIES)
def test_readers_tell_a_family_from_the_others_in_either_theme(name: str) -> None:
    assert shown(name).keys() == {"LABEL", "color", "marker", "linestyle"}
    assert shown(name)["color"] in DARK
    for other in FAMILIES:
        assert other == name or not shown(name).items() & shown(other).items()


def test_others_are_compared_with_one_family() -> None:
    assert [name for name in FAMILIES if FAMILIES.literal(name, "REFERENCE")] == ["ddpmpp"]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_goes_with_some_of_what_there_is(name: str) -> None:
    assert set(FAMILIES.literal(name, "ONLY") or {}) <= {"sde", "objective", "sampler"}
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
