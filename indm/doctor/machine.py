"""Checks of a machine: packages, processors, GPU, disk and programs."""

import os
import platform
import shutil
import sys
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from indm.errors import NoGpuError
from indm.store.files import obstacle

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite

READY, DOWNLOAD, MISSING = "ready", "will download", "missing"
INSTALL = "pip install -e ."


@dataclass(frozen=True)
class Item:
    """A line of the page.

    Arguments:
        name: name of the requirement.
        state: ``ready``, ``will download`` or ``missing``.
        detail: result of the check.
        gap: the thing found, the thing expected and the remedy on one line, if something needed is missing.
        warning: the same, if less is there than a suite asks for.
    """

    name: str
    state: str
    detail: str
    gap: str = ""
    warning: str = ""


def present(path: Path) -> str:
    files = path.iterdir() if path.is_dir() else [path]
    return f"{path}, {sum(file.stat().st_size for file in files) / 1e6:,.1f} MB"


def packages() -> list[Item]:
    """Compare Python and the installed packages with the ranges of ``pyproject.toml``."""
    project = _project()
    python, expected = platform.python_version(), project["requires-python"]
    remedy = f"Python {python}: expected {expected}; make an environment with such a Python"
    right = SpecifierSet(expected).contains(python, prereleases=True)
    items = [Item("python", READY, f"{python} ({expected})") if right else Item("python", MISSING, python, remedy)]
    return items + [_package(Requirement(text)) for text in project["dependencies"]]


def _project() -> dict[str, Any]:
    """Read the ranges from the checkout, which may be newer than the installation, or from the installation without a checkout."""
    file = Path(__file__).parent.parent.parent / "pyproject.toml"
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


# In bytes; less would not hold the tables and the report of the smallest suite.
LEAST_FREE = 50_000_000


def machine(suite: "Suite | None", out: Path) -> list[Item]:
    """Look at the processors, the GPU and the disk."""
    gpu = gpu_item()
    on_cpu = suite is not None and (suite.device == "cpu" or (suite.device == "auto" and bool(gpu.gap)))
    if gpu.gap and (suite is None or suite.device != "cuda"):
        gpu = Item(gpu.name, MISSING, "torch sees none; only suites with device: cuda need one")
    compiler = [compiler_item()] if suite is not None and suite.compile else []
    return [_cpu_item(suite, on_cpu), gpu, *compiler, disk_item(out / suite.suite if suite else out)]


def _cpu_item(suite: "Suite | None", on_cpu: bool) -> Item:
    cpus = os.cpu_count() or 1
    if suite is None:
        return Item("CPU", READY, f"{cpus} CPUs")
    # A training on the CPU has separate threads in each process.
    used = suite.threads * (suite.processes if on_cpu else 1)
    if used <= cpus:
        return Item("CPU", READY, f"{cpus} CPUs, {used} used by a job")
    detail = f"{cpus} CPUs, fewer than the {used} that a job uses, so jobs will wait for each other"
    asked = f"threads: {suite.threads}, processes: {suite.processes}"
    warning = (
        f"CPU: found {cpus}, expected {used} ({asked}): its jobs will be slow; lower threads or processes in the suite"
    )
    return Item("CPU", READY, detail, warning=warning)


def disk_item(out: Path) -> Item:
    """Check free space at the results folder, and write access.

    Arguments:
        out: the folder of all suites or of one, which may not exist yet.
    """
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


def needed(suite: "Suite") -> list[Item]:
    """Check the requirements of a suite's jobs on the machine that computes them, apart from packages."""
    return _gpus(suite) + ([compiler_item()] if suite.compile else [])


def compiler_item() -> Item:
    """Look for torch's compiler, by the name that torch uses."""
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if path := shutil.which(name):
        return Item("compiler", READY, path)
    gap = f"compile: true: found no C++ compiler ({name}); install it, or remove the key from the suite"
    return Item("compiler", MISSING, "none on PATH", gap)


def _gpus(suite: "Suite") -> list[Item]:
    """Look for the GPUs that a suite's trainings need, one for each of their processes, if any."""
    if suite.device != "cuda":
        return []
    item = gpu_item()
    if item.gap or suite.processes <= (found := _gpu_count()):
        return [item]
    gap = f"processes: {suite.processes}, with one GPU each: torch sees {found}; set processes to {found} in the suite"
    return [Item(item.name, MISSING, item.detail, gap)]


def _gpu_count() -> int:
    import torch

    return torch.cuda.device_count()


def gpu_is_seen() -> bool:
    """Return whether torch sees a GPU, without starting to use it."""
    import torch

    return torch.cuda.is_available()


def gpu_item() -> Item:
    import torch

    if not gpu_is_seen():
        return Item("GPU", MISSING, "torch sees none", str(NoGpuError()))
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return Item("GPU", READY, names)


def program_item(name: str) -> Item:
    path = shutil.which(name)
    if path is None:
        remedy = "install git" if name == "git" else f"activate the environment, or {INSTALL}"
        return Item(name, MISSING, "not on PATH", f"{name}: found no such program on PATH; {remedy}")
    return Item(name, READY, path)
