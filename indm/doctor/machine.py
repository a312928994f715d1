"""Processors, GPU, disk and programs."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from indm.doctor.item import INSTALL, MISSING, READY, Item
from indm.errors import NoGpuError

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite


def machine(suite: "Suite | None", out: Path) -> list[Item]:
    """Look at the processors, the GPU and the disk."""
    threads = f", {suite.threads} used by a job" if suite else ""
    folder = next(path for path in (out.absolute(), *out.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    gpu = gpu_item()
    if gpu.gap and (suite is None or suite.device != "cuda"):
        gpu = Item(gpu.name, MISSING, "torch sees none; only suites with device: cuda need one")
    return [
        Item("CPU", READY, f"{os.cpu_count()} CPUs{threads}"),
        gpu,
        Item("disk", READY, f"{free / 1e9:.1f} GB free at {out}"),
    ]


def gpu_item() -> Item:
    import torch

    if not torch.cuda.is_available():
        return Item("GPU", MISSING, "torch sees none", str(NoGpuError()))
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return Item("GPU", READY, names)


def program_item(name: str) -> Item:
    path = shutil.which(name)
    if path is None:
        remedy = "install git" if name == "git" else f"activate the environment, or {INSTALL}"
        return Item(name, MISSING, "not on PATH", f"{name}: found no such program on PATH; {remedy}")
    return Item(name, READY, path)
