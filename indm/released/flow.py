"""Conversion of released flows into modules of this package."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from indm.errors import ArtifactError
from indm.flows.base import Flow
from indm.flows.build import build_flow
from indm.flows.encoder import EncoderBlock, GaussianEncoder, WeightNormLinear
from indm.flows.prior import Coupling, InvertibleLinear, PriorFlow
from indm.flows.registered import resflow as residual
from indm.flows.registered.identity import Identity
from indm.flows.registered.resflow import ResidualFlow
from indm.flows.registered.wolf import Wolf
from indm.released.checkpoint import copy_entries
from indm.released.settings import FLOW_SETTINGS, WOLF_SETTINGS, Config, Settings, wrong_settings

# Last parts of released names: two constants per block for the number of terms in the series, and records of the last call.
FLOW_IGNORED = {"geom_p", "lamb", "last_n_samples", "last_firmom", "last_secmom", "scale"}
# Settings that the released code builds in, regardless of its configuration.
RESIDUAL_BUILT = {"activation": "sin", "bound": "linf", "coefficient": 0.98}


def import_flow(
    state_dict: Mapping[str, Tensor],
    config: Config,
    wolf_config: Mapping[str, Any] | None = None,
    *,
    frozen_prior_inverse: bool = False,
) -> Flow:
    """Build the flow of a released checkpoint, in eval mode.

    Arguments:
        state_dict: entries of the released layout, with or without the prefix ``module.``, as under ``model`` in a released
            ``flow_checkpoint_k.pth``: ``transforms.*`` for ``"resflow"``, ``generator.*`` and ``discriminator.*`` for
            ``"wolf"``, empty for ``"identity"``; each has the shape of its entry in :func:`flow_entries`.
        config: the released configuration as a nested mapping, with the sections data and flow.
        wolf_config: the released file under ``flow.model_config``; the paper's file if None.
        frozen_prior_inverse: whether a wolf flow draws h as the released code does, with the ``weight_inv`` from the
            checkpoint, which are the inverses of the prior's linear maps before training.

    Returns:
        The flow of images with shape (B, C, S, S).

    Raises:
        ArtifactError: if the configuration is not from the paper, or an entry is missing, unknown or has another shape;
            the message lists all differences.
    """
    flow = _build_flow(config, wolf_config, frozen_prior_inverse=frozen_prior_inverse)
    found = {name.removeprefix("module."): value for name, value in state_dict.items()}
    ignored = {name for name in found if name.rpartition(".")[2] in FLOW_IGNORED}
    copy_entries(flow_entries(flow), found, ignored, "flow checkpoint")
    return flow.eval()


def _build_flow(config: Config, wolf_config: Mapping[str, Any] | None, *, frozen_prior_inverse: bool) -> Flow:
    try:
        model, shape = config["flow"]["model"], (config["data"]["num_channels"], config["data"]["image_size"])
        if model == "identity":
            return Identity(*shape)
        if model not in FLOW_SETTINGS:
            raise ArtifactError(
                f"released flow configuration: flow.model is {model!r}, expected one of identity, {', '.join(FLOW_SETTINGS)}"
            )
        wrong = wrong_settings(config, FLOW_SETTINGS[model])
        arguments = residual_arguments(config)
        if model == "wolf":
            arguments["frozen_prior_inverse"] = frozen_prior_inverse
            arguments |= {} if wolf_config is None else _wolf_arguments(config, wolf_config, wrong)
    except KeyError as error:
        raise ArtifactError(f"released flow configuration: found no key {error.args[0]!r}") from error
    except (AttributeError, TypeError) as error:
        raise ArtifactError(f"released flow configuration: found a value of another type ({error})") from None
    if wrong:
        raise ArtifactError("released flow configuration: " + "; ".join(wrong))
    return build_flow(model, channels_in=shape[0], image_size=shape[1], **arguments)


def residual_arguments(config: Config) -> dict[str, Any]:
    """Return the arguments of the residual flow for a released configuration.

    Squeezing the image first corresponds to a full resolution without blocks.

    Raises:
        ArtifactError: if it does not have two scales of blocks, the only number with the right released output order.
    """
    flow = config["flow"]
    counts = str(flow["nblocks"]).split("-")
    if len(counts) != 2 or not all(count.isdecimal() for count in counts):
        found = repr(flow["nblocks"])
        raise ArtifactError(
            f"released flow configuration: flow.nblocks is {found}, expected two numbers such as '16-16'"
        )
    blocks = tuple(map(int, counts))
    return {"blocks": (0, *blocks) if flow["squeeze"] else blocks, "width": flow["intermediate_dim"], **RESIDUAL_BUILT}


def _wolf_arguments(config: Config, wolf_config: Mapping[str, Any], wrong: list[str]) -> dict[str, Any]:
    """Return the arguments of encoder and prior; redundant sizes in the file must agree with each other."""
    encoder, prior = wolf_config["discriminator"]["encoder"], wolf_config["discriminator"]["prior"]
    levels, squeeze = len(encoder["hidden_planes"]), 2 if config["flow"]["squeeze"] else 1
    size = -(-config["data"]["image_size"] // (squeeze * 2**levels))
    sizes: Settings = {
        ("discriminator", "in_dim"): encoder["out_planes"] * size**2,
        ("discriminator", "encoder", "levels"): levels,
        ("discriminator", "encoder", "in_planes"): config["data"]["num_channels"] * squeeze**2,
    }
    wrong += wrong_settings(wolf_config, WOLF_SETTINGS | sizes)
    return {
        "encoder_widths": tuple(encoder["hidden_planes"]),
        "encoder_channels_out": encoder["out_planes"],
        "prior_steps": prior["num_steps"],
        "prior_width": prior["hidden_features"],
    }


def flow_entries(module: nn.Module) -> dict[str, Tensor]:
    """Return views of a flow's weights and running statistics under their released names.

    Returns:
        The tensors in the shapes of the released ones, which are also their shapes in this package.
    """
    if entries := FLOW_LAYERS.get(type(module)):
        return {name: entry.detach() for name, entry in entries(module).items()}
    parts = FLOW_PARTS.get(type(module))
    if parts is None:
        return module.state_dict()
    nested = {name: flow_entries(part) for name, part in parts(module).items()}
    return {f"{name}.{key}": entry for name, entries in nested.items() for key, entry in entries.items()}


def _residual_flow_parts(flow: ResidualFlow) -> dict[str, nn.Module]:
    blocks = list(flow.named_blocks())
    first = blocks[0][1]  # the released code counts scales from the first one with blocks
    return {f"transforms.{scale - first}.chain.{name.split('.')[-1]}": block for name, scale, block in blocks}


def _block_parts(block: residual.ResidualBlock) -> dict[str, nn.Module]:
    """Return the parts of a block; a leading activation takes one place in the released list."""
    first = int(block.leading_activation)
    parts: dict[str, nn.Module] = {f"nnet.{first + 2 * n}": conv for n, conv in enumerate(block.convs)}
    return parts if block.condition is None else parts | {f"nnet.{first + 2}.h_net.net": block.condition}


def _encoder_parts(encoder: GaussianEncoder) -> dict[str, nn.Module]:
    blocks = {f"encoder.net.resnet{n // 2}.main.{n % 2}": block for n, block in enumerate(encoder.blocks)}
    return blocks | {"encoder.net.top": encoder.top, "fc": encoder.linear}


def _encoder_block_parts(block: EncoderBlock) -> dict[str, nn.Module]:
    parts = {"conv1": block.conv1, "bn1": block.norm1, "conv2": block.conv2, "bn2": block.norm2}
    return parts | {f"downsample.{n}": layer for n, layer in enumerate(block.shortcut)}


PRIOR_STEP = (
    "actnorm",
    "linear",
    "unit.coupling1_up",
    "unit.coupling1_dn",
    "unit.actnorm",
    "unit.coupling2_up",
    "unit.coupling2_dn",
)


def _prior_parts(prior: PriorFlow) -> dict[str, nn.Module]:
    names = (f"flow.steps.{n}.{name}" for n in range(len(prior.steps)) for name in PRIOR_STEP)
    return dict(zip(names, prior.layers(), strict=True))


# The parts of each of this package's modules, under their released names.
FLOW_PARTS: dict[type[nn.Module], Callable[[Any], dict[str, nn.Module]]] = {
    Wolf: lambda flow: {
        "generator.flow": flow.bijection,
        "discriminator": flow.encoder,
        "discriminator.prior": flow.prior,
    },
    ResidualFlow: _residual_flow_parts,
    residual.ResidualBlock: _block_parts,
    GaussianEncoder: _encoder_parts,
    EncoderBlock: _encoder_block_parts,
    PriorFlow: _prior_parts,
    Coupling: lambda layer: {"net.fc1": layer.net[0], "net.fc2": layer.net[2], "net.fc3": layer.net[4]},
}
# The entries of a layer under their released names, if these differ from its names. An inverse that is not frozen is
# computed, so that a value copied into it has no effect.
FLOW_LAYERS: dict[type[nn.Module], Callable[[Any], dict[str, Tensor]]] = {
    WeightNormLinear: lambda layer: {
        "linear.weight_g": layer.gain,
        "linear.weight_v": layer.weight,
        "linear.bias": layer.bias,
    },
    InvertibleLinear: lambda layer: {"weight": layer.weight, "weight_inv": layer.inverse_weight()},
}
