"""Stage ``prepare``: a dataset's arrays and their description."""

import contextlib
import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from indm.data.dataset import SPLITS, Dataset, Split
from indm.registry import DATASETS
from indm.store.files import atomic_write, write_json
from indm.store.layout import Layout
from indm.store.provenance import Finished

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite


def run(suite: "Suite", layout: Layout, name: str, *, data_root: Path | None) -> Finished:
    """Write ``train.npy``, ``valid.npy``, ``test.npy``, ``labels.json`` and ``dataset.json``.

    Archives are looked for below ``data_root``, or below :func:`indm.data.data_root` if it is None.
    """
    folder, dataset, parameters = layout.data(name), DATASETS[name], suite.datasets[name]
    if dataset.archives or dataset.selection:
        dataset = replace(dataset, load=partial(dataset.load, root=data_root))
    write_dataset(folder, name, dataset.holding_out(parameters.validation), parameters.split_seed)
    return Finished(folder)


def write_dataset(folder: Path, name: str, dataset: Dataset, seed: int) -> None:
    """Write a dataset's files; the arrays appear together after all of them are complete, or not at all."""
    splits = dataset.load(seed)
    dataset.check(splits)
    sha256 = {}
    with contextlib.ExitStack() as files:
        for split in SPLITS:
            file = files.enter_context(atomic_write(folder / f"{split}.npy"))
            sha256[split] = _stream(file, dataset, split, splits[split])
    write_json(folder / "labels.json", {split: splits[split].labels.tolist() for split in SPLITS})
    description = {
        "dataset": name,
        "levels": dataset.levels,
        "shape": list(dataset.shape),
        "classes": dataset.classes,
        "split_seed": None if dataset.official_partition else seed,
        "counts": {split: splits[split].count for split in SPLITS},
        "sha256": sha256,
        "source": dataset.source,
        "licence": dataset.licence,
        # Only if they are forbidden, so that the descriptions of other datasets keep their bytes.
        **({} if dataset.pictures else {"pictures": False}),
        **({} if (clusters := splits["test"].clusters) is None else {"test_clusters": clusters.tolist()}),
    }
    write_json(folder / "dataset.json", description)


def _stream(file: IO[bytes], dataset: Dataset, name: str, split: Split) -> str:
    """Write a split piece by piece as ``.npy``, which readers map into memory; return the SHA-256 of its images."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (split.count, *dataset.shape)}
    np.lib.format.write_array_header_1_0(file, header)
    digest = hashlib.sha256()
    with tqdm(total=split.count, desc=name, mininterval=2.0, unit="image") as bar:
        for piece in dataset.read(name, split):
            content = piece.tobytes()
            file.write(content)
            digest.update(content)
            bar.update(len(piece))
    return digest.hexdigest()
