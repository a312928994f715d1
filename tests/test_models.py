"""Score networks, noise model and moving average: contracts over every registered network, and oracles."""

import math
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import upfirdn
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from indm.diffusion.model import build_model
from indm.diffusion.noise import NoiseModel
from indm.diffusion.objectives import NoiseFn
from indm.diffusion.path import LinearPath
from indm.diffusion.registered.ve import VE
from indm.diffusion.registered.vp import VP
from indm.diffusion.samplers.loops import Schedule
from indm.errors import ParamsError
from indm.networks.build import build_network
from indm.networks.layers import (
    AttentionBlock,
    FIRDownConv,
    FIRDownsample,
    FIRUpsample,
    FourierFeatures,
    LogSNRFeatures,
    PositionalFeatures,
)
from indm.networks.registered.unet import ScoreUNet
from indm.registry import NETWORKS, SAMPLERS
from indm.training.ema import ExponentialMovingAverage
from indm.training.flat import Flat
from tests.gaussian import GaussianData

SMALL: dict[str, Any] = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention_resolutions": (4,)}
VP_LIKE: dict[str, Any] = {"channels": 8, "multipliers": (1, 2, 2), "blocks": 2, "attention_resolutions": (8,)}
VP_LIKE |= {"dropout": 0.1, "embedding": "positional"}
VE_LIKE: dict[str, Any] = VP_LIKE | {"embedding": "fourier", "fir": True, "progressive_input": "residual"}
VE_LIKE |= {"scale_by_sigma": True, "centered": False}
PAPER: dict[str, Any] = {"channels": 128, "multipliers": (1, 2, 2, 2), "blocks": 4, "attention_resolutions": (16,)}

# Every registered network, with every option set that its tests run through.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "unet-small": ("unet", {"channels_in": 1, "image_size": 8} | SMALL),
    "unet-vp": ("unet", {"channels_in": 3, "image_size": 16} | VP_LIKE),
    "unet-ve": ("unet", {"channels_in": 3, "image_size": 16} | VE_LIKE),
}
every_case = pytest.mark.parametrize("case", CASES)


def build(case: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> ScoreUNet:
    """Build a case's network with noise on every weight: at initialisation the closing maps are almost zero."""
    name, arguments = CASES[case]
    torch.manual_seed(seed)
    network = build_network(name, **arguments)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.to(dtype).eval()


def draw(network: ScoreUNet, case: str, batch: int = 3) -> tuple[Tensor, Tensor]:
    """Draw images and conditions, both of the network's floating-point type."""
    arguments = CASES[case][1]
    dtype = network.conv_in.weight.dtype
    size = arguments["image_size"]
    return torch.randn(batch, arguments["channels_in"], size, size, dtype=dtype), torch.rand(batch, dtype=dtype) + 0.5


# ---- Networks ---------------------------------------------------------------------------------------------------


def test_every_registered_network_has_a_case() -> None:
    assert {name for name, _ in CASES.values()} == set(NETWORKS)


def test_unknown_network_is_refused_with_the_known_names() -> None:
    with pytest.raises(ParamsError, match=r"'transformer'.*unet"):
        build_network("transformer")


@pytest.mark.parametrize(
    ("options", "parameters", "constants"), [(VP_LIKE, 61_804_419, 0), (VE_LIKE, 62_758_915, 128)], ids=["vp", "ve"]
)
def test_parameter_counts_of_the_paper(options: dict[str, Any], parameters: int, constants: int) -> None:
    """The published counts take in the Fourier frequencies, which are not trained."""
    with torch.device("meta"):
        network = ScoreUNet(channels_in=3, image_size=32, **options | PAPER)
    assert sum(p.numel() for p in network.parameters()) + constants == parameters
    assert sum(value.numel() for value in network.state_dict().values()) == parameters


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_output_has_the_shape_and_type_of_the_image(case: str, dtype: torch.dtype) -> None:
    network = build(case, dtype=dtype)
    x, condition = draw(network, case)
    raw = network(x, condition)
    assert raw.shape == x.shape
    assert raw.dtype == dtype
    assert raw.isfinite().all()


@every_case
def test_every_parameter_receives_a_gradient(case: str) -> None:
    network = build(case).train()
    network(*draw(network, case)).square().sum().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert without == []


@every_case
def test_float32_agrees_with_float64(case: str) -> None:
    network = build(case)
    x, condition = draw(network, case)
    exact = deepcopy(network).double()(x.double(), condition.double())
    assert (network(x, condition) - exact).abs().max() < 1e-5 * exact.abs().max()


@every_case
def test_eval_is_deterministic_and_images_do_not_mix(case: str) -> None:
    network = build(case)
    x, condition = draw(network, case)
    together = network(x, condition)
    torch.testing.assert_close(together, network(x, condition), rtol=0, atol=0)
    alone = torch.cat([network(x[i : i + 1], condition[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5 * together.abs().max().item())


def test_dropout_acts_in_training_only() -> None:
    network = build("unet-vp")
    x, condition = draw(network, "unet-vp")
    network.train()
    assert not torch.equal(network(x, condition), network(x, condition))


def test_image_that_is_not_centered_is_mapped_to_minus_one_and_one() -> None:
    network = build("unet-ve")
    centered = ScoreUNet(**CASES["unet-ve"][1] | {"centered": True}).eval()
    centered.load_state_dict(network.state_dict())
    x, condition = draw(network, "unet-ve")
    torch.testing.assert_close(network(x, condition), centered(2 * x - 1, condition), rtol=0, atol=0)


@every_case
def test_output_starts_almost_at_zero(case: str) -> None:
    name, arguments = CASES[case]
    network = build_network(name, **arguments)
    assert network(*draw(network, case)).abs().max() < 1e-3


@settings(max_examples=12, deadline=None)
@given(
    channels=st.integers(4, 13),
    size=st.sampled_from([8, 16, 32, 64]),
    options=st.sampled_from([{}, {"embedding": "positional"}, {"fir": True, "progressive_input": "residual"}]),
)
def test_any_width_and_image_size(channels: int, size: int, options: dict[str, Any]) -> None:
    network = ScoreUNet(2, size, channels, (1, 2, 3), 1, (size // 4,), **options)
    assert network(torch.randn(1, 2, size, size), torch.ones(1)).shape == (1, 2, size, size)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 3}, "channels is 3, expected at least 4"),
        ({"image_size": 9}, "image_size is 9"),
        ({"multipliers": ()}, "0 multipliers"),
        ({"attention_resolutions": (4, 5)}, r"attention_resolutions has \[5\], expected some of \[8, 4\]"),
        ({"embedding": "sigma"}, "embedding is 'sigma'.*log_snr"),
        ({"progressive_input": "sum"}, "progressive_input is 'sum'.*residual"),
        ({"scale_by_sigma": True}, "scale_by_sigma needs embedding 'fourier'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        ScoreUNet(**{"channels_in": 1, "image_size": 8} | SMALL | change)


# ---- Layers -----------------------------------------------------------------------------------------------------


def filtered(x: Tensor, up: int = 1) -> Tensor:
    """Filter an image with (1, 3, 3, 1) along both axes, after ``up - 1`` zeros behind each pixel; no border is cut off."""
    found = x.numpy()
    for axis in (2, 3):
        found = upfirdn(up * np.array([1, 3, 3, 1]) / 8, found, up, axis=axis)
    return torch.from_numpy(found)


def test_fir_resampling_is_filtering_of_the_padded_image() -> None:
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    down, up = filtered(x)[:, :, 2:-2:2, 2:-2:2], filtered(x, 2)[:, :, 1:-1, 1:-1]
    torch.testing.assert_close(FIRDownsample().double()(x), down, rtol=0, atol=1e-14)
    torch.testing.assert_close(FIRUpsample().double()(x), up, rtol=0, atol=1e-14)


def test_fir_convolution_is_filter_then_strided_convolution() -> None:
    layer = FIRDownConv(3, 5).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    weight, bias = layer.conv.weight, layer.conv.bias
    assert bias is not None
    patches = filtered(x)[:, :, 1:-1, 1:-1].unfold(2, 3, 2).unfold(3, 3, 2)
    expected = torch.einsum("bchwij,ocij->bohw", patches, weight) + bias[:, None, None]
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-13)


def test_attention_is_the_softmax_formula() -> None:
    block = AttentionBlock(8).double()
    nn.init.normal_(block.out.weight)
    x = torch.randn(2, 8, 4, 4, dtype=torch.float64)
    q, k, v = block.qkv(block.norm(x).flatten(2).mT).split(8, dim=2)
    weights = torch.softmax(torch.einsum("bqc,bkc->bqk", q, k) / math.sqrt(8), dim=2)
    mixed = block.out(torch.einsum("bqk,bkc->bqc", weights, v)).mT.reshape(x.shape)
    torch.testing.assert_close(block(x), (x + mixed) / math.sqrt(2))


def test_second_derivatives_exist_with_the_mathematical_attention() -> None:
    block = AttentionBlock(4).double()
    nn.init.normal_(block.out.weight)
    x = torch.randn(1, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    with sdpa_kernel(SDPBackend.MATH):
        assert torch.autograd.gradgradcheck(block, x)


@pytest.mark.parametrize(
    "features", [PositionalFeatures(16), FourierFeatures(16, 4.0), LogSNRFeatures(16)], ids=lambda f: type(f).__name__
)
def test_features_are_points_on_circles(features: PositionalFeatures | FourierFeatures | LogSNRFeatures) -> None:
    values = features(torch.tensor([0.01, 0.5, 9.0]))
    sines, cosines = values.chunk(2, dim=1)
    assert values.shape == (3, features.width)
    torch.testing.assert_close(sines**2 + cosines**2, torch.ones_like(sines))


def test_log_snr_features_tell_all_levels_apart() -> None:
    levels = torch.linspace(-16, 16, 129, dtype=torch.float64)
    features = LogSNRFeatures(4).double()(levels)
    distances = torch.cdist(features, features) + 10 * torch.eye(129, dtype=torch.float64)
    assert distances.min() > 0.02


# ---- Noise model ------------------------------------------------------------------------------------------------


def test_condition_and_sign_of_the_released_ve_network() -> None:
    network = build("unet-ve")
    z, t = torch.rand(3, 3, 16, 16), torch.tensor([1e-5, 0.3, 1.0], dtype=torch.float64)
    model = NoiseModel(network, VE())
    sigma = VE().sigma(t).float()
    raw = network(z, sigma)
    torch.testing.assert_close(model(z, t), -sigma[:, None, None, None] * raw)


@pytest.mark.parametrize("sde", [VP(), VE()], ids=["vp", "ve"])
def test_log_snr_network_predicts_the_noise_from_the_normalised_input(sde: VP | VE) -> None:
    network = build("unet-small")
    z, t = torch.randn(3, 1, 8, 8), torch.tensor([1e-5, 0.3, 1.0], dtype=torch.float64)
    norm = torch.sqrt(sde.alpha(t) ** 2 + sde.sigma(t) ** 2).float()[:, None, None, None]
    condition = sde.log_snr(t).float()
    torch.testing.assert_close(NoiseModel(network, sde)(z, t), network(z, condition), rtol=0, atol=0)
    normalised = NoiseModel(network, sde, normalise_input="unit")
    torch.testing.assert_close(normalised(z, t), network(z / norm, condition), rtol=0, atol=0)


@pytest.mark.parametrize("sde", [VP(), VE()], ids=["vp", "ve"])
def test_input_is_divided_by_the_running_deviation_of_z_t(sde: VP | VE) -> None:
    """The mean of the variances that it was told of, until there are a hundred; then the newest counts for one in a hundred."""
    network = build("unet-small")
    z, t = torch.randn(3, 1, 8, 8), torch.tensor([1e-5, 0.3, 1.0], dtype=torch.float64)
    model = NoiseModel(network, sde, normalise_input="running").train()
    torch.testing.assert_close(model(z, t), NoiseModel(network, sde, normalise_input="unit")(z, t), rtol=0, atol=0)
    for variance in (4.0, 9.0, 5.0):
        model.follow(torch.tensor(variance, dtype=torch.float64))
    norm = torch.sqrt(6 * sde.alpha(t) ** 2 + sde.sigma(t) ** 2).float()[:, None, None, None]
    expected = network(z / norm, sde.log_snr(t).float())
    torch.testing.assert_close(model(z, t), expected)
    other = NoiseModel(network, sde, normalise_input="running").eval()
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(z, t), expected)
    model.batches.fill_(1000)
    model.follow(torch.tensor(106.0))
    assert model.variance.item() == pytest.approx(7)


class ExactV(nn.Module):
    """A network whose output is the exact v of Gaussian data, read from the condition, the log-SNR."""

    scale_by_sigma, embedding = False, "log_snr"

    def __init__(self, data: GaussianData, sde: VP | VE) -> None:
        super().__init__()
        self.data, self.sde = data, sde

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        t = self.sde.time(-log_snr)
        noise = self.data.noise_fn(self.sde, z, t)
        alpha, sigma = self.sde.alpha(t)[:, None], self.sde.sigma(t)[:, None]
        clean = (z - sigma * noise) / alpha
        return (alpha * noise - sigma * clean) / (alpha**2 + sigma**2).sqrt()


@pytest.mark.parametrize("sde", [VP(), VE()], ids=["vp", "ve"])
def test_a_prediction_of_v_is_read_as_the_noise_that_it_stands_for(sde: VP | VE) -> None:
    data = GaussianData(4)
    model = NoiseModel(ExactV(data, sde), sde, predict="v")  # type: ignore[arg-type]
    t = torch.linspace(0.01, 1, 7, dtype=torch.float64)
    z = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(z, t), data.noise_fn(sde, z, t), rtol=1e-7, atol=1e-7)


def test_bound_and_samples_are_those_of_the_same_function_as_a_prediction_of_the_noise() -> None:
    sde, data = VP(), GaussianData(4)
    as_v = NoiseModel(ExactV(data, sde), sde, predict="v")  # type: ignore[arg-type]
    as_noise: NoiseFn = partial(data.noise_fn, sde)
    t, z0 = torch.linspace(0.01, 1, 9, dtype=torch.float64), data.draw(9)
    noise = torch.randn(z0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    path = LinearPath(sde)
    for number in (
        lambda predict: path.error(predict, z0, t, noise),
        lambda predict: path.decoder(predict, z0, 1e-5, noise),
        lambda predict: path.ode_drift(predict, z0, torch.tensor(0.5)),
        lambda predict: SAMPLERS["ddim"](predict, path, noise, Schedule([1.0, 0.6, 0.2, 0.01]), torch.Generator()),
    ):
        torch.testing.assert_close(number(as_v), number(as_noise), rtol=1e-6, atol=1e-6)


def test_a_v_prediction_is_part_of_a_models_specification() -> None:
    score = {"name": "unet", "channels": 8, "multipliers": [1], "blocks": 1, "attention_resolutions": []}
    score |= {"dropout": 0.0, "embedding": "log_snr", "normalise_input": "unit"}
    spec = {"shape": [1, 8, 8], "sde": {"name": "vp"}, "eps": 1e-5, "centered": True, "flow": {"name": "identity"}}
    models = [build_model(spec | {"score": score | {"predict": kind}}) for kind in ("noise", "v")]
    models[1].load_state_dict(models[0].state_dict())
    z, t = torch.randn(2, 1, 8, 8), torch.tensor([0.2, 0.9], dtype=torch.float64)
    alpha, sigma = (value(t).float()[:, None, None, None] for value in (VP().alpha, VP().sigma))
    torch.testing.assert_close(models[1].noise(z, t), alpha * models[0].noise(z, t) + sigma * z)


# ---- Moving average ---------------------------------------------------------------------------------------------


class Probe(nn.Module):
    """One trained weight, one frozen weight, one counting buffer."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.frozen = nn.Parameter(torch.tensor([5.0]), requires_grad=False)
        self.register_buffer("count", torch.tensor(0))


def test_average_follows_the_hand_computation() -> None:
    module = Probe()
    ema, flat = ExponentialMovingAverage(module, decay=0.3), Flat(module)
    expected = 1.0
    for step, decay in [(1, 2 / 11), (2, 3 / 12), (3, 0.3), (4, 0.3)]:  # 4/13 = 0.31 is above the decay asked for
        with torch.no_grad():
            module.weight.copy_(torch.tensor([1.0, 2.0]) + step)
            module.frozen.fill_(step)
            module.count.fill_(step)
        ema.update(flat)
        expected = decay * expected + (1 - decay) * (1 + step)
        torch.testing.assert_close(ema.module.weight, torch.tensor([expected, expected + 1]), check_dtype=True)
        assert ema.module.frozen.item() == step
        assert ema.module.count.item() == step
    assert ema.updates == 4


def test_averaged_module_is_for_evaluation_only() -> None:
    module = build("unet-vp").train()
    averaged = ExponentialMovingAverage(module, decay=0.9).module
    assert not any(part.training for part in averaged.modules())
    assert not any(p.requires_grad for p in averaged.parameters())
    assert module.training
    assert all(p.requires_grad for p in module.parameters())
