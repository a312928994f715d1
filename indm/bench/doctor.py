"""The requirements of a suite on this machine: ready, to be downloaded, or missing with the remedy.

``indm doctor`` prints the page; both engines ask :func:`requirements` before their first job. Imports of torch are late, because a
suite without Inception weights and GPU does not need it here.
"""

import contextlib
import functools
import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from indm.bench.pipeline.jobs import Job, job_names, job_outputs, jobs_of
from indm.bench.pipeline.stages import STAGES
from indm.bench.suite.listed import header
from indm.bench.suite.load import load_suite
from indm.data.archives import check_root, verify
from indm.data.archives import data_root as default_root
from indm.errors import DataError, NoGpuError
from indm.shipped import DEFAULT_SUITE, default
from indm.store.files import obstacle
from indm.store.layout import Layout

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite
    from indm.data.archives import Archive, Selection
    from indm.data.folders import PngFolders
    from indm.metrics.weights import WeightsFile

READY, DOWNLOAD, MISSING = "ready", "will download", "missing"
# In bytes; less would not hold the tables and the report of the smallest suite.
LEAST_FREE = 50_000_000
# The one extractor whose weights come in files.
INCEPTION = "inception-v3-compat"
TIMEOUT = 3.0
# In the header of a suite whose cost is that on a GPU.
ON_GPU = "on one GPU"
PORTS = {"http": 80, "ftp": 21}


@dataclass(frozen=True)
class Item:
    """A line of the page; a missing requirement has a gap: the thing found, the thing expected and the remedy on one line."""

    name: str
    state: str
    detail: str
    gap: str = ""


@dataclass(frozen=True)
class Work:
    """The datasets to prepare, from archives, and to measure, by extractors, and whether to compute on the suite's device."""

    prepare: Collection[str]
    measure: Collection[str]
    compute: bool


def examine(suite_file: Path | None, out: Path, data_root: Path | None) -> tuple[str, bool]:
    """Check the requirements of a suite's remaining work; return the page, verdict first, and whether the suite can run."""
    suite_file = suite_file or default(Path(f"params/{DEFAULT_SUITE}.yaml"))
    suite = load_suite(suite_file, with_data=True)
    items = _items(suite, unfinished(suite, Layout(out, suite.suite)), data_root, out, header(suite_file, "Cost"))
    gaps = [item.gap for item in items if item.gap]
    verdict = "cannot run yet" if gaps else "can run, all its requirements are met"
    width = max(len(item.name) for item in items)
    lines = (f"{item.name:{width}}  {item.state:{len(DOWNLOAD)}}  {item.detail}" for item in items)
    return "\n".join([f"suite {suite.suite}: {verdict}", *gaps, "", *lines]), not gaps


def requirements(suite: "Suite", work: Work, data_root: Path | None = None, out: Path = Path("results")) -> list[str]:
    """List the missing requirements for the work on a suite, each on one line with its remedy."""
    # An engine asks in its own process, and torch would stay there; a suite that may use a GPU lacks nothing without one.
    work = replace(work, compute=work.compute and (suite.device == "cuda" or suite.compile))
    return [item.gap for item in _items(suite, work, data_root, out) if item.gap]


def _items(suite: "Suite", work: Work, data_root: Path | None, out: Path, cost: str = "") -> list[Item]:
    root = data_root or default_root()
    items = [item for name in suite.datasets if name in work.prepare for item in archives(name, root)]
    items += [item for name in extractors(suite, work.measure) for item in weights(name)]
    items += [*published(suite, work.measure, root), disk_item(out / suite.suite)]
    items += [gpu_item(suite, cost)] if work.compute and suite.device != "cpu" else []
    return items + ([compiler_item()] if work.compute and suite.compile else [])


def unfinished(suite: "Suite", layout: Layout) -> Work:
    """Return the remaining work for a suite, by the files that are there."""
    left = []
    for job in jobs_of(suite, "shard", "toy", ""):
        paths = [layout.root / path.removeprefix("results/") for path in job_outputs(suite, job)]
        # An empty file counts as missing, unless it stands for a picture.
        if not all(path.is_file() and (path.suffix == ".png" or path.stat().st_size > 0) for path in paths):
            left.append(job)
    return work_of(suite, left)


def work_of(suite: "Suite", jobs: Collection[Job]) -> Work:
    """Return the work of some jobs."""
    return Work(
        prepare={job.subject for job in jobs if job.stage == "prepare"},
        # A search for the best likelihood measures no images.
        measure={
            job_names(suite, job)["dataset"]
            for job in jobs
            if STAGES[job.stage].measures and (job.stage != "tune" or suite.runs[job.subject].objective == "fid")
        },
        compute=any(STAGES[job.stage].on_device for job in jobs),
    )


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


def disk_item(out: Path) -> Item:
    """Check free space at the results folder, which may not exist yet, and write access."""
    if blocked := obstacle(out / "any"):
        return Item("disk", MISSING, f"{out} cannot be written", f"{out}: cannot be written to: {blocked}")
    folder = next(path for path in (out.absolute(), *out.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        gap = f"{folder}: cannot be written to; get write access, or choose another folder (--out)"
        return Item("disk", MISSING, f"{folder} cannot be written", gap)
    detail = f"{free / 1e9:.1f} GB free at {out}"
    if free < LEAST_FREE:
        gap = f"{folder}: found {free / 1e6:.0f} MB free on its disk, expected at least {LEAST_FREE / 1e6:.0f} MB; free space"
        return Item("disk", MISSING, detail, gap)
    return Item("disk", READY, detail)


def compiler_item() -> Item:
    """Look for torch's compiler, by the name that torch uses."""
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if path := shutil.which(name):
        return Item("compiler", READY, path)
    gap = f"compile: true: found no C++ compiler ({name}); install it, or remove the key from the suite"
    return Item("compiler", MISSING, "none on PATH", gap)


def gpu_item(suite: "Suite", cost: str = "") -> Item:
    """Look for the GPUs of a suite: one for each process of a training, if it asks for any, or if its cost is that on a GPU."""
    import torch

    found = torch.cuda.device_count() if gpu_is_seen() else 0
    names = ", ".join(map(torch.cuda.get_device_name, range(found)))
    if suite.device == "auto" and not found and ON_GPU in cost:
        gap = f"GPU: torch sees none, and {suite.suite} takes {cost}; run it on a machine with a GPU"
        return Item("GPU", MISSING, "torch sees none: a CPU would take its place, for far longer", gap)
    if suite.device == "auto":
        return Item("GPU", READY, names or "torch sees none: the CPU takes its place")
    if not found:
        return Item("GPU", MISSING, "torch sees none", str(NoGpuError()))
    if suite.processes > found:
        gap = f"processes: {suite.processes}, with one GPU each: torch sees {found}; set processes to {found} in the suite"
        return Item("GPU", MISSING, names, gap)
    return Item("GPU", READY, names)


def gpu_is_seen() -> bool:
    """Return whether torch sees a GPU, without starting to use it."""
    import torch

    return torch.cuda.is_available()
