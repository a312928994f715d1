"""Stage ``fid``: FID and KID of a run's images against the training split."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from indm.artifacts import Layout, read_array, read_json, write_json
from indm.metrics import compare, features, load_extractor
from indm.seeding import derive_seed
from indm.stages.common import set_up

if TYPE_CHECKING:
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
