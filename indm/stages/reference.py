"""Stage ``reference``: the feature extractor of a dataset, its reference features and the floors of FID and KID."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from indm.artifacts import EXTRACTOR_FORMAT, Layout, read_json, write_array, write_json, write_weights
from indm.data import to_uint8
from indm.errors import IndmError
from indm.metrics import (
    EXTRACTORS,
    SmallClassifier,
    accuracy,
    build_extractor,
    compare,
    features,
    halves,
    train_classifier,
)
from indm.seeding import derive_seed
from indm.stages.common import bar, read_labels, read_split, set_up

if TYPE_CHECKING:
    from indm.params import Suite


def run(suite: "Suite", layout: Layout, name: str) -> Path:
    """Write ``extractor.safetensors``, ``features.npy`` (of the training split) and ``reference.json``."""
    set_up(suite.device, suite.threads)
    folder, parameters = layout.data(name), suite.reference[name]
    description, training = read_json(folder / "dataset.json"), parameters.classifier
    if training is None:
        raise IndmError(
            f"extractor {parameters.extractor}: not in this release; expected one of {', '.join(EXTRACTORS)}"
        )
    images = {split: to_uint8(read_split(folder, split).numpy(), description["levels"]) for split in ("train", "test")}
    labels = {split: read_labels(folder, split) for split in ("train", "test")}

    seed = (name, "reference")
    torch.manual_seed(derive_seed(*seed, "initialisation"))
    classifier = SmallClassifier(description["classes"])
    train_classifier(
        classifier,
        torch.from_numpy(images["train"]),
        labels["train"],
        steps=training.steps,
        batch_size=training.batch_size,
        lr=training.lr,
        seed=(*seed, "batches"),
        progress=bar(parameters.extractor),
    )
    spec = {"extractor": parameters.extractor, "classes": description["classes"]}
    write_weights(folder / "extractor.safetensors", classifier.state_dict(), spec, EXTRACTOR_FORMAT)

    extractor = build_extractor(parameters.extractor, classifier)
    train, test = features(extractor, images["train"]), features(extractor, images["test"])
    write_array(folder / "features.npy", train.numpy())
    first, second = halves(len(train), derive_seed(*seed, "halves"))
    settings = suite.fid.model_dump() | {"seed": derive_seed(*seed, "compare")}
    result = {
        "dataset": name,
        "implementation": "torch-fidelity",
        "extractor": parameters.extractor,
        "features": "float32 network, float64 statistics",
        "reference": "train",
        "num_reference": len(train),
        "test_accuracy": accuracy(classifier, torch.from_numpy(images["test"]), labels["test"]),
        "floors": {
            "test": {"num_samples": len(test)} | compare(test, train, **settings),
            "train-halves": {"num_samples": len(first)} | compare(train[first], train[second], **settings),
        },
    }
    write_json(folder / "reference.json", result)
    return folder
