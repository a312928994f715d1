"""Checkpoints of the paper's released code: their entries in, this package's modules out, and back.

Layouts: "Maximum Likelihood Training of Implicit Nonlinear Diffusion Models" (Kim et al., 2022,
https://arxiv.org/abs/2205.13699), released code https://github.com/byeonghu-na/INDM.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from indm.errors import ArtifactError
from indm.models import ScoreUNet
from indm.models.layers import AttentionBlock, FIRDownConv, FourierFeatures, ResidualBlock

Config = Mapping[str, Mapping[str, Any]]

# What every released configuration of the paper sets, and what this package therefore builds in.
SCORE_SETTINGS: dict[tuple[str, str], Any] = {
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
SCORE_IGNORED = {"sigmas"}  # the discrete noise levels of the released network, which no continuous-time run reads


def import_score(state_dict: Mapping[str, Tensor], config: Config) -> ScoreUNet:
    """Build the score network of a released checkpoint, in eval mode.

    Arguments:
        state_dict: entries ``all_modules.N.*`` of the released layout, with or without the prefix ``module.``.
        config: the released configuration as a nested mapping, with the sections data, model and training.

    Raises:
        ArtifactError: the configuration is none of the paper's, or an entry is missing, unknown or of another shape;
            the message lists every difference.
    """
    network = _build_score(config)
    found = {name.removeprefix("module."): value for name, value in state_dict.items()}
    _copy_entries(_score_entries(network), found, SCORE_IGNORED, "score checkpoint")
    return network.eval()


def export_score(network: ScoreUNet) -> dict[str, Tensor]:
    """Return a network's weights as entries ``module.all_modules.N.*`` of the released layout (copies)."""
    return {f"module.{name}": entry.clone() for name, entry in _score_entries(network).items()}


def _build_score(config: Config) -> ScoreUNet:
    try:
        found = {(section, key): config[section][key] for section, key in SCORE_SETTINGS}
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
    _check_settings(found, arguments)
    return ScoreUNet(**arguments)


def _check_settings(found: Mapping[tuple[str, str], Any], arguments: Mapping[str, Any]) -> None:
    wrong = [
        f"{section}.{key} is {found[section, key]!r}, expected {expected!r}"
        for (section, key), expected in SCORE_SETTINGS.items()
        if _plain(found[section, key]) != expected
    ]
    if arguments["progressive_input"] == "residual" and not arguments["fir"]:
        wrong.append("model.fir is False, expected True where model.progressive_input is 'residual'")
    if wrong:
        raise ArtifactError("released score configuration: " + "; ".join(wrong))


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
