"""Stage ``fid``: FID and KID of a run's images against the training split."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from indm.artifacts import EXTRACTOR_FORMAT, Layout, read_array, read_json, read_weights, write_json
from indm.metrics import INCEPTION, SmallClassifier, build_extractor, build_inception, compare, features
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
    extractor, identity = load_extractor(data / "extractor.safetensors")
    levels = read_json(data / "dataset.json")["levels"]
    generated = features(extractor, read_array(folder / "samples.npy"), levels, device=device)
    reference = torch.from_numpy(read_array(data / "features.npy").copy())
    seed = derive_seed(run.dataset, run.seed, "fid")
    result = {
        "run": name,
        "implementation": "torch-fidelity",
        **identity,
        "features": "float32 network, float64 statistics",
        "reference": "train",
        "num_reference": len(reference),
        "num_samples": len(generated),
        **compare(generated, reference, **suite.fid.model_dump(), seed=seed),
    }
    write_json(folder / "fid.json", result)
    return folder


def load_extractor(path: Path) -> tuple["FeatureExtractorBase", dict[str, Any]]:
    """Rebuild the extractor of the reference, and what names it in a result.

    Raises:
        DataError: if it is an Inception network and its weights are missing or not those of the reference.
    """
    weights, spec = read_weights(path, EXTRACTOR_FORMAT)
    name = spec["extractor"]
    if name in INCEPTION:
        extractor, sha256 = build_inception(name, spec["weights_sha256"])
        return extractor, {"extractor": name, "weights_sha256": sha256}
    classifier = SmallClassifier(spec["classes"])
    classifier.load_state_dict(weights)
    return build_extractor(name, classifier), {"extractor": name}
