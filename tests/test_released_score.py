"""Released score checkpoints: the golden outputs and gradients, refusals, and the round trip."""

import json
from copy import deepcopy
from pathlib import Path
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
from indm.released.score import import_score
from tests.released import export_score

GOLDEN = Path(__file__).parent / "data" / "golden"
KEY_BIAS = "NIN_1.b"  # a constant added to every key cancels in the softmax: the exact gradient is zero


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return load_file(GOLDEN / "score_vp_ddpmpp.state.safetensors")


@pytest.fixture
def config() -> dict[str, Any]:
    return json.loads((GOLDEN / "configs.json").read_text())["score_vp_ddpmpp"]


def ve_config(config: dict[str, Any]) -> dict[str, Any]:
    """Change a VP configuration into the released VE one of the same size."""
    config = deepcopy(config)
    config["data"]["centered"] = False
    config["model"] |= {"embedding_type": "fourier", "fir": True}
    config["model"] |= {"progressive_input": "residual", "scale_by_sigma": True}
    return config


def golden(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"score_vp_ddpmpp.{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files if arrays[key].dtype.kind == "f"}


class GoldenVP(VP):
    """The released sigma at the golden times; nothing else of an SDE is asked for."""

    def sigma(self, t: Tensor) -> Tensor:
        return golden("io")["std"].to(t.dtype)


def released_gradients(network: ScoreUNet) -> dict[str, Tensor]:
    """Name a network's gradients as the released code names its weights."""
    gradients = deepcopy(network)
    for mine, source in zip(gradients.parameters(), network.parameters(), strict=True):
        assert source.grad is not None
        mine.data = source.grad
    return export_score(gradients)


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
    gradients = released_gradients(network)
    assert set(names) == set(gradients)
    largest = expected["norms"].max()
    for name, norm in zip(names, expected["norms"], strict=True):
        found = gradients[name].norm()
        if name.endswith(KEY_BIAS):
            assert found < 1e-13 * largest, name
            assert norm < 1e-7 * largest, name
        else:
            assert abs(found - norm) < 1e-5 * norm, name
    for name in (key.removeprefix("grad::") for key in expected if key.startswith("grad::")):
        whole = expected[f"grad::{name}"]
        assert (gradients[name] - whole).norm() < 1e-5 * whole.norm(), name


def test_float32_gradients_are_those_of_float64_up_to_rounding(
    state: dict[str, Tensor], config: dict[str, Any]
) -> None:
    """Ten times the rounding seen, of its own size and of the largest: a gradient of zero has rounding, and no size."""
    inputs, weights = golden("io"), golden("grads")["w"]
    found = {}
    for dtype in (torch.float32, torch.float64):
        network = import_score(state, config).to(dtype)
        (network(inputs["x"].to(dtype), inputs["labels"].to(dtype)) * weights).sum().backward()
        found[dtype] = released_gradients(network)
    largest = max(gradient.norm() for gradient in found[torch.float64].values())
    for name, exact in found[torch.float64].items():
        tolerance = 1e-4 * exact.norm() + 1e-6 * largest
        assert (found[torch.float32][name] - exact).norm() < tolerance, name


@pytest.mark.parametrize("sde", ["vp", "ve"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_round_trip_gives_the_same_network(sde: str, prefix: str, config: dict[str, Any]) -> None:
    config = ve_config(config) if sde == "ve" else config
    model, data = config["model"], config["data"]
    torch.manual_seed(0)
    network = ScoreUNet(
        channels_in=3,
        image_size=data["image_size"],
        channels=model["nf"],
        multipliers=model["ch_mult"],
        blocks=model["num_res_blocks"],
        attention_resolutions=model["attn_resolutions"],
        embedding=model["embedding_type"],
        fir=model["fir"],
        progressive_input=model["progressive_input"],
        scale_by_sigma=model["scale_by_sigma"],
        centered=data["centered"],
    ).eval()
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


def test_export_does_not_share_memory(state: dict[str, Tensor], config: dict[str, Any]) -> None:
    network = import_score(state, config)
    export_score(network)["module.all_modules.2.weight"].zero_()
    assert network.conv_in.weight.abs().max() > 0


def test_every_difference_is_named_at_once(state: dict[str, Tensor], config: dict[str, Any]) -> None:
    wrong = dict(state)
    wrong["module.all_modules.2.weight"] = torch.zeros(16, 3, 5, 5)
    del wrong["module.all_modules.3.Conv_0.bias"]
    wrong["module.all_modules.99.weight"] = torch.zeros(7)
    with pytest.raises(ArtifactError) as caught:
        import_score(wrong, config)
    message = str(caught.value)
    assert "all_modules.2.weight is (16, 3, 5, 5), expected (16, 3, 3, 3)" in message
    assert "missing all_modules.3.Conv_0.bias, expected (16,)" in message
    assert "unknown all_modules.99.weight, found (7,)" in message
    assert message.count(";") == 2


def test_checkpoint_of_another_size_is_refused(state: dict[str, Tensor], config: dict[str, Any]) -> None:
    config["model"]["num_res_blocks"] = 2
    with pytest.raises(ArtifactError, match="does not fit its configuration"):
        import_score(state, config)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("model", "fourier_feature", True),
        ("model", "resblock_type", "ddpm"),
        ("model", "progressive", "output_skip"),
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
