"""Somebody's samples against a dataset, by the protocol of a suite."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indm.bench.pipeline.runner import run_stage
from indm.bench.pipeline.stages import DATA, REFERENCE
from indm.bench.suite.load import load_suite
from indm.errors import DataError, ParamsError
from indm.foreign.files import Images, read_images
from indm.process import set_environment
from indm.registry import DATASETS
from indm.store.layout import Layout

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite
    from indm.data.dataset import Dataset

SHOWN = ("fid", "fid_infinity", "kid", "precision", "recall")
# The results of stages that are read.
READ = (f"{DATA}/train.npy", f"{DATA}/test.npy", *REFERENCE)
# Levels of images in files.
FULL = 256


def measure(
    samples: Path, suite_file: Path, dataset: str, levels: int, out: Path, data_root: Path | None, picture: Path
) -> dict[str, Any]:
    """Compare samples with a suite's dataset as its ``fid`` stage does, and draw the first ones above their nearest neighbours.

    The stages ``prepare`` and ``reference`` are run first if their results are missing.

    Arguments:
        samples: a folder of PNG files, or an .npy file with the shape (N, C, H, W).
        suite_file: the suite's file, for the protocol.
        dataset: the dataset.
        levels: levels of the samples, 256 for PNG files.
        out: the results folder.
        data_root: folder of the datasets' archives.
        picture: file for the picture; it is not written if the dataset forbids pictures.

    Returns:
        The metrics with their standard errors, ``extractor``, ``reference``, ``num_samples``, ``protocol``, the root mean
        square difference in levels of 256 between samples, or test images, and their nearest training images
        (``distance``, ``distance_test``), and the number of samples that equal a training image (``copies``).

    Raises:
        DataError: if the samples do not have the shape or the levels of the dataset, or are too few.
        ParamsError: if the suite has no such dataset.
        ArtifactError: if results of the stages are damaged, or were made with other parameters than the suite has now.
    """
    suite = load_suite(suite_file)
    if dataset not in suite.datasets:
        raise ParamsError(f"{suite_file}: found no dataset {dataset!r}, expected one of: {', '.join(suite.datasets)}")
    # As stages do, before torch is imported.
    set_environment(suite.threads)
    images = _samples(samples, levels, dataset)
    folder = Layout(out, suite.suite).data(dataset)
    _run_stages(suite, suite_file, dataset, out, data_root)

    # Imported afterwards, because they import torch.
    from indm.arrays import read_array

    # Private, because an edit of a stage would run all its jobs again.
    from indm.bench.stages.sample import GRID, _beside, _write_grid
    from indm.data.levels import to_uint8
    from indm.metrics.compare import compare, protocol
    from indm.metrics.features import features
    from indm.metrics.infinity import fid_infinity
    from indm.metrics.references import load_extractors, load_references
    from indm.process import set_up
    from indm.seeding import derive_seed
    from indm.store.files import read_json

    device, description = set_up(suite.device, suite.threads), read_json(folder / "dataset.json")
    extractor, _, identity = load_extractors(folder / "extractor.safetensors")
    references, source = load_references(folder)
    # A folder may be sorted by class, and extrapolation takes parts of the images.
    images = np.random.default_rng(derive_seed(dataset, "measure", "order")).permutation(images)
    generated, logits = features(extractor, images, levels, device=device)
    settings = suite.fid.model_dump()
    values = compare(generated, logits, references[""], **settings, seed=derive_seed(dataset, "measure"))
    values |= fid_infinity(generated, references[""], values["fid"], values["fid_se"])
    train, test = (to_uint8(read_array(folder / f"{split}.npy"), description["levels"]) for split in ("train", "test"))
    shown = to_uint8(images, levels)
    if description.get("pictures", True):
        _write_grid(picture, _beside(shown[:GRID], train, 256))
    apart, apart_test = _distances(shown, train), _distances(test, train)
    values |= {"distance": apart.mean(), "distance_test": apart_test.mean(), "copies": int((apart == 0).sum())}
    about = {"dataset": dataset, "num_samples": len(images), "reference": source["reference"]}
    return about | identity | values | {"protocol": protocol(**settings)}


def _samples(path: Path, levels: int, name: str) -> Images:
    """Read samples, levels (N, C, H, W), which must have the shape and the levels of a dataset."""
    # Imported here, because it imports torch.
    from indm.foreign.levels import as_levels

    dataset = DATASETS[name]
    if levels not in (dataset.levels, FULL):
        raise ParamsError(f"levels: found {levels}, expected {dataset.levels}, as in {name}, or {FULL} in files")
    images = as_levels(read_images(path), levels).numpy()
    if images.shape[1:] != dataset.shape:
        raise DataError(f"{path}: found shape {images.shape[1:]}, expected {dataset.shape}, as in {name}")
    if levels != dataset.levels:
        _check_levels(path, images, name, dataset)
    return images


def _check_levels(path: Path, images: Images, name: str, dataset: "Dataset") -> None:
    """Refuse samples of 256 levels that a dataset of fewer levels cannot have."""
    from indm.data.levels import to_uint8

    every = np.arange(dataset.levels, dtype=np.uint8).reshape(-1, 1, 1, 1)
    known, found = np.unique(to_uint8(every, dataset.levels)), np.unique(images)
    if not (odd := np.setdiff1d(found, known)).size:
        return
    remedy = f"round the samples to the {dataset.levels} levels of {name}"
    if found.max() < dataset.levels:
        remedy = f"give the number of levels: --levels {dataset.levels}"
    raise DataError(
        f"{path}: found {len(odd)} values from {odd.min()} to {odd.max()} that {name} does not have among {FULL} levels, expected "
        f"{known[0]}, {known[1]}, {known[2]}, ..., {known[-1]}; {remedy}"
    )


def _run_stages(suite: "Suite", suite_file: Path, dataset: str, out: Path, data_root: Path | None) -> None:
    """Run the stages whose results are missing, and check results as stages do.

    Raises:
        ArtifactError: if a result is damaged, or was made with other parameters than the suite has now.
    """
    # Imported here, because they import NumPy.
    from indm.bench.pipeline.input_check import InputCheck
    from indm.bench.pipeline.jobs import Job

    folder = Layout(out, suite.suite).data(dataset)
    if not (folder / "dataset.json").is_file():
        run_stage("prepare", suite_file, out, {"dataset": dataset}, data_root=data_root)
    if not (folder / "reference.json").is_file():
        run_stage("reference", suite_file, out, {"dataset": dataset})
    InputCheck(suite, out, Path("reports")).check(Job("reference", dataset), READ)


def _distances(images: Images, train: Images) -> NDArray[np.float64]:
    """Return the root mean square difference between images (N, C, H, W) and their nearest training images, (N,)."""
    from indm.bench.stages.sample import _nearest

    difference = images.astype(np.float64) - _nearest(images, train)
    return np.sqrt(np.square(difference).mean((1, 2, 3)))


def page(found: dict[str, Any], picture: Path) -> str:
    """Write what :func:`measure` has found in Markdown."""
    lines = [
        f"# Samples against {found['dataset']}",
        "",
        f"{found['num_samples']} samples; extractor {found['extractor']}; reference {found['reference']}.",
        "Compare FIDs of one extractor, one reference and one number of samples only.",
        "",
        "| metric | value ± se |",
        "|---|---|",
        *(f"| {name} | {_pair(found[name], found.get(f'{name}_se'))} |" for name in SHOWN),
        f"| distance to the nearest training image, levels of 256 | {found['distance']:.2f} |",
        f"| the same for test images | {found['distance_test']:.2f} |",
        f"| copies of training images | {found['copies']} |",
        "",
        *(f"- {name}: {words}" for name, words in found["protocol"].items()),
    ]
    if picture.is_file():
        lines += ["", f"Samples, and below them their nearest training images: ![neighbours]({picture.name})"]
    return "\n".join(lines) + "\n"


def _pair(value: float | None, se: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if se is None else f"{value:.4g} ± {se:.2g}"
