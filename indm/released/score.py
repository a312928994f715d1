"""Conversion of released score networks into modules of this package."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from indm.errors import ArtifactError
from indm.networks.layers import AttentionBlock, FIRDownConv, FourierFeatures, ResNetBlock
from indm.networks.registered.unet import ScoreUNet
from indm.released.checkpoint import copy_entries
from indm.released.settings import SCORE_SETTINGS, Config, complete_config, wrong_settings

SCORE_IGNORED = {"sigmas"}  # the discrete noise levels of the released network, which continuous-time runs do not read


def import_score(state_dict: Mapping[str, Tensor], config: Config) -> ScoreUNet:
    """Build the score network of a released checkpoint, in eval mode.

    Arguments:
        state_dict: entries ``all_modules.N.*`` of the released layout, with or without the prefix ``module.``; each has the
            shape of its entry in :func:`score_entries`.
        config: the released configuration as a nested mapping, with the sections data, model and training.

    Returns:
        The network of latents with shape (B, C, S, S).

    Raises:
        ArtifactError: if the configuration is not from the paper, or an entry is missing, unknown or has another shape;
            the message lists all differences.
    """
    network = ScoreUNet(**score_arguments(config))
    found = {name.removeprefix("module."): value for name, value in state_dict.items()}
    copy_entries(score_entries(network), found, SCORE_IGNORED, "score checkpoint")
    return network.eval()


def score_arguments(config: Config) -> dict[str, Any]:
    """Return the arguments of :class:`ScoreUNet` for a released configuration.

    Raises:
        ArtifactError: if the configuration is not from the paper; the message lists all differences.
    """
    try:
        config = complete_config(config)
        wrong = wrong_settings(config, SCORE_SETTINGS)
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


def score_entries(network: ScoreUNet) -> dict[str, Tensor]:
    """Return views of a network's weights under their released names.

    Returns:
        The tensors in the shapes of the released ones. The maps of attention are (in, out) matrices, shape (C, C) for C
        channels, and all other tensors have their shapes in this package.
    """
    return {
        f"all_modules.{index}.{name}": view.detach()
        for index, layer in enumerate(_released_layers(network))
        for name, view in _layer_entries(layer).items()
    }


def _released_layers(network: ScoreUNet) -> Iterator[nn.Module]:
    """Yield a network's layers in the order of the released ``all_modules``."""
    if isinstance(network.features, FourierFeatures):
        yield network.features
    yield from (network.embed_in, network.embed_out, network.conv_in)
    for stage in (*network.encoder, *network.middle, *network.decoder):
        yield from stage.children()  # block, then attention and pyramid if the stage has them
    yield from (network.norm_out, network.conv_out)


def _layer_entries(layer: nn.Module) -> dict[str, Tensor]:
    return LAYERS.get(type(layer), _plain_entries)(layer)


def _plain_entries(layer: nn.Module) -> dict[str, Tensor]:
    return dict(layer.named_parameters())


def _residual_entries(block: ResNetBlock) -> dict[str, Tensor]:
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
    """Return the released maps, (in, out) matrices; queries, keys and values are the thirds of one map here."""
    weights = [*block.qkv.weight.chunk(3), block.out.weight]
    biases = [*block.qkv.bias.chunk(3), block.out.bias]
    entries: dict[str, Tensor] = {f"GroupNorm_0.{name}": value for name, value in block.norm.named_parameters()}
    entries |= {f"NIN_{index}.W": weight.T for index, weight in enumerate(weights)}
    return entries | {f"NIN_{index}.b": bias for index, bias in enumerate(biases)}


LAYERS: dict[type[nn.Module], Callable[[Any], dict[str, Tensor]]] = {
    FourierFeatures: lambda layer: {"W": layer.frequencies},
    FIRDownConv: lambda layer: {f"Conv2d_0.{name}": value for name, value in layer.conv.named_parameters()},
    ResNetBlock: _residual_entries,
    AttentionBlock: _attention_entries,
}
