"""Stage ``prepare``: a dataset's arrays and their description."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from indm.artifacts import Layout, write_array, write_json
from indm.data import DATASETS, SPLITS
from indm.errors import DataError

if TYPE_CHECKING:
    from indm.params import Suite


def run(suite: "Suite", layout: Layout, name: str) -> Path:
    """Write ``train.npy``, ``valid.npy``, ``test.npy``, ``labels.json`` and ``dataset.json``."""
    if name not in DATASETS:
        raise DataError(f"dataset {name}: has no loader in this release; expected one of {', '.join(DATASETS)}")
    dataset, folder, seed = DATASETS[name], layout.data(name), suite.datasets[name].split_seed
    arrays = dataset.load(seed)
    dataset.check(arrays)
    for split in SPLITS:
        write_array(folder / f"{split}.npy", arrays[split])
    write_json(folder / "labels.json", {split: arrays[f"{split}_labels"].tolist() for split in SPLITS})
    description = {
        "dataset": name,
        "levels": dataset.levels,
        "shape": [dataset.channels, dataset.image_size, dataset.image_size],
        "classes": dataset.classes,
        "split_seed": seed,
        "counts": {split: len(arrays[split]) for split in SPLITS},
        "sha256": {split: hashlib.sha256(arrays[split].tobytes()).hexdigest() for split in SPLITS},
        "source": dataset.source,
        "licence": dataset.licence,
    }
    write_json(folder / "dataset.json", description)
    return folder
