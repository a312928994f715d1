"""Stage ``fid``: all metrics of a run's images, against the reference of its dataset."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from indm.artifacts import (
    EXTRACTOR_FORMAT,
    STATISTICS_FORMAT,
    Layout,
    read_array,
    read_json,
    read_weights,
    write_json,
)
from indm.metrics import (
    INCEPTION,
    NO_CLEAN,
    Reference,
    SmallClassifier,
    build_clean,
    build_extractor,
    build_inception,
    compare,
    compare_clean,
    features,
    protocol,
)
from indm.seeding import derive_seed
from indm.stages.common import set_up

if TYPE_CHECKING:
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    from indm.params import Suite


def run(suite: "Suite", layout: Layout, name: str) -> Path:
    """Write ``fid.json``."""
    device = set_up(suite.device, suite.threads)
    run, folder = suite.runs[name], layout.run(name)
    data = layout.data(run.dataset)
    extractor, clean, identity = load_extractors(data / "extractor.safetensors")
    references, source = load_references(data)
    levels, images = read_json(data / "dataset.json")["levels"], read_array(folder / "samples.npy")
    settings, seed = suite.fid.model_dump(), derive_seed(run.dataset, run.seed, "fid")
    generated, logits = features(extractor, images, levels, device=device)
    values = compare(generated, logits, references[""], **settings, seed=seed) | NO_CLEAN
    for mode, resized in clean.items():
        (generated,) = features(resized, images, levels, device=device)
        values |= compare_clean(mode, generated, references[mode], bootstrap=settings["bootstrap"], seed=seed)
    known = references[""].features
    result = {
        "run": name,
        "implementation": "torch-fidelity",
        **identity,
        "features": "float32 network, float64 statistics",
        "reference": source["reference"],
        "reference_sha256": source["reference_sha256"],
        "num_reference": None if known is None else len(known),
        "num_samples": len(images),
        "protocol": protocol(**settings),
        **values,
    }
    write_json(folder / "fid.json", result)
    return folder


def load_extractors(
    path: Path,
) -> tuple["FeatureExtractorBase", Mapping[str, "FeatureExtractorBase"], dict[str, Any]]:
    """Rebuild the extractor of the reference, those of clean-FID if there are, and what names them in a result.

    Raises:
        DataError: if it is an Inception network and its weights are missing or not those of the reference.
    """
    weights, spec = read_weights(path, EXTRACTOR_FORMAT)
    name = spec["extractor"]
    if name in INCEPTION:
        extractor, sha256 = build_inception(name, spec["weights_sha256"])
        clean, clean_sha256 = build_clean(extractor, sha256, spec["clean_weights_sha256"])
        return extractor, clean, {"extractor": name, "weights_sha256": sha256, "clean_weights_sha256": clean_sha256}
    classifier = SmallClassifier(spec["classes"])
    classifier.load_state_dict(weights)
    return build_extractor(name, classifier), {}, {"extractor": name}


def load_references(data: Path) -> tuple[dict[str, Reference], dict[str, Any]]:
    """Read what the stage reference wrote into ``data``: a reference for each mode of clean-FID, and the first one as "".

    Returns:
        The references, and what names them in a result.
    """
    tensors, source = read_weights(data / "statistics.safetensors", STATISTICS_FORMAT)
    known = torch.from_numpy(read_array(data / "features.npy").copy())
    prefixes = {name.removesuffix("mu") for name in tensors if name.endswith("mu")}
    references = {
        prefix.removesuffix("."): Reference({key: tensors[f"{prefix}{key}"].numpy() for key in ("mu", "sigma")}, None)
        for prefix in prefixes
    }
    return references | ({"": Reference.of(known)} if len(known) else {}), source
