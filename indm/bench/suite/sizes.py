"""Requirements of a suite on its datasets: enough images for each stage, and images that its networks and flows can halve.

Datasets state their number of images, except some for which it is known only after they are prepared. The check imports their
modules and NumPy, which a job may not do before it has limited its threads, so the check is done before the first job.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from indm.bench.suite.rules import shards, told_once
from indm.errors import ParamsError
from indm.registry import DATASETS

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite
    from indm.bench.suite.schema.train import TrainParams
    from indm.data.dataset import Dataset


def sizes(suite: "Suite", cells: Mapping[str, str]) -> Iterator[str]:
    """List the mistakes about numbers and sizes of images of a suite without other mistakes."""
    datasets: dict[str, Dataset] = {}
    for name, section in suite.datasets.items():
        try:
            datasets[name] = DATASETS[name].holding_out(section.validation)
        except ParamsError as error:
            yield f"key datasets.{name}.{error}"
    if datasets.keys() != suite.datasets.keys():
        return
    yield from told_once(
        (cells[name], mistake)
        for name, run in suite.runs.items()
        for mistake in _run(suite, name, datasets[run.dataset])
    )
    few, why = _fewest(suite)
    if suite.reference and suite.sweep.objectives and suite.sweep.num_samples < few:
        yield f"key sweep.num_samples: found {suite.sweep.num_samples}; allowed: at least {few}, {why}"
    for name, dataset in datasets.items():
        if dataset.counts is not None:
            yield from _images(suite, name, dataset.counts, few, why)


def _run(suite: "Suite", name: str, dataset: "Dataset") -> Iterator[str]:
    train, (few, why) = suite.train_params(name), _fewest(suite)
    found = suite.sample_params(name).num_samples
    if suite.runs[name].dataset in suite.reference and found < few:
        yield f"key sample.num_samples: found {found}; allowed: at least {few}, {why}"
    if dataset.counts is not None and train.batch_size > dataset.counts["train"]:
        yield f"key train.batch_size: found {train.batch_size}; allowed: up to {dataset.counts['train']}, the training images"
    if train.micro_batches > train.batch_size:
        yield f"key train.micro_batches: found {train.micro_batches}; allowed: up to train.batch_size {train.batch_size}"
    if train.score.name == "unet":
        yield from _network(train, dataset)
    if suite.runs[name].has_flow:
        yield from _halved("train.flow.blocks", train.flow.blocks, dataset)


def _fewest(suite: "Suite") -> tuple[int, str]:
    """Return the number of images that the metrics need, and the key that asks for them."""
    asked = {"fid.kid_subset_size": suite.fid.kid_subset_size, "fid.is_splits": suite.fid.is_splits}
    # An image and its neighbours.
    asked["fid.prc_neighbours + 1"] = suite.fid.prc_neighbours + 1
    key = max(asked, key=lambda name: asked[name])
    return asked[key], key


def _images(suite: "Suite", name: str, counts: Mapping[str, int], few: int, why: str) -> Iterator[str]:
    # The score of real images: the test split, and one half of the training split against the other.
    smallest = min(counts["test"], counts["train"] // 2)
    if name in suite.reference and smallest < few:
        yield f"key {why}: found {few}; allowed: up to {smallest}, the real images of {name} that are compared"
    if suite.nll.images is None:
        yield from shards("nll", suite.shards.nll, counts["test"], suite.nll.batch_size, f"{name}, split test")
    curve = "valid" if counts["valid"] else "test"
    for key, section, split in (
        ("nll", suite.nll, "test"),
        ("curve", suite.curve, curve),
        ("flow", suite.flow, "test"),
    ):
        if section is not None and section.images is not None and section.images > counts[split]:
            yield (
                f"key {key}.images: found {section.images}; allowed: null, or up to {counts[split]}, the images of {name}, "
                f"split {split}"
            )


def _network(train: "TrainParams", dataset: "Dataset") -> Iterator[str]:
    halved = list(_halved("train.score.multipliers", train.score.multipliers, dataset))
    yield from halved
    occurring = [dataset.image_size // 2**level for level in range(len(train.score.multipliers))]
    wrong = [size for size in train.score.attention_resolutions if size not in occurring]
    if wrong and not halved:
        yield f"key train.score.attention_resolutions: found {wrong}; allowed: [] or some of {occurring}, which occur"
    if train.score.scale_by_sigma and train.score.predict != "noise":
        yield "key train.score.predict: found v; allowed: noise, because train.score.scale_by_sigma is True"
    if train.score.scale_by_sigma and train.score.embedding != "fourier":
        yield "key train.score.scale_by_sigma: found True; allowed: False, or embedding fourier"


def _halved(key: str, levels: list[int], dataset: "Dataset") -> Iterator[str]:
    size = dataset.image_size
    if size % 2 ** (len(levels) - 1):
        most = (size & -size).bit_length()
        halved = f"images of {size} x {size} pixels are halved between them"
        yield f"key {key}: found {len(levels)} levels; allowed: up to {most}, as {halved}"
