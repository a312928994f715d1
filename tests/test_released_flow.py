"""Released flow checkpoints: the layout, the golden numbers of the residual flow, refusals, and the round trip."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from indm.errors import ArtifactError
from indm.flows.base import Flow
from indm.flows.log_det import Series
from indm.flows.registered.identity import Identity
from indm.flows.registered.resflow import ResidualFlow
from indm.flows.registered.wolf import Wolf
from indm.released.flow import import_flow
from tests.released import export_flow

Json = dict[str, Any]


def released_config(model: str, *, squeeze: bool = False) -> Json:
    """A small configuration, with the keys and values of the released ones."""
    flow = {"model": model, "nblocks": "2-1", "intermediate_dim": 8, "squeeze": squeeze, "actnorm": False}
    flow |= {"grad_in_forward": False, "act_fn": "sin", "resblock_type": "resflow", "train_k": 1, "n_bits": 8}
    return {"flow": flow, "data": {"image_size": 16, "num_channels": 3}}


def released_wolf_config(*, squeeze: bool = False) -> Json:
    """The released file under ``flow.model_config``, with smaller numbers."""
    encoder = {"type": "global_resnet_bn", "levels": 2, "in_planes": 12 if squeeze else 3, "hidden_planes": [4, 6]}
    encoder |= {"out_planes": 5, "activation": "elu"}
    prior = {"type": "flow", "num_steps": 2, "in_features": 64, "hidden_features": 7, "activation": "elu"}
    prior |= {"transform": "affine", "alpha": 1.0, "coupling_type": "mlp"}
    discriminator = {"type": "gaussian", "encoder": encoder, "in_dim": 20 if squeeze else 80, "dim": 64, "prior": prior}
    generator = {"flow": {"type": "resflow"}}
    return {"generator": generator, "discriminator": discriminator, "dequantizer": {"type": "uniform"}}


def trained(model: str, *, squeeze: bool = False) -> Flow:
    """A flow of the released kind with random weights and running statistics."""
    torch.manual_seed(0)
    blocks = (0, 2, 1) if squeeze else (2, 1)
    sizes: Json = {"encoder_widths": (4, 6), "encoder_channels_out": 5, "prior_width": 7}
    flow = (
        ResidualFlow(3, 16, blocks=blocks, width=8)
        if model == "resflow"
        else Wolf(3, 16, blocks=blocks, width=8, **sizes)
    )
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    flow(torch.randn(4, 3, 16, 16), "none")
    return flow.eval()


def imported(state: dict[str, Tensor], model: str, *, squeeze: bool = False, frozen: bool = False) -> Flow:
    config, file = released_config(model, squeeze=squeeze), released_wolf_config(squeeze=squeeze)
    return import_flow(state, config, file, frozen_prior_inverse=frozen)


def with_extras(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add what the released code stores beside the weights."""
    extras: dict[str, Tensor] = {}
    for name in state:
        head, _, last = name.partition(".nnet.")
        if last:
            extras |= {f"{head}.{scalar}": torch.tensor(2.0) for scalar in ("geom_p", "lamb")}
            extras |= {
                f"{head}.{record}": torch.zeros(1) for record in ("last_n_samples", "last_firmom", "last_secmom")
            }
            extras[f"{head}.nnet.{last.split('.')[0]}.scale"] = torch.tensor(1.0)
    return state | extras


# ----------------------------------------------------------------------------------------------------------------------
# The layout


def linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def weight_norm(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    name = f"{name}.linear"
    return {f"{name}.weight_g": (outputs, 1), f"{name}.weight_v": (outputs, inputs), f"{name}.bias": (outputs,)}


def conv(name: str, inputs: int, outputs: int, size: int, *, bias: bool = True) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs, size, size)} | ({f"{name}.bias": (outputs,)} if bias else {})


def norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    vectors = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{vector}": (channels,) for vector in vectors} | {f"{name}.num_batches_tracked": ()}


def released_layout(*, squeeze: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes that the released code gives a wolf flow of this size, without its extras."""
    shapes: dict[str, tuple[int, ...]] = {}
    image = 12 if squeeze else 3
    for block, channels, first in (("0.chain.0", image, 0), ("0.chain.1", image, 1), ("1.chain.0", 4 * image, 1)):
        root = f"generator.flow.transforms.{block}.nnet"
        shapes |= conv(f"{root}.{first}", channels, 8, 3) | conv(f"{root}.{first + 4}", 8, channels, 3)
        shapes |= conv(f"{root}.{first + 2}", 8, 8, 1) | linear(f"{root}.{first + 2}.h_net.net", 64, 8)
    channels = image
    for level, width in enumerate((4, 6)):
        for index in range(2):
            root = f"discriminator.encoder.net.resnet{level}.main.{index}"
            shapes |= conv(f"{root}.conv1", channels, width, 3, bias=False) | norm(f"{root}.bn1", width)
            shapes |= conv(f"{root}.conv2", width, width, 3, bias=False) | norm(f"{root}.bn2", width)
            shapes |= conv(f"{root}.downsample.0", channels, width, 1, bias=False) | norm(f"{root}.downsample.1", width)
            channels = width
    shapes |= conv("discriminator.encoder.net.top", 6, 5, 1) | weight_norm(
        "discriminator.fc", 20 if squeeze else 80, 128
    )
    for step in range(2):
        root = f"discriminator.prior.flow.steps.{step}"
        for name in ("actnorm", "unit.actnorm"):
            shapes |= {f"{root}.{name}.log_scale": (64,), f"{root}.{name}.bias": (64,)}
        shapes |= {f"{root}.linear.weight": (64, 64), f"{root}.linear.weight_inv": (64, 64)}
        for name in ("coupling1_up", "coupling1_dn", "coupling2_up", "coupling2_dn"):
            net = f"{root}.unit.{name}.net"
            shapes |= linear(f"{net}.fc1", 32, 7) | linear(f"{net}.fc2", 7, 7) | weight_norm(f"{net}.fc3", 7, 64)
    return shapes


@pytest.mark.parametrize("squeeze", [False, True])
def test_exported_layout_is_the_released_one(squeeze: bool) -> None:
    exported = export_flow(trained("wolf", squeeze=squeeze))
    found = {name.removeprefix("module."): tuple(entry.shape) for name, entry in exported.items()}
    assert found == released_layout(squeeze=squeeze)


@pytest.mark.parametrize(
    ("coupling", "moved"),
    [
        ("coupling1_up", range(32, 64)),
        ("coupling1_dn", range(32)),
        ("coupling2_up", range(1, 64, 2)),
        ("coupling2_dn", range(0, 64, 2)),
    ],
)
def test_each_released_coupling_moves_its_half(coupling: str, moved: range) -> None:
    """With the act norms and linear maps left out and every scale the same, a shift in one coupling shows where it acts."""
    state, h = export_flow(trained("wolf")), torch.randn(1, 64)
    for name, entry in state.items():
        if ".prior." in name:
            entry.copy_(torch.eye(64)) if ".linear.weight" in name and ".unit." not in name else entry.zero_()
    before = prior_image(state, h)
    state[f"module.discriminator.prior.flow.steps.1.unit.{coupling}.net.fc3.linear.bias"][:32] = 1.0
    changed = (prior_image(state, h) != before).squeeze(0)
    assert changed.nonzero().flatten().tolist() == list(moved)


def prior_image(state: dict[str, Tensor], h: Tensor) -> Tensor:
    wolf = imported(state, "wolf")
    assert isinstance(wolf, Wolf)
    return wolf.prior(h)[0]


def test_released_batch_norms_follow_their_convolutions() -> None:
    """In a block of the encoder, what bn1 forgets reaches nothing, and bn2 still shifts the output."""
    state, x = export_flow(trained("wolf")), torch.randn(1, 3, 16, 16)
    block = "module.discriminator.encoder.net.resnet1.main.1"
    state[f"{block}.bn1.weight"].zero_()
    before = encoded(state, x)
    state[f"{block}.conv1.weight"].mul_(2)
    assert torch.equal(encoded(state, x), before)
    state[f"{block}.bn2.bias"].add_(1)
    assert not torch.equal(encoded(state, x), before)
    state[f"{block}.bn2.weight"].zero_()
    before = encoded(state, x)
    state[f"{block}.conv2.weight"].mul_(2)
    assert torch.equal(encoded(state, x), before)


def encoded(state: dict[str, Tensor], x: Tensor) -> Tensor:
    wolf = imported(state, "wolf")
    assert isinstance(wolf, Wolf)
    return torch.cat(wolf.posterior(x), 1)


# ----------------------------------------------------------------------------------------------------------------------
# Round trips


@pytest.mark.parametrize("squeeze", [False, True])
@pytest.mark.parametrize("model", ["resflow", "wolf"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_round_trip_gives_the_same_flow(model: str, squeeze: bool, prefix: str) -> None:
    flow = trained(model, squeeze=squeeze)
    state = with_extras({prefix + name.removeprefix("module."): value for name, value in export_flow(flow).items()})
    again = imported(state, model, squeeze=squeeze)
    assert not again.training
    x = torch.randn(2, 3, 16, 16)
    for own, other in zip(draw(flow, x), draw(again, x), strict=True):
        assert torch.equal(own, other)
    exported = export_flow(again)
    assert set(exported) == set(export_flow(flow))
    assert all(torch.equal(value, exported[name]) for name, value in export_flow(flow).items())


def draw(flow: Flow, x: Tensor) -> tuple[Tensor, ...]:
    """z, log|det| and an inverse, at fixed draws."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return *flow(x, Series(1e-6), generator), flow.inverse(x, generator=generator)


def test_identity() -> None:
    flow = import_flow({}, released_config("identity"))
    assert isinstance(flow, Identity)
    assert flow.image_shape == (3, 16, 16)
    assert export_flow(flow) == {}
    with pytest.raises(ArtifactError, match=r"unknown weight.*\(2,\)"):
        import_flow({"module.weight": torch.zeros(2)}, released_config("identity"))


def test_paper_sizes_without_the_released_file() -> None:
    config = released_config("wolf", squeeze=True)
    config["flow"] |= {"nblocks": "1-1"}
    config["data"]["image_size"] = 64
    flow = Wolf(3, 64, blocks=(0, 1, 1), width=8)
    again = import_flow(export_flow(flow), config)
    assert isinstance(again, Wolf)
    assert again.encoder.linear.in_features == 128
    assert again.encoder.get_parameter("blocks.0.conv1.weight").shape[1] == 12


# ----------------------------------------------------------------------------------------------------------------------
# The frozen inverse of the prior


def test_stale_inverse_is_used_only_on_demand() -> None:
    state = export_flow(trained("wolf"))
    stale = "module.discriminator.prior.flow.steps.1.linear.weight_inv"
    fresh, state[stale] = state[stale], torch.linalg.qr(torch.randn(64, 64)).Q
    corrected, frozen = imported(state, "wolf"), imported(state, "wolf", frozen=True)
    assert torch.equal(export_flow(frozen)[stale], state[stale])
    torch.testing.assert_close(export_flow(corrected)[stale], fresh)
    torch.testing.assert_close(fresh @ state[stale.removesuffix("_inv")], torch.eye(64), atol=1e-4, rtol=0)
    x = torch.randn(2, 3, 16, 16)
    first, second = draw(corrected, x), draw(frozen, x)
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[2], second[2])


# ----------------------------------------------------------------------------------------------------------------------
# Refusals


@pytest.mark.parametrize(
    ("key", "value"),
    [("act_fn", "elu"), ("actnorm", True), ("nblocks", "3"), ("resblock_type", "biggan"), ("train_k", 2)],
)
def test_other_settings_are_refused(key: str, value: object) -> None:
    config = released_config("wolf")
    config["flow"][key] = value
    with pytest.raises(ArtifactError, match=f"flow\\.{key} is {value!r}, expected"):
        import_flow({}, config)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("discriminator.dim", 32),
        ("discriminator.in_dim", 128),
        ("discriminator.encoder.in_planes", 12),
        ("discriminator.prior.transform", "additive"),
    ],
)
def test_other_wolf_files_are_refused(path: str, value: object) -> None:
    file = deepcopy(released_wolf_config())
    *parents, last = path.split(".")
    section = file
    for parent in parents:
        section = section[parent]
    section[last] = value
    with pytest.raises(ArtifactError, match=f"{path} is {value!r}, expected".replace(".", r"\.")):
        import_flow({}, released_config("wolf"), file)


def test_unknown_flow_and_incomplete_configuration_are_refused() -> None:
    with pytest.raises(ArtifactError, match=r"flow\.model.*'glow_v2'"):
        import_flow({}, released_config("glow_v2"))
    config = released_config("resflow")
    del config["flow"]["intermediate_dim"]
    with pytest.raises(ArtifactError, match="'intermediate_dim'"):
        import_flow({}, config)
