"""Images from files, and somebody's samples against a dataset, by the protocol of a suite."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indm.errors import DataError
from indm.pipeline.runner import run_stage
from indm.store.layout import Layout
from indm.suite.load import load_suite

Images = NDArray[np.uint8]
SHOWN = ("fid", "fid_infinity", "kid", "precision", "recall")


def read_images(path: Path) -> NDArray[Any]:
    """Read images (N, C, H, W) from a folder of PNG files, in the order of their names, or an array from a .npy file.

    Raises:
        DataError: if the file is not an array, or the images are missing, damaged, neither grey nor RGB with 8 bits, or of
            several shapes.
    """
    if path.is_dir():
        images = [_read_png(file) for file in sorted(path.glob("*.png"))]
        if len(shapes := {image.shape for image in images}) != 1:
            found = " and ".join(map(str, sorted(shapes)[:2])) or "no *.png"
            raise DataError(f"{path}: found {found}, expected PNG files of one shape (C, H, W)")
        return np.stack(images)
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{path}: found {error}, expected an array in a .npy file, or a folder of PNG files") from None
    if not isinstance(found, np.ndarray):
        raise DataError(f"{path}: found several arrays, expected one in a .npy file")
    return found


def _read_png(file: Path) -> Images:
    try:
        with Image.open(file) as image:
            if image.mode not in ("L", "RGB"):
                raise DataError(f"{file}: found mode {image.mode}, expected grey (L) or RGB with 8 bits; convert it")
            found = np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise DataError(f"{file}: found {error}, expected a PNG file") from None
    return found[None] if found.ndim == 2 else found.transpose(2, 0, 1)


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
        DataError: if the samples do not fit the dataset, or are too few.
    """
    layout = Layout(out, (suite := load_suite(suite_file)).suite)
    folder = layout.data(dataset)
    for stage, file, options in (
        ("prepare", "dataset.json", {"data_root": data_root}),
        ("reference", "reference.json", {}),
    ):
        if not (folder / file).is_file():
            run_stage(stage, suite_file, out, {"dataset": dataset}, **options)

    # Imported afterwards, because stages set up torch before it is imported.
    from indm.arrays import read_array
    from indm.data.levels import to_uint8
    from indm.foreign.likelihood import as_levels
    from indm.metrics.compare import compare, protocol
    from indm.metrics.features import features
    from indm.metrics.infinity import fid_infinity
    from indm.metrics.references import load_extractors, load_references
    from indm.process import set_up
    from indm.seeding import derive_seed

    # Private, because an edit of a stage would run all its jobs again.
    from indm.stages.sample import GRID, _beside, _write_grid
    from indm.store.files import read_json

    device, description = set_up(suite.device, suite.threads), read_json(folder / "dataset.json")
    images = as_levels(read_images(samples), levels).numpy()
    if list(images.shape[1:]) != description["shape"]:
        raise DataError(
            f"{samples}: found shape {images.shape[1:]}, expected {tuple(description['shape'])}, as in {dataset}"
        )
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


def _distances(images: Images, train: Images) -> NDArray[np.float64]:
    """Return the root mean square difference between images (N, C, H, W) and their nearest training images, (N,)."""
    from indm.stages.sample import _nearest

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
