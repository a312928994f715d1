"""Archives, weights and published statistics: ready, to be downloaded, or missing."""

import contextlib
import functools
import os
import socket
import threading
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from indm.bench.doctor.machine import DOWNLOAD, MISSING, READY, Item
from indm.data.archives import check_root, verify
from indm.errors import DataError

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite
    from indm.data.archives import Archive, Selection
    from indm.data.folders import PngFolders
    from indm.metrics.weights import WeightsFile

# The one extractor whose weights come in files.
INCEPTION = "inception-v3-compat"
TIMEOUT = 3.0
PORTS = {"http": 80, "ftp": 21}


def archives(dataset: str, root: Path) -> list[Item]:
    """Look for the archives of a dataset below the data root."""
    from indm.data.folders import PngFolders
    from indm.registry import DATASETS

    if isinstance(load := DATASETS[dataset].load, PngFolders):
        return [_folders(dataset, load)]
    known, selection = DATASETS[dataset].archives, DATASETS[dataset].selection
    if (known or selection) and root.is_file():
        return [_checked(dataset, root, partial(check_root, root))]
    if selection is not None:
        return [_selection(dataset, selection, root)]
    found = [_archive(dataset, archive, archive.find(root)) for archive in known]
    return found or [Item(dataset, READY, "in an installed package")]


def _selection(dataset: str, files: "Selection", root: Path) -> Item:
    place = files.find(root)
    if place.exists():
        return _checked(dataset, place, partial(files.check, place))
    return Item(dataset, MISSING, str(place), f"{dataset}: {files.lack(root)}; {files.remedy}")


def _folders(dataset: str, images: "PngFolders") -> Item:
    try:
        images.check()
    except DataError as error:
        return Item(dataset, MISSING, str(images.folder), str(error))
    counts = " and ".join(f"{len(images.files(name)):,} {name}" for name in ("train", "test"))
    return Item(dataset, READY, f"{images.folder}, {counts} images")


def _archive(dataset: str, archive: "Archive", path: Path) -> Item:
    if path.exists():
        return _checked(dataset, path, partial(verify, path, archive))
    if archive.lacks_gdown:
        return Item(dataset, MISSING, str(path), f"{path}: missing; {archive.remedy}")
    return _download(dataset, path, archive.size, str(archive.url), archive.address, archive.remedy)


def _checked(name: str, path: Path, check: Callable[[], object]) -> Item:
    """Report whether a file is the one that its reader expects."""
    try:
        check()
    except DataError as error:
        return Item(name, MISSING, f"{path}: damaged, or another file", str(error))
    files = path.iterdir() if path.is_dir() else [path]
    return Item(name, READY, f"{path}, {sum(file.stat().st_size for file in files) / 1e6:,.1f} MB")


def extractors(suite: "Suite", measure: Collection[str]) -> list[str]:
    """Name the extractors of datasets whose weights come in files, each once."""
    names = [reference.extractor for dataset, reference in suite.reference.items() if dataset in measure]
    return [name for name in dict.fromkeys(names) if name == INCEPTION]


def weights(extractor: str) -> list[Item]:
    """Look for the weights of an extractor, as their loader does: at the path in a variable, in a cache, at their host."""
    from indm.metrics.weights import CLEAN_FID, TORCH_FIDELITY

    return [_weights_file(extractor, file) for file in (TORCH_FIDELITY, CLEAN_FID)]


def _weights_file(name: str, file: "WeightsFile") -> Item:
    from indm.metrics.weights import read_weights_file

    if chosen := os.environ.get(file.option):
        if Path(chosen).is_file():
            return _checked(name, Path(chosen), partial(read_weights_file, file))
        place = f"{file.option}={chosen}"
        return Item(name, MISSING, place, f"{name}: found no file at {place}; {file.remedy}, or unset it")
    if file.cached.is_file():
        return _checked(name, file.cached, partial(read_weights_file, file))
    return _download(name, file.cached, file.size, file.url, file.url, file.remedy)


def published(suite: "Suite", measure: Collection[str], root: Path) -> list[Item]:
    """Look for the published statistics with which a suite compares."""
    items = []
    for dataset in (name for name in suite.datasets if name in measure):
        if (statistics := suite.reference[dataset].published_statistics) is None:
            continue
        path, remedy = root / statistics.path, "copy them there, or set published_statistics: null in the suite"
        if path.is_file():
            from indm.metrics.published import check_statistics

            items.append(_checked(dataset, path, partial(check_statistics, path, statistics.sha256)))
        else:
            items.append(Item(dataset, MISSING, str(path), f"{path}: published statistics missing; {remedy}"))
    return items


def _download(name: str, path: Path, size: str, url: str, address: str, remedy: str) -> Item:
    """Report whether a missing file can be downloaded."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    if reachable(host, parts.port or PORTS.get(parts.scheme, 443)):
        return Item(name, DOWNLOAD, f"{path}, about {size} from {url}")
    return Item(name, MISSING, str(path), f"{path}: missing, and {host} cannot be reached; {remedy}")


@functools.cache
def reachable(host: str, port: int) -> bool:
    """Try to connect to a host for three seconds, once per execution."""
    connected = threading.Event()

    def connect() -> None:
        with contextlib.suppress(OSError), socket.create_connection((host, port), TIMEOUT):
            connected.set()

    # In a thread, because the look-up of a name has no timeout.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    return connected.is_set()
