"""Settings in the paper's released configurations, which this package therefore builds in.

Layouts: "Maximum Likelihood Training of Implicit Nonlinear Diffusion Models" (Kim et al., 2022,
https://arxiv.org/abs/2205.13699), released code https://github.com/byeonghu-na/INDM.
"""

from collections.abc import Mapping
from functools import reduce
from operator import getitem
from typing import Any

Config = Mapping[str, Mapping[str, Any]]
Settings = dict[tuple[str, ...], Any]
# Settings shared by all released configurations of the paper, which this package therefore builds in.
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
# Keys that the INDM code added to the configurations of score_sde_pytorch, at the values that have no effect.
ADDED_SETTINGS: Settings = {
    ("model", "attention"): True,
    ("model", "auxiliary_resblock"): True,
    ("model", "fourier_feature"): False,
    ("training", "ddpm_score"): True,
    ("training", "unbounded_parametrization"): False,
    ("training", "truncation_time"): 1e-5,
    ("flow", "model"): "identity",
}
RESIDUAL_SETTINGS: Settings = {
    ("flow", "act_fn"): "sin",
    ("flow", "actnorm"): False,
}
FLOW_SETTINGS: dict[str, Settings] = {
    "resflow": RESIDUAL_SETTINGS,
    "wolf": RESIDUAL_SETTINGS | {("flow", "resblock_type"): "resflow", ("flow", "train_k"): 1},
}
# The released file under flow.model_config; its keys "alpha" and "dequantizer" have no effect.
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


def complete_config(config: Config) -> dict[str, dict[str, Any]]:
    """Add the keys that only the INDM code has to a configuration of score_sde_pytorch, without changing existing keys."""
    complete = {section: dict(values) for section, values in config.items() if isinstance(values, Mapping)}
    for (section, key), value in ADDED_SETTINGS.items():
        complete.setdefault(section, {}).setdefault(key, value)
    return complete


def wrong_settings(config: Mapping[str, Any], settings: Settings) -> list[str]:
    """Describe every setting whose value in a configuration differs from the expected value."""
    found = {path: plain(reduce(getitem, path, config)) for path in settings}
    return [
        f"{'.'.join(path)} is {found[path]!r}, expected {expected!r}"
        for path, expected in settings.items()
        if found[path] != expected
    ]


def plain(value: Any) -> Any:
    """Return a tuple as a list, as in JSON, and any other value as it is."""
    return list(value) if isinstance(value, tuple) else value
