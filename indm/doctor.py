"""What a suite needs of this machine: what is ready, what will be downloaded, and what is missing with its remedy.

``indm doctor`` prints the page; both engines ask :func:`requirements` before their first job. Imports are late: packages are
checked before one of them is needed, and a suite that needs no Inception weights and no GPU does not import torch.
"""

import contextlib
import functools
import os
import platform
import shutil
import socket
import threading
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from indm.errors import NoGpuError

if TYPE_CHECKING:
    from indm.artifacts import Layout
    from indm.data import Archive
    from indm.metrics.weights import WeightsFile
    from indm.params import Suite

DEFAULT_SUITE = Path("params/digits.yaml")
READY, DOWNLOAD, MISSING = "ready", "will download", "missing"
# The one extractor whose weights come in files.
INCEPTION = "inception-v3-compat"
INSTALL = "pip install -e ."
TIMEOUT = 3.0


@dataclass(frozen=True)
class Item:
    """A line of the page.

    Arguments:
        name: what is looked at.
        state: ``ready``, ``will download`` or ``missing``.
        detail: what was found.
        gap: of what is missing and needed: what was found, what was expected, and the remedy, on one line.
    """

    name: str
    state: str
    detail: str
    gap: str = ""


@dataclass(frozen=True)
class Work:
    """What is to be done for a suite.

    Arguments:
        prepare: the datasets that are to be prepared: they need their archives.
        measure: the datasets whose reference or whose runs' FID is to be computed: they need their extractor's weights.
        compute: whether anything is to be computed on the suite's device by this machine.
    """

    prepare: Collection[str]
    measure: Collection[str]
    compute: bool


@dataclass(frozen=True)
class Report:
    """The page, and whether nothing that the suite needs is missing."""

    page: str
    can_run: bool


def examine(suite_file: Path | None, out: Path, data_root: Path | None) -> Report:
    """Look at everything that a suite needs, or, without one, at everything there is.

    Arguments:
        suite_file: the suite; the default suite's needs decide where it is None.
        out: the results folder.
        data_root: the folder of the archives; :func:`indm.data.data_root` by default.

    Raises:
        ParamsError: if the suite has a mistake.
    """
    installed = packages()
    if gaps := _gaps(installed):
        return Report(_page({"packages": installed}, [*gaps, "the rest is looked at once they are installed"]), False)

    from indm.artifacts import Layout
    from indm.data import data_root as default_root
    from indm.params import load_suite

    suite = load_suite(suite_file or DEFAULT_SUITE)
    layout = Layout(out, suite.suite)
    work = unfinished(suite, layout)
    root = data_root or default_root()
    groups = {
        "machine": machine(suite if suite_file else None, out),
        "packages": installed,
        "engines": [_program(name) for name in ("snakemake", "dvc", "git")],
    }
    if suite_file:
        groups[_data_title(root)] = [
            item for name in suite.datasets for item in _data(name, layout, work.prepare, root)
        ]
        groups["weights"] = _suite_weights(suite, work.measure, root)
    else:
        groups[_data_title(root)] = _all_data(root)
        groups["weights"] = weights(INCEPTION)
    gaps = _gaps(item for items in groups.values() for item in items)
    can_run = not requirements(suite, work, root)
    verdict = "nothing that it needs is missing" if can_run else "cannot run yet, the lines above say why"
    return Report(_page(groups, [*gaps, *([""] if gaps else []), f"suite {suite.suite}: {verdict}"]), can_run)


def requirements(suite: "Suite", work: Work, data_root: Path | None = None) -> list[str]:
    """List what is missing for the work on a suite, one line a gap, with its remedy.

    Arguments:
        suite: the suite.
        work: what is to be done.
        data_root: the folder of the archives; :func:`indm.data.data_root` by default.
    """
    from indm.data import data_root as default_root

    root = data_root or default_root()
    items = [*packages(), *([_gpu()] if suite.device == "cuda" and work.compute else [])]
    items += [item for name in suite.datasets if name in work.prepare for item in archives(name, root)]
    items += [item for name in _extractors(suite, work.measure) for item in weights(name)]
    items += _published(suite, work.measure, root)
    return _gaps(items)


def unfinished(suite: "Suite", layout: "Layout") -> Work:
    """Say what is still to be done for a suite, by the files that are there."""

    def made(folder: Path, *files: str) -> bool:
        return all((folder / file).is_file() for file in files)

    arrays = ("dataset.json", "labels.json", "train.npy", "valid.npy", "test.npy")
    prepare = {name for name in suite.datasets if not made(layout.data(name), *arrays)}
    measure = {name for name in suite.datasets if not made(layout.data(name), "reference.json")}
    measure |= {run.dataset for name, run in suite.runs.items() if not made(layout.run(name), "fid.json")}
    evaluate = not all(made(layout.run(name), "nll.json") for name in suite.runs)
    return Work(prepare, measure, bool(measure) or evaluate)


def packages() -> list[Item]:
    """Compare Python and the installed packages with the ranges of ``pyproject.toml``."""
    project = _project()
    python, expected = platform.python_version(), project["requires-python"]
    remedy = f"Python {python}: expected {expected}; make an environment with such a Python"
    right = SpecifierSet(expected).contains(python, prereleases=True)
    items = [Item("python", READY, f"{python} ({expected})") if right else Item("python", MISSING, python, remedy)]
    return items + [_package(Requirement(text)) for text in project["dependencies"]]


def _project() -> dict[str, Any]:
    """Read the ranges from the checkout, which an installation may be older than; of a copy without one, its own."""
    file = Path(__file__).parent.parent / "pyproject.toml"
    if file.is_file():
        return tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    texts = [text for text in metadata.requires("indm") or [] if "extra ==" not in text]
    return {"requires-python": metadata.metadata("indm")["Requires-Python"], "dependencies": texts}


def _package(requirement: Requirement) -> Item:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        version = "not installed"
    else:
        if requirement.specifier.contains(version, prereleases=True):
            return Item(requirement.name, READY, f"{version} ({requirement.specifier})")
    gap = f"package {requirement.name}: found {version}, expected {requirement.specifier}; {INSTALL}"
    return Item(requirement.name, MISSING, f"{version}, expected {requirement.specifier}", gap)


def machine(suite: "Suite | None", out: Path) -> list[Item]:
    """Look at the processors, the GPU and the disk."""
    threads = f", {suite.threads} used by a job" if suite else ""
    folder = next(path for path in (out.absolute(), *out.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    gpu = _gpu()
    if gpu.gap and (suite is None or suite.device != "cuda"):
        gpu = Item(gpu.name, MISSING, "torch sees none; only suites with device: cuda need one")
    return [
        Item("CPU", READY, f"{os.cpu_count()} CPUs{threads}"),
        gpu,
        Item("disk", READY, f"{free / 1e9:.1f} GB free at {out}"),
    ]


def _gpu() -> Item:
    import torch

    if not torch.cuda.is_available():
        return Item("GPU", MISSING, "torch sees none", str(NoGpuError()))
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return Item("GPU", READY, names)


def _program(name: str) -> Item:
    path = shutil.which(name)
    if path is None:
        remedy = "install git" if name == "git" else f"activate the environment, or {INSTALL}"
        return Item(name, MISSING, "not on PATH", f"{name}: found no such program on PATH; {remedy}")
    return Item(name, READY, path)


def _data_title(root: Path) -> str:
    return f"data, below {root}/ (--data-root, else INDM_DATA, else data)"


def _data(name: str, layout: "Layout", prepare: Collection[str], root: Path) -> list[Item]:
    return archives(name, root) if name in prepare else [Item(name, READY, f"prepared in {layout.data(name)}")]


def _all_data(root: Path) -> list[Item]:
    from indm.data import DATASETS

    return [item for name in DATASETS for item in archives(name, root)]


def archives(dataset: str, root: Path) -> list[Item]:
    """Look for the archives of a dataset below the data root."""
    from indm.data import DATASETS

    found = [_archive(dataset, archive, root / archive.path) for archive in DATASETS[dataset].archives]
    return found or [Item(dataset, READY, "in an installed package")]


def _archive(dataset: str, archive: "Archive", path: Path) -> Item:
    if path.is_file():
        return Item(dataset, READY, _present(path))
    if archive.lacks_gdown:
        return Item(dataset, MISSING, str(path), f"{path}: missing; {archive.remedy}")
    return _download(dataset, path, archive.size, str(archive.url), archive.host, archive.remedy)


def _suite_weights(suite: "Suite", measure: Collection[str], root: Path) -> list[Item]:
    """Look for the files behind a suite's features; those that nothing needs any more, or that come with it, are ready."""
    needed = _extractors(suite, measure)
    others = {reference.extractor: None for reference in suite.reference.values()}
    why = {name: "its features are computed" if name == INCEPTION else "no file needed" for name in others}
    items = [Item(name, READY, why[name]) for name in others if name not in needed]
    return [item for name in needed for item in weights(name)] + items + _published(suite, measure, root)


def _extractors(suite: "Suite", measure: Collection[str]) -> list[str]:
    """Name the extractors of datasets whose weights come in files, each once."""
    names = [reference.extractor for dataset, reference in suite.reference.items() if dataset in measure]
    return [name for name in dict.fromkeys(names) if name == INCEPTION]


def weights(extractor: str) -> list[Item]:
    """Look for the files of weights of an extractor, as their loader does: where a variable says, in a cache, at their host."""
    from indm.metrics.weights import CLEAN_FID, TORCH_FIDELITY

    return [_weights_file(extractor, file) for file in (TORCH_FIDELITY, CLEAN_FID)]


def _weights_file(name: str, file: "WeightsFile") -> Item:
    if chosen := os.environ.get(file.option):
        if Path(chosen).is_file():
            return Item(name, READY, _present(Path(chosen)))
        place = f"{file.option}={chosen}"
        return Item(name, MISSING, place, f"{name}: found no file at {place}; {file.remedy}, or unset it")
    if file.cached.is_file():
        return Item(name, READY, _present(file.cached))
    return _download(name, file.cached, file.size, file.url, urlsplit(file.url).hostname or "", file.remedy)


def _published(suite: "Suite", measure: Collection[str], root: Path) -> list[Item]:
    """Look for the published statistics that a suite compares with."""
    named = {dataset: suite.reference[dataset].published_statistics for dataset in suite.datasets if dataset in measure}
    items = []
    for dataset, statistics in named.items():
        if statistics is not None and (path := root / statistics.path).is_file():
            items.append(Item(dataset, READY, _present(path)))
        elif statistics is not None:
            gap = (
                f"{path}: published statistics missing; lay them there, or set published_statistics: null in the suite"
            )
            items.append(Item(dataset, MISSING, str(path), gap))
    return items


def _present(path: Path) -> str:
    return f"{path}, {path.stat().st_size / 1e6:,.1f} MB"


def _download(name: str, path: Path, size: str, url: str, host: str, remedy: str) -> Item:
    """Say whether a file that is not there can be downloaded."""
    if reachable(host):
        return Item(name, DOWNLOAD, f"{path}, about {size} from {url}")
    return Item(name, MISSING, str(path), f"{path}: missing, and {host} cannot be reached; {remedy}")


@functools.cache
def reachable(host: str) -> bool:
    """Try to connect to a host for three seconds, once an execution."""
    connected = threading.Event()

    def connect() -> None:
        with contextlib.suppress(OSError), socket.create_connection((host, 443), TIMEOUT):
            connected.set()

    # In a thread: no timeout holds for the look-up of a name.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    return connected.is_set()


def _gaps(items: Iterable[Item]) -> list[str]:
    return [item.gap for item in items if item.gap]


def _page(groups: Mapping[str, Iterable[Item]], end: Iterable[str]) -> str:
    """Lay out the groups in aligned columns, then the gaps and the verdict."""
    items = [item for group in groups.values() for item in group]
    width = max(len(item.name) for item in items)
    lines = []
    for title, group in groups.items():
        lines += [title, *(f"  {item.name:{width}}  {item.state:{len(DOWNLOAD)}}  {item.detail}" for item in group), ""]
    return "\n".join([*lines, *end])
