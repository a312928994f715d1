"""Checkpoints of the paper's released code: their entries in, this package's modules out, and back.

Layouts: "Maximum Likelihood Training of Implicit Nonlinear Diffusion Models" (Kim et al., 2022,
https://arxiv.org/abs/2205.13699), released code https://github.com/byeonghu-na/INDM.
"""

import pickle
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from indm.errors import ArtifactError
from indm.flows import Flow, Identity, ResidualFlow, Wolf, build_flow, residual
from indm.flows.encoder import EncoderBlock, GaussianEncoder, WeightNormLinear
from indm.flows.prior import Coupling, InvertibleLinear, PriorFlow
from indm.models import ScoreUNet
from indm.models.layers import AttentionBlock, FIRDownConv, FourierFeatures, ResidualBlock

Config = Mapping[str, Mapping[str, Any]]
Settings = dict[tuple[str, ...], Any]

# What every released configuration of the paper sets, and what this package therefore builds in.
SCORE_SETTINGS: Settings = {
    ("model", "name"): "ncsnpp",
    ("model", "nonlinearity"): "swish",
    ("model", "conditional"): True,
    ("model", "attention"): True,
    ("model", "resblock_type"): "biggan",
    ("model", "auxiliary_resblock"): True,
    ("model", "skip_rescale"): True,
    ("model", "progressive"): "none",
    ("model", "fourier_feature"): False,
    ("model", "fir_kernel"): [1, 3, 3, 1],
    ("training", "continuous"): True,
    ("training", "ddpm_score"): True,
    ("training", "unbounded_parametrization"): False,
}
# Keys that the INDM code added to the configurations of score_sde_pytorch, at the values that change nothing.
ADDED_SETTINGS: Settings = {
    ("model", "attention"): True,
    ("model", "auxiliary_resblock"): True,
    ("model", "fourier_feature"): False,
    ("training", "ddpm_score"): True,
    ("training", "unbounded_parametrization"): False,
    ("training", "truncation_time"): 1e-5,
    ("flow", "model"): "identity",
}
SCORE_IGNORED = {"sigmas"}  # the discrete noise levels of the released network, which no continuous-time run reads

RESIDUAL_SETTINGS: Settings = {
    ("flow", "act_fn"): "sin",
    ("flow", "actnorm"): False,
}
FLOW_SETTINGS: dict[str, Settings] = {
    "resflow": RESIDUAL_SETTINGS,
    "wolf": RESIDUAL_SETTINGS | {("flow", "resblock_type"): "resflow", ("flow", "train_k"): 1},
}
# The released file under flow.model_config; its keys "alpha" and "dequantizer" change nothing.
WOLF_SETTINGS: Settings = {
    ("generator", "flow", "type"): "resflow",
    ("discriminator", "type"): "gaussian",
    ("discriminator", "dim"): 64,  # also written into the released residual blocks
    ("discriminator", "encoder", "type"): "global_resnet_bn",
    ("discriminator", "encoder", "activation"): "elu",
    ("discriminator", "prior", "type"): "flow",
    ("discriminator", "prior", "in_features"): 64,
    ("discriminator", "prior", "activation"): "elu",
    ("discriminator", "prior", "transform"): "affine",
    ("discriminator", "prior", "coupling_type"): "mlp",
}
# Last parts of released names: two numbers per block that say how many terms of the series are drawn and never change, and
# records of the last call.
FLOW_IGNORED = {"geom_p", "lamb", "last_n_samples", "last_firmom", "last_secmom", "scale"}


CHECKPOINT_KEYS = ("model", "ema", "step")
# Released entries that are no trained parameters, by the last part of their names; the averaged weights leave them out.
NOT_AVERAGED = {
    "sigmas",
    "last_n_samples",
    "last_firmom",
    "last_secmom",
    "scale",
    "running_mean",
    "running_var",
    "num_batches_tracked",
    "weight_inv",
    "initialized",
}
# The fixed Fourier frequencies: a parameter without gradient.
FOURIER = "all_modules.0.W"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a released ``checkpoint_k.pth`` or ``flow_checkpoint_k.pth`` without executing anything in it.

    Arguments:
        path: a file of score_sde_pytorch or of the released INDM code.

    Returns:
        Its content: ``model`` (a state dict), ``ema`` (with ``shadow_params``), ``step``, and more.

    Raises:
        ArtifactError: if the file is missing, truncated, holds more than tensors and plain values, or lacks a key.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: missing; expected a released checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ArtifactError(f"{path}: refused, nothing in it was executed: {reason}") from None
    if not isinstance(content, dict) or any(key not in content for key in CHECKPOINT_KEYS):
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ArtifactError(f"{path}: found {found}, expected the keys {', '.join(CHECKPOINT_KEYS)}")
    return content


def averaged_state(checkpoint: Mapping[str, Any], what: str) -> dict[str, Tensor]:
    """Put the averaged weights of a checkpoint, a list without names, in the places of its trained parameters.

    Arguments:
        checkpoint: content of :func:`read_checkpoint`.
        what: what the checkpoint is, for the message.

    Returns:
        A state dict in the released layout.

    Raises:
        ArtifactError: if the list does not fit the parameters in number and shapes.
    """
    state = dict(checkpoint["model"])
    shadow = checkpoint["ema"].get("shadow_params") if isinstance(checkpoint["ema"], Mapping) else None
    if shadow is None:
        raise ArtifactError(f"{what}: ema holds no shadow_params, expected the list of averaged weights")
    fixed = {FOURIER, f"module.{FOURIER}"}
    names = [name for name in state if name.rpartition(".")[2] not in NOT_AVERAGED and name not in fixed]
    if len(names) != len(shadow):
        raise ArtifactError(
            f"{what}: found {len(shadow)} averaged weights, expected {len(names)}, one for each parameter"
        )
    for name, value in zip(names, shadow, strict=True):
        if value.shape != state[name].shape:
            found, expected = tuple(value.shape), tuple(state[name].shape)
            raise ArtifactError(f"{what}: the averaged weight of {name} is {found}, expected {expected}")
        state[name] = value
    return state


def import_score(state_dict: Mapping[str, Tensor], config: Config) -> ScoreUNet:
    """Build the score network of a released checkpoint, in eval mode.

    Arguments:
        state_dict: entries ``all_modules.N.*`` of the released layout, with or without the prefix ``module.``.
        config: the released configuration as a nested mapping, with the sections data, model and training.

    Raises:
        ArtifactError: the configuration is none of the paper's, or an entry is missing, unknown or of another shape;
            the message lists every difference.
    """
    network = ScoreUNet(**score_arguments(config))
    found = {name.removeprefix("module."): value for name, value in state_dict.items()}
    _copy_entries(_score_entries(network), found, SCORE_IGNORED, "score checkpoint")
    return network.eval()


def export_score(network: ScoreUNet) -> dict[str, Tensor]:
    """Return a network's weights as entries ``module.all_modules.N.*`` of the released layout (copies)."""
    return {f"module.{name}": entry.clone() for name, entry in _score_entries(network).items()}


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
            ``flow_checkpoint_k.pth``; for ``"resflow"`` ``transforms.*``, for ``"wolf"`` ``generator.*`` and
            ``discriminator.*``, for ``"identity"`` none.
        config: the released configuration as a nested mapping, with the sections data and flow.
        wolf_config: the released file under ``flow.model_config``; the paper's if None.
        frozen_prior_inverse: whether a wolf flow draws h as the released code does, with the checkpoint's own
            ``weight_inv``, which are the inverses that the prior's linear maps had before training.

    Raises:
        ArtifactError: the configuration is none of the paper's, or an entry is missing, unknown or of another shape;
            the message lists every difference.
    """
    flow = _build_flow(config, wolf_config, frozen_prior_inverse=frozen_prior_inverse)
    found = {name.removeprefix("module."): value for name, value in state_dict.items()}
    ignored = {name for name in found if name.rpartition(".")[2] in FLOW_IGNORED}
    _copy_entries(_flow_entries(flow), found, ignored, "flow checkpoint")
    return flow.eval()


def export_flow(flow: Flow) -> dict[str, Tensor]:
    """Return a flow's weights and running statistics as entries ``module.*`` of the released layout (copies).

    The numbers of the released layout that no computation reads (``geom_p``, ``scale``, ...) are left out.
    """
    return {f"module.{name}": entry.clone() for name, entry in _flow_entries(flow).items()}


def complete_config(config: Config) -> dict[str, dict[str, Any]]:
    """Add to a configuration of score_sde_pytorch the keys that only the INDM code has; change no key that is there."""
    complete = {section: dict(values) for section, values in config.items() if isinstance(values, Mapping)}
    for (section, key), value in ADDED_SETTINGS.items():
        complete.setdefault(section, {}).setdefault(key, value)
    return complete


def score_arguments(config: Config) -> dict[str, Any]:
    """Return the arguments of :class:`ScoreUNet` that a released configuration stands for.

    Raises:
        ArtifactError: the configuration is none of the paper's; the message lists every difference.
    """
    try:
        config = complete_config(config)
        wrong = _wrong_settings(config, SCORE_SETTINGS)
        data, model = config["data"], config["model"]
        arguments = {
            "channels_in": data["num_channels"],
            "image_size": data["image_size"],
            "channels": model["nf"],
            "multipliers": tuple(model["ch_mult"]),
            "blocks": model["num_res_blocks"],
            "attention_resolutions": tuple(model["attn_resolutions"]),
            "dropout": model["dropout"],
            "embedding": model["embedding_type"],
            "fourier_scale": float(model["fourier_scale"]),
            "fir": model["fir"],
            "progressive_input": model["progressive_input"],
            "scale_by_sigma": model["scale_by_sigma"],
            "centered": data["centered"],
        }
    except KeyError as error:
        raise ArtifactError(f"released score configuration: found no key {error.args[0]!r}") from error
    if arguments["progressive_input"] == "residual" and not arguments["fir"]:
        wrong.append("model.fir is False, expected True where model.progressive_input is 'residual'")
    if wrong:
        raise ArtifactError("released score configuration: " + "; ".join(wrong))
    return arguments


def _build_flow(config: Config, wolf_config: Mapping[str, Any] | None, *, frozen_prior_inverse: bool) -> Flow:
    try:
        model, shape = config["flow"]["model"], (config["data"]["num_channels"], config["data"]["image_size"])
        if model == "identity":
            return Identity(*shape)
        if model not in FLOW_SETTINGS:
            raise ArtifactError(f"flow.model is {model!r}, expected one of identity, {', '.join(FLOW_SETTINGS)}")
        wrong = _wrong_settings(config, FLOW_SETTINGS[model])
        arguments = _residual_arguments(config, wrong)
        if model == "wolf":
            arguments["frozen_prior_inverse"] = frozen_prior_inverse
            arguments |= {} if wolf_config is None else _wolf_arguments(config, wolf_config, wrong)
    except KeyError as error:
        raise ArtifactError(f"released flow configuration: found no key {error.args[0]!r}") from error
    if wrong:
        raise ArtifactError("released flow configuration: " + "; ".join(wrong))
    return build_flow(model, channels_in=shape[0], image_size=shape[1], **arguments)


def _residual_arguments(config: Config, wrong: list[str]) -> dict[str, Any]:
    """Return arguments of a residual flow; squeezing the image first is a full resolution without blocks."""
    flow = config["flow"]
    blocks = tuple(int(count) for count in flow["nblocks"].split("-"))
    if len(blocks) != 2:  # the released output order is right for two scales only
        wrong.append(f"flow.nblocks is {flow['nblocks']!r}, expected two numbers such as '16-16'")
    return {"blocks": (0, *blocks) if flow["squeeze"] else blocks, "width": flow["intermediate_dim"]}


def _wolf_arguments(config: Config, wolf_config: Mapping[str, Any], wrong: list[str]) -> dict[str, Any]:
    """Return arguments of encoder and prior; a size in the file that follows from another must agree with it."""
    encoder, prior = wolf_config["discriminator"]["encoder"], wolf_config["discriminator"]["prior"]
    levels, squeeze = len(encoder["hidden_planes"]), 2 if config["flow"]["squeeze"] else 1
    size = -(-config["data"]["image_size"] // (squeeze * 2**levels))
    sizes: Settings = {
        ("discriminator", "in_dim"): encoder["out_planes"] * size**2,
        ("discriminator", "encoder", "levels"): levels,
        ("discriminator", "encoder", "in_planes"): config["data"]["num_channels"] * squeeze**2,
    }
    wrong += _wrong_settings(wolf_config, WOLF_SETTINGS | sizes)
    return {
        "encoder_widths": tuple(encoder["hidden_planes"]),
        "encoder_channels_out": encoder["out_planes"],
        "prior_steps": prior["num_steps"],
        "prior_width": prior["hidden_features"],
    }


def _wrong_settings(config: Mapping[str, Any], settings: Settings) -> list[str]:
    found = {path: _plain(reduce(getitem, path, config)) for path in settings}
    return [
        f"{'.'.join(path)} is {found[path]!r}, expected {expected!r}"
        for path, expected in settings.items()
        if found[path] != expected
    ]


def _plain(value: Any) -> Any:  # noqa: ANN401
    return list(value) if isinstance(value, tuple) else value


def _copy_entries(entries: dict[str, Tensor], found: Mapping[str, Tensor], ignored: set[str], what: str) -> None:
    """Copy every found value into the entry of its name, or raise one ArtifactError that lists every difference."""
    differences = [f"missing {name}, expected {tuple(entries[name].shape)}" for name in entries if name not in found]
    for name, value in found.items():
        if name in entries and value.shape != entries[name].shape:
            differences.append(f"{name} is {tuple(value.shape)}, expected {tuple(entries[name].shape)}")
        elif name not in entries and name not in ignored:
            differences.append(f"unknown {name}, found {tuple(value.shape)}")
    if differences:
        raise ArtifactError(f"{what} does not fit its configuration: " + "; ".join(differences))
    for name, entry in entries.items():
        entry.copy_(found[name])


def _score_entries(network: ScoreUNet) -> dict[str, Tensor]:
    """Name views of a network's weights as the released code names them, so that one table serves both directions."""
    return {
        f"all_modules.{index}.{name}": view.detach()
        for index, layer in enumerate(_released_layers(network))
        for name, view in _layer_entries(layer).items()
    }


def _released_layers(network: ScoreUNet) -> Iterator[nn.Module]:
    """Walk through a network's layers in the order of the released ``all_modules``."""
    if isinstance(network.features, FourierFeatures):
        yield network.features
    yield from (network.embed_in, network.embed_out, network.conv_in)
    for stage in (*network.encoder, *network.middle, *network.decoder):
        yield from stage.children()  # block, attention, pyramid: those that the stage has
    yield from (network.norm_out, network.conv_out)


def _layer_entries(layer: nn.Module) -> dict[str, Tensor]:
    return LAYERS.get(type(layer), _plain_entries)(layer)


def _plain_entries(layer: nn.Module) -> dict[str, Tensor]:
    return dict(layer.named_parameters())


def _residual_entries(block: ResidualBlock) -> dict[str, Tensor]:
    parts: dict[str, nn.Module] = {
        "GroupNorm_0": block.norm_in,
        "Conv_0": block.conv_in,
        "Dense_0": block.shift,
        "GroupNorm_1": block.norm_out,
        "Conv_1": block.conv_out,
        "Conv_2": block.shortcut,
    }
    return {f"{part}.{name}": value for part, module in parts.items() for name, value in module.named_parameters()}


def _attention_entries(block: AttentionBlock) -> dict[str, Tensor]:
    """The released maps are (in, out) matrices; queries, keys and values are the thirds of one map here."""
    weights = [*block.qkv.weight.chunk(3), block.out.weight]
    biases = [*block.qkv.bias.chunk(3), block.out.bias]
    entries: dict[str, Tensor] = {f"GroupNorm_0.{name}": value for name, value in block.norm.named_parameters()}
    entries |= {f"NIN_{index}.W": weight.T for index, weight in enumerate(weights)}
    return entries | {f"NIN_{index}.b": bias for index, bias in enumerate(biases)}


LAYERS: dict[type[nn.Module], Callable[[Any], dict[str, Tensor]]] = {
    FourierFeatures: lambda layer: {"W": layer.frequencies},
    FIRDownConv: lambda layer: {f"Conv2d_0.{name}": value for name, value in layer.conv.named_parameters()},
    ResidualBlock: _residual_entries,
    AttentionBlock: _attention_entries,
}


def _flow_entries(module: nn.Module) -> dict[str, Tensor]:
    """Name views of a flow's weights and running statistics as the released code names them."""
    if entries := FLOW_LAYERS.get(type(module)):
        return {name: entry.detach() for name, entry in entries(module).items()}
    parts = FLOW_PARTS.get(type(module))
    if parts is None:
        return module.state_dict()
    nested = {name: _flow_entries(part) for name, part in parts(module).items()}
    return {f"{name}.{key}": entry for name, entries in nested.items() for key, entry in entries.items()}


def _residual_flow_parts(flow: ResidualFlow) -> dict[str, nn.Module]:
    blocks = list(flow.named_blocks())
    first = blocks[0][1]  # the released code counts from the first scale that has blocks
    return {f"transforms.{scale - first}.chain.{name.split('.')[-1]}": block for name, scale, block in blocks}


def _block_parts(block: residual.ResidualBlock) -> dict[str, nn.Module]:
    """A leading activation takes one place in the released list."""
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


# The parts of a module of this package, under their released names.
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
# The entries of a layer, under their released names, where these are not its own. An inverse that is not frozen is
# computed: a value copied into it changes nothing.
FLOW_LAYERS: dict[type[nn.Module], Callable[[Any], dict[str, Tensor]]] = {
    WeightNormLinear: lambda layer: {
        "linear.weight_g": layer.gain,
        "linear.weight_v": layer.weight,
        "linear.bias": layer.bias,
    },
    InvertibleLinear: lambda layer: {"weight": layer.weight, "weight_inv": layer.inverse_weight()},
}
