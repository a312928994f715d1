"""Stage ``reference``: the feature extractor of a dataset, its reference features and the floors of FID and KID."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from indm.artifacts import EXTRACTOR_FORMAT, Layout, read_array, read_json, write_array, write_json, write_weights
from indm.data import to_uint8
from indm.metrics import (
    SmallClassifier,
    accuracy,
    build_extractor,
    build_inception,
    compare,
    features,
    halves,
    train_classifier,
)
from indm.seeding import derive_seed
from indm.stages.common import bar, read_labels, set_up

if TYPE_CHECKING:
    from torch import Tensor
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    from indm.params import ClassifierParams, Suite


def run(suite: "Suite", layout: Layout, name: str) -> Path:
    """Write ``extractor.safetensors``, ``features.npy`` (of the training split) and ``reference.json``."""
    device = set_up(suite.device, suite.threads)
    folder, parameters = layout.data(name), suite.reference[name]
    levels = read_json(folder / "dataset.json")["levels"]
    test_accuracy = None
    if parameters.classifier is None:
        extractor, identity = _inception(folder, parameters.extractor)
    else:
        extractor, identity, test_accuracy = _classifier(folder, name, parameters.extractor, parameters.classifier)
    train, test = (
        features(extractor, read_array(folder / f"{split}.npy"), levels, device=device) for split in ("train", "test")
    )
    write_array(folder / "features.npy", train.numpy())
    result = {
        "dataset": name,
        "implementation": "torch-fidelity",
        **identity,
        "features": "float32 network, float64 statistics",
        "reference": "train",
        "num_reference": len(train),
        "test_accuracy": test_accuracy,
        "floors": _floors(train, test, suite.fid.model_dump(), (name, "reference")),
    }
    write_json(folder / "reference.json", result)
    return folder


def _inception(folder: Path, extractor: str) -> tuple["FeatureExtractorBase", dict[str, Any]]:
    """Build an Inception extractor, and write which weights it has instead of the weights."""
    built, sha256 = build_inception(extractor)
    identity = {"extractor": extractor, "weights_sha256": sha256}
    write_weights(folder / "extractor.safetensors", {}, identity, EXTRACTOR_FORMAT)
    return built, identity


def _classifier(
    folder: Path, name: str, extractor: str, parameters: "ClassifierParams"
) -> tuple["FeatureExtractorBase", dict[str, Any], float]:
    """Train a classifier on the training split, write it, and measure its accuracy on the test split."""
    description, seed = read_json(folder / "dataset.json"), (name, "reference")
    images, labels = {}, {}
    for split in ("train", "test"):
        images[split] = torch.from_numpy(to_uint8(read_array(folder / f"{split}.npy"), description["levels"]))
        labels[split] = read_labels(folder, split)
    torch.manual_seed(derive_seed(*seed, "initialisation"))
    classifier = SmallClassifier(description["classes"])
    train_classifier(
        classifier,
        images["train"],
        labels["train"],
        steps=parameters.steps,
        batch_size=parameters.batch_size,
        lr=parameters.lr,
        seed=(*seed, "batches"),
        progress=bar(extractor),
    )
    identity = {"extractor": extractor}
    spec = {**identity, "classes": description["classes"]}
    write_weights(folder / "extractor.safetensors", classifier.state_dict(), spec, EXTRACTOR_FORMAT)
    test_accuracy = accuracy(classifier, images["test"], labels["test"])
    return build_extractor(extractor, classifier), identity, test_accuracy


def _floors(
    train: "Tensor", test: "Tensor", settings: dict[str, Any], seed: tuple[str, ...]
) -> dict[str, dict[str, float]]:
    """Compare real images with real images: the test split with the training split, and the latter's halves."""
    first, second = halves(len(train), derive_seed(*seed, "halves"))
    settings = {**settings, "seed": derive_seed(*seed, "compare")}
    return {
        "test": {"num_samples": len(test)} | compare(test, train, **settings),
        "train-halves": {"num_samples": len(first)} | compare(train[first], train[second], **settings),
    }
