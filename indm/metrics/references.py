"""Readers for the results of the ``reference`` stage: the extractor, and the references for generated images."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from indm.arrays import read_array
from indm.metrics.clean import build_clean
from indm.metrics.extractors import INCEPTION, SmallClassifier, build_extractor, build_inception
from indm.metrics.frechet import Reference
from indm.store.files import EXTRACTOR_FORMAT, STATISTICS_FORMAT, check_finite, read_weights

if TYPE_CHECKING:
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase


def load_extractors(path: Path) -> tuple["FeatureExtractorBase", Mapping[str, "FeatureExtractorBase"], dict[str, Any]]:
    """Rebuild the reference's extractor and the clean-FID extractors, if any, with their names and sha256 for results.

    Raises:
        DataError: if the extractor is an Inception network whose weights are missing or differ from the reference's weights.
        ArtifactError: if the file is damaged, or a number in it is not finite.
    """
    weights, spec = read_weights(path, EXTRACTOR_FORMAT)
    name = spec["extractor"]
    if name in INCEPTION:
        extractor, sha256 = build_inception(name, spec["weights_sha256"])
        clean, clean_sha256 = build_clean(extractor, sha256, spec["clean_weights_sha256"])
        return extractor, clean, {"extractor": name, "weights_sha256": sha256, "clean_weights_sha256": clean_sha256}
    check_finite(path, weights)
    classifier = SmallClassifier(spec["classes"], name)
    classifier.load_state_dict(weights)
    return build_extractor(name, classifier), {}, {"extractor": name}


def load_references(data: Path) -> tuple[dict[str, Reference], dict[str, Any]]:
    """Read the references in ``data``: one for each mode of clean-FID, and the main reference under the key "".

    Returns:
        The references, the main one with its features, shape (M, F), and their description for results. The main reference
        has only statistics if its file of features is empty.

    Raises:
        ArtifactError: if a file is damaged, or a number in it is not finite.
    """
    tensors, source = read_weights(data / "statistics.safetensors", STATISTICS_FORMAT)
    known = torch.from_numpy(read_array(data / "features.npy").copy())
    check_finite(data / "statistics.safetensors", tensors)
    check_finite(data / "features.npy", {"features": known})
    prefixes = {name.removesuffix("mu") for name in tensors if name.endswith("mu")}
    references = {
        prefix.removesuffix("."): Reference({key: tensors[f"{prefix}{key}"].numpy() for key in ("mu", "sigma")}, None)
        for prefix in prefixes
    }
    return references | ({"": Reference.of(known)} if len(known) else {}), source
