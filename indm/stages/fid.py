"""Stage ``fid``: FID and KID of a run's images against the training split."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from indm.artifacts import EXTRACTOR_FORMAT, Layout, read_array, read_json, read_weights, write_json
from indm.data import to_uint8
from indm.metrics import SmallClassifier, build_extractor, compare, features
from indm.seeding import derive_seed
from indm.stages.common import set_up

if TYPE_CHECKING:
    from indm.params import Suite


def run(suite: "Suite", layout: Layout, name: str) -> Path:
    """Write ``fid.json``."""
    set_up(suite.device, suite.threads)
    run, folder = suite.runs[name], layout.run(name)
    data = layout.data(run.dataset)
    weights, spec = read_weights(data / "extractor.safetensors", EXTRACTOR_FORMAT)
    classifier = SmallClassifier(spec["classes"])
    classifier.load_state_dict(weights)
    levels = read_json(data / "dataset.json")["levels"]
    images = to_uint8(read_array(folder / "samples.npy"), levels)
    reference = torch.from_numpy(read_array(data / "features.npy").copy())
    generated = features(build_extractor(spec["extractor"], classifier), images)
    seed = derive_seed(run.dataset, run.seed, "fid")
    result = {
        "run": name,
        "implementation": "torch-fidelity",
        "extractor": spec["extractor"],
        "features": "float32 network, float64 statistics",
        "reference": "train",
        "num_reference": len(reference),
        "num_samples": len(images),
        **compare(generated, reference, **suite.fid.model_dump(), seed=seed),
    }
    write_json(folder / "fid.json", result)
    return folder
