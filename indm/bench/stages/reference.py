"""Stage ``reference``: a dataset's feature extractor, its reference features and the floors of all metrics."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from indm.arrays import read_array, write_array
from indm.data.levels import to_uint8
from indm.errors import ArtifactError
from indm.metrics.clean import build_clean
from indm.metrics.compare import NO_CLEAN, compare, compare_clean, halves, protocol
from indm.metrics.extractors import (
    INCEPTION_FEATURES,
    SmallClassifier,
    accuracy,
    build_extractor,
    build_inception,
    train_classifier,
)
from indm.metrics.features import features
from indm.metrics.frechet import Reference, statistics
from indm.metrics.published import read_published_statistics
from indm.process import set_up
from indm.progress import bar
from indm.seeding import derive_seed
from indm.store.files import AGAIN, EXTRACTOR_FORMAT, STATISTICS_FORMAT, read_json, write_json, write_weights
from indm.store.layout import Layout
from indm.store.provenance import Finished

if TYPE_CHECKING:
    from torch import Tensor
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    from indm.bench.suite.schema.evaluation import ClassifierParams, PublishedParams
    from indm.bench.suite.schema.suite import Suite


Floors = dict[str, dict[str, Any]]


def run(suite: "Suite", layout: Layout, name: str) -> Finished:
    """Write ``extractor.safetensors``, ``features.npy``, ``statistics.safetensors`` and ``reference.json``."""
    device = set_up(suite.device, suite.threads)
    folder, parameters, settings = layout.data(name), suite.reference[name], suite.fid.model_dump()
    published, source = _published(parameters.published_statistics)
    clean: Mapping[str, FeatureExtractorBase] = {}
    test_accuracy = None
    if parameters.classifier is None:
        extractor, clean, identity = _inception(folder, parameters.extractor)
    else:
        extractor, identity, test_accuracy = _classifier(folder, name, parameters.extractor, parameters.classifier)
    reference, floors = _measure(extractor, folder, published, settings, (name, "reference"), device)
    tensors = {} if reference.features is not None else _tensors(reference, "")
    for mode, resized in clean.items():
        reference_clean, found = _measure_clean(mode, resized, folder, settings, (name, "reference"), device)
        tensors |= _tensors(reference_clean, f"{mode}.")
        floors = {floor: floors[floor] | found[floor] for floor in floors}
    known = torch.empty(0, INCEPTION_FEATURES) if reference.features is None else reference.features
    write_array(folder / "features.npy", known.numpy())
    write_weights(folder / "statistics.safetensors", tensors, source, STATISTICS_FORMAT)
    result = {
        "dataset": name,
        "implementation": "torch-fidelity",
        **identity,
        "features": "float32 network, float64 statistics",
        **source,
        "num_reference": len(known) or None,
        "protocol": protocol(**settings),
        "test_accuracy": test_accuracy,
        "floors": floors,
    }
    write_json(folder / "reference.json", result)
    return Finished(folder)


def _published(parameters: "PublishedParams | None") -> tuple[Reference | None, dict[str, str | None]]:
    """Read the published statistics, if the suite names some, and describe the source of the reference."""
    source: dict[str, str | None] = {"reference": "train", "reference_sha256": None}
    if parameters is None:
        return None, source
    source = {"reference": f"published: {Path(parameters.path).name}", "reference_sha256": parameters.sha256}
    return read_published_statistics(parameters.path, parameters.sha256, INCEPTION_FEATURES), source


def _inception(
    folder: Path, extractor: str
) -> tuple["FeatureExtractorBase", Mapping[str, "FeatureExtractorBase"], dict[str, Any]]:
    """Build the Inception extractors, and write the sha256 of their weights instead of the weights."""
    built, sha256 = build_inception(extractor)
    clean, clean_sha256 = build_clean(built, sha256)
    identity = {"extractor": extractor, "weights_sha256": sha256, "clean_weights_sha256": clean_sha256}
    write_weights(folder / "extractor.safetensors", {}, identity, EXTRACTOR_FORMAT)
    return built, clean, identity


def _classifier(
    folder: Path, name: str, extractor: str, parameters: "ClassifierParams"
) -> tuple["FeatureExtractorBase", dict[str, Any], float]:
    """Train a classifier on the training split, write it, and measure its accuracy on the test split."""
    description, seed = read_json(folder / "dataset.json"), (name, "reference")
    images, labels = {}, {}
    for split in ("train", "test"):
        images[split] = torch.from_numpy(to_uint8(read_array(folder / f"{split}.npy"), description["levels"]))
        labels[split] = _labels(folder, split, len(images[split]), description["classes"])
    torch.manual_seed(derive_seed(*seed, "initialisation"))
    classifier = SmallClassifier(description["classes"], extractor)
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


def _labels(folder: Path, split: str, count: int, classes: int) -> "Tensor":
    """Read a split's labels, int64, shape (N,).

    Raises:
        ArtifactError: if the number of labels differs from the number of images, or a label is not a class of the dataset.
    """
    found = read_json(folder / "labels.json").get(split)
    if not isinstance(found, list) or not all(type(label) is int and 0 <= label < classes for label in found):
        found = []
    if len(found) != count:
        raise ArtifactError(
            f"{folder / 'labels.json'}: key {split}: found {len(found)} labels, expected {count} from 0 to {classes - 1}; {AGAIN}"
        )
    return torch.tensor(found, dtype=torch.int64)


def _measure(
    extractor: "FeatureExtractorBase",
    folder: Path,
    published: Reference | None,
    settings: dict[str, Any],
    seed: tuple[str, ...],
    device: torch.device,
) -> tuple[Reference, Floors]:
    """Return the reference, and the scores of real images: the test split, and two halves of the training split."""
    (train, logits), (test, test_logits) = _splits(extractor, folder, device)
    reference = published or Reference.of(train)
    first, second = halves(len(train), derive_seed(*seed, "halves"))
    settings = {**settings, "seed": derive_seed(*seed, "compare")}
    floors = {
        "test": compare(test, test_logits, reference, **settings),
        "train-halves": compare(train[first], logits[first], Reference.of(train[second]), **settings),
    }
    counts = {"test": len(test), "train-halves": len(first)}
    return reference, {floor: {"num_samples": counts[floor]} | floors[floor] | NO_CLEAN for floor in floors}


def _measure_clean(
    mode: str,
    extractor: "FeatureExtractorBase",
    folder: Path,
    settings: dict[str, Any],
    seed: tuple[str, ...],
    device: torch.device,
) -> tuple[Reference, Floors]:
    """Return the same for a mode of clean-FID, whose reference is always the training split."""
    (train,), (test,) = _splits(extractor, folder, device)
    reference = Reference(statistics(train), None)
    first, second = halves(len(train), derive_seed(*seed, "halves"))
    settings = {"bootstrap": settings["bootstrap"], "seed": derive_seed(*seed, "compare")}
    return reference, {
        "test": compare_clean(mode, test, reference, **settings),
        "train-halves": compare_clean(mode, train[first], Reference.of(train[second]), **settings),
    }


def _splits(extractor: "FeatureExtractorBase", folder: Path, device: torch.device) -> list[tuple["Tensor", ...]]:
    """Extract the layers of an extractor for the training and the test split."""
    levels = read_json(folder / "dataset.json")["levels"]
    return [
        features(extractor, read_array(folder / f"{split}.npy"), levels, device=device) for split in ("train", "test")
    ]


def _tensors(reference: Reference, prefix: str) -> dict[str, "Tensor"]:
    """Return the statistics of a reference, float64, under their names in ``statistics.safetensors``."""
    return {f"{prefix}{key}": torch.from_numpy(value) for key, value in reference.statistics.items()}
