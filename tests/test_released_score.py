"""Released score checkpoints: the golden outputs and gradients, refusals, and the round trip."""

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from indm.diffusion.noise import NoiseModel
from indm.diffusion.registered.vp import VP
from indm.errors import ArtifactError
from indm.networks.registered.unet import ScoreUNet
from indm.released.score import import_score, score_arguments
from tests.conftest import GOLDEN
from tests.released import export_score, gradients, score_config

KEY_BIAS = "NIN_1.b"  # a constant added to every key cancels in the softmax: the exact gradient is zero


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return load_file(GOLDEN / "score_vp_ddpmpp.state.safetensors")


@pytest.fixture
def config() -> dict[str, Any]:
    return score_config("vp")


def golden(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"score_vp_ddpmpp.{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files if arrays[key].dtype.kind == "f"}


class GoldenVP(VP):
    """The released sigma at the golden times; nothing else of an SDE is asked for."""

    def sigma(self, t: Tensor) -> Tensor:
        return golden("io")["std"].to(t.dtype)


def test_golden_output_and_score(state: dict[str, Tensor], config: dict[str, Any]) -> None:
    """In float64, but for the times, whose float32 labels are the released ones; float32 moved the golden numbers by 2e-6."""
    arrays = golden("io")
    network = import_score(state, config).double()
    model, x = NoiseModel(network, GoldenVP()), arrays["x"].double()
    sigma = arrays["std"].double()[:, None, None, None]
    with torch.no_grad():
        raw = network(x, arrays["labels"].double())
        noise = model(x, arrays["t"])
    assert not network.training
    assert (raw - arrays["raw"]).abs().max() < 1e-5 * arrays["raw"].abs().max()
    assert (noise - arrays["raw"]).abs().max() < 1e-5 * arrays["raw"].abs().max()
    # Each image against its own scale: sigma spans three orders of magnitude over the golden times.
    difference, scale = ((a.abs().amax((1, 2, 3))) for a in (-noise / sigma - arrays["score"], arrays["score"]))
    assert (difference < 1e-5 * scale).all()


def test_golden_gradients(state: dict[str, Tensor], config: dict[str, Any]) -> None:
    """In float64, so that only the golden numbers have the rounding of float32, and no processor adds its own."""
    inputs, expected = golden("io"), golden("grads")
    names = [str(name) for name in np.load(GOLDEN / "score_vp_ddpmpp.grads.npz")["names"]]
    network = import_score(state, config).double()
    (network(inputs["x"].double(), inputs["labels"].double()) * expected["w"]).sum().backward()
    found = gradients(network, export_score)
    assert set(names) == set(found)
    largest = expected["norms"].max()
    for name, norm in zip(names, expected["norms"], strict=True):
        length = found[name].norm()
        if name.endswith(KEY_BIAS):
            assert length < 1e-13 * largest, name
            assert norm < 1e-7 * largest, name
        else:
            assert abs(length - norm) < 1e-5 * norm, name
    for name in (key.removeprefix("grad::") for key in expected if key.startswith("grad::")):
        whole = expected[f"grad::{name}"]
        assert (found[name] - whole).norm() < 1e-5 * whole.norm(), name


@pytest.mark.parametrize("sde", ["vp", "ve"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_round_trip_gives_the_same_network(sde: str, prefix: str) -> None:
    config = score_config(sde)
    torch.manual_seed(0)
    network = ScoreUNet(**score_arguments(config)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    state = {prefix + name.removeprefix("module."): value for name, value in export_score(network).items()}
    again = import_score(state | {f"{prefix}sigmas": torch.ones(1000)}, config)
    x, condition = torch.randn(2, 3, 16, 16), torch.tensor([0.5, 7.0])
    torch.testing.assert_close(again(x, condition), network(x, condition), rtol=0, atol=0)


def test_released_checkpoint_survives_the_round_trip(state: dict[str, Tensor], config: dict[str, Any]) -> None:
    exported = export_score(import_score(state, config))
    assert set(exported) == set(state) - {"module.sigmas"}
    for name, value in exported.items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("model", "fourier_feature", True),
        ("model", "progressive_input", "residual"),
        ("model", "fir_kernel", [1, 2, 1]),
        ("training", "unbounded_parametrization", True),
    ],
)
def test_other_settings_are_refused(
    section: str, key: str, value: object, state: dict[str, Tensor], config: dict[str, Any]
) -> None:
    config[section][key] = value
    with pytest.raises(ArtifactError, match=f"{section}\\.{key}"):
        import_score(state, config)


def test_incomplete_configuration_is_refused(state: dict[str, Tensor], config: dict[str, Any]) -> None:
    del config["model"]["nf"]
    with pytest.raises(ArtifactError, match="'nf'"):
        import_score(state, config)
