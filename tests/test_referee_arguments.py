"""What the referee refuses before it computes: arguments that are not what they should be, and outputs that vary."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from indm.bench.cli import main
from indm.diffusion.sde import build_sde
from indm.errors import IndmError, ParamsError
from indm.foreign.conventions import CONVENTIONS
from indm.foreign.kinds import KINDS
from indm.foreign.likelihood import referee
from indm.foreign.report import Report
from tests.test_referee import draw, levels_of, mean, network_of, of_gaussian

SDE = build_sde("vp")
NETWORK = network_of(of_gaussian, SDE, "noise")
PIXELS = levels_of(draw(20, (1, 4, 3)))


def judge(network: Any = NETWORK, sde: Any = SDE, images: Any = PIXELS, **changes: Any) -> Report:
    return referee(network, sde, images, **{"time_draws": 3, "ode_steps": 8, **changes})


# An argument, its value, and words of the error; the error begins with the name of the argument.
REFUSED: list[tuple[str, Any, str]] = [
    *((name, 2.5, "found 2.5, expected a whole number from 1") for name in ("time_draws", "ode_steps", "batch_size")),
    *((name, None, "found None") for name in ("time_draws", "ode_steps", "batch_size", "seed")),
    *((name, "a", "found 'a'") for name in ("time_draws", "ode_steps", "batch_size", "levels", "eps", "seed")),
    *((name, True, "found True") for name in ("time_draws", "ode_steps", "batch_size", "levels", "eps", "seed")),
    *((name, float("nan"), "found nan") for name in ("time_draws", "ode_steps", "batch_size", "levels", "eps", "seed")),
    *((name, 0, "found 0, expected") for name in ("time_draws", "ode_steps", "batch_size", "levels", "eps")),
    ("ode_steps", 10**13, "from 1 to 1000000000"),
    ("levels", 17.5, "found 17.5, expected a whole number from 2 to 65536"),
    ("levels", 65537, "found 65537, expected"),
    ("steps", 1, "found 1, expected a whole number from 2"),
    ("steps", 10.0, "found 10.0"),
    ("grid", "cells", "found 'cells', expected one of: ends, centres"),
    ("levels", 17, "expected 0 to 16"),
    ("eps", 1e-300, "found 1e-300, expected a number from 1e-09 to 0.1"),
    ("eps", 2.5, "found 2.5"),
    ("eps", -1, "found -1"),
    ("seed", 1.5, "found 1.5"),
    ("seed", -1, "found -1"),
    ("seed", 2**32, "found 4294967296, expected a whole number from 0 to 4294967295"),
    ("device", "cuda", "torch sees no GPU"),
    ("device", "gpu", "found 'gpu', expected cpu"),
    ("device", "meta", "found 'meta', expected cpu"),
    ("device", None, "found None"),
    ("device", 5, "found 5"),
    ("kind", "eps_theta", "found 'eps_theta', expected one of: noise, score"),
    ("kind", "velocity_", "or epsilon (noise)"),
    ("kind", 1, "found 1"),
    ("kind", ["noise"], "found ['noise']"),
    ("claimed", "a", "found 'a', expected a finite number"),
    ("claimed", float("nan"), "found nan"),
    ("claimed", float("inf"), "found inf"),
    ("claimed", True, "found True"),
    ("claimed", [3], "found [3]"),
    ("centered", "yes", "found 'yes', expected True or False"),
    ("centered", 1, "found 1"),
    ("centered", None, "found None"),
    ("allow_varying", "yes", "found 'yes'"),
    ("images", None, "found NoneType without numbers"),
    ("images", "a", "found str without numbers"),
    ("images", [[1], [2, 3]], "found list without numbers"),
    ("images", np.array([None]), "found ndarray without numbers"),
    ("images", torch.zeros(6, 1, 4, 4, device="meta"), "found Tensor without numbers"),
    ("images", np.ma.masked_all((6, 1, 4, 4), np.uint8), "found masked pixels"),
    ("images", [], "found shape (0,)"),
    ("images", np.zeros((6, 0), np.uint8), "found shape (6, 0)"),
    ("images", 5, "found shape ()"),
    ("images", PIXELS.numpy().astype(complex), "found complex128, expected levels"),
    ("images", PIXELS > 128, "found bool, expected levels"),
    ("sde", None, "found None, expected a diffusion"),
    ("sde", "vq", "found 'vq', expected a diffusion"),
    ("sde", type(SDE), "expected a diffusion"),
    ("sde", build_sde("ve", sigma_min=50.0, sigma_max=0.01), "whose noise does not grow"),
    ("sde", build_sde("vp", beta_min=0.0, beta_max=0.0), "whose noise does not grow"),
    ("sde", build_sde("vp", beta_max=float("nan")), "whose noise does not grow"),
    ("network", None, "found None, expected a function"),
    ("network", "my_model:network", "found 'my_model:network', expected a function"),
    ("network", nn.Linear, "expected a function"),
    ("network", nn.Linear(3, 3), "it raised TypeError"),
    ("network", lambda z, t: NETWORK(z, t) * (1 + 0j), "found an output of torch.complex64, expected real numbers"),
    ("network", lambda z, t: NETWORK(z, t).long(), "found an output of torch.int64"),
    ("network", lambda z, t: NETWORK(z, t).detach().numpy(), "found an output ndarray"),
    ("network", lambda z, t: None, "found an output NoneType"),
]


def named(value: object) -> str:
    return re.sub(r"\W+", "-", str(value))[:20]


@pytest.mark.parametrize(("name", "value", "words"), REFUSED, ids=named)
def test_an_argument_that_is_not_what_it_should_be_is_refused_on_one_line(
    name: str, value: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(IndmError, match=re.escape(words)) as caught:
        judge(**{name: value})
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert text.startswith("images" if (name, value) == ("levels", 17) else name)


def writes_its_arguments(z: Tensor, t: Tensor) -> Tensor:
    out = NETWORK(z, t)
    z.data.zero_()
    t *= 0
    return out


# Unusual, but as good as the plain arguments.
TAKEN: dict[str, dict[str, Any]] = {
    "whole numbers of NumPy": {"time_draws": np.int64(3), "ode_steps": np.int32(8), "batch_size": np.int64(100)},
    "lists": {"images": PIXELS.tolist()},
    "big-endian": {"images": PIXELS.numpy().astype(">i4")},
    "a device of torch": {"device": torch.device("cpu")},
    "float64": {"network": lambda z, t: NETWORK(z, t).double()},
    "writes into its arguments": {"network": writes_its_arguments},
}


@pytest.fixture(scope="module")
def plain() -> Report:
    return judge()


@pytest.mark.parametrize("name", TAKEN)
def test_unusual_arguments_give_the_same_numbers(name: str, plain: Report) -> None:
    found = judge(**TAKEN[name])
    assert mean(found, "nelbo") == pytest.approx(mean(plain, "nelbo"), abs=1e-5)
    assert mean(found, "nll") == pytest.approx(mean(plain, "nll"), abs=1e-5)


def test_the_command_line_lists_the_kinds() -> None:
    assert [*KINDS] == [*CONVENTIONS]
    wrong = CliRunner().invoke(main, ["referee", "a:b", "--images", ".", "--sde", "vp", "--kind", "noises"])
    assert wrong.exit_code == 2
    assert all(kind in wrong.output for kind in KINDS)


class Trained(nn.Module):
    """The exact network, with a layer behind it whose training mode differs from its evaluation mode."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return NETWORK(z, t) + 0.1 * self.layer(z)


LAYERS = {"dropout": lambda: nn.Dropout(0.1), "batch norm": lambda: nn.BatchNorm2d(1)}
WORDS = {
    "dropout": r"called again .*dropout.*\.eval\(\)",
    "batch norm": r"other images of the batch.*batch norm.*\.eval\(\)",
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_network_in_training_mode_is_refused_and_one_in_evaluation_mode_is_not(name: str) -> None:
    network = Trained(LAYERS[name]())
    for wrapped in (network, lambda z, t: network(z, t)):
        with pytest.raises(ParamsError, match=f"^network: .*{WORDS[name]}"):
            judge(wrapped)
    assert judge(network.eval()).warnings() == []


def test_an_output_that_depends_on_the_batch_is_refused() -> None:
    with pytest.raises(ParamsError, match="with the other images of the batch"):
        judge(lambda z, t: NETWORK(z, t) + z.mean(0))


def test_a_network_that_varies_is_evaluated_if_it_is_allowed_and_the_report_begins_with_it() -> None:
    report = judge(Trained(LAYERS["dropout"]()), allow_varying=True)
    assert report.variation.calls > 0.001
    text = str(report)
    assert text.index("called again") < text.index("20 images, D = ")


def test_rounding_is_no_variation() -> None:
    """The whole batch and its halves are summed in another order; bfloat16 rounds every step."""
    layer = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.SiLU(), nn.Conv2d(64, 1, 3, padding=1)).eval()

    def network(z: Tensor, t: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return NETWORK(z, t) + 0.01 * layer(z)

    assert judge(network).warnings() == []
