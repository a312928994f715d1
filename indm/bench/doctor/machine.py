"""Checks of a machine: disk, GPU and compiler."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from indm.errors import NoGpuError
from indm.store.files import obstacle

if TYPE_CHECKING:
    from indm.bench.suite.schema.suite import Suite

READY, DOWNLOAD, MISSING = "ready", "will download", "missing"
# In bytes; less would not hold the tables and the report of the smallest suite.
LEAST_FREE = 50_000_000


@dataclass(frozen=True)
class Item:
    """A line of the page; a missing requirement has a gap: the thing found, the thing expected and the remedy on one line."""

    name: str
    state: str
    detail: str
    gap: str = ""


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


def gpu_item(suite: "Suite") -> Item:
    """Look for the GPUs of a suite: one for each process of a training, if it asks for any."""
    import torch

    found = torch.cuda.device_count() if gpu_is_seen() else 0
    names = ", ".join(map(torch.cuda.get_device_name, range(found)))
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
