"""Processors, GPU, disk and programs."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from indm.doctor.item import INSTALL, MISSING, READY, Item
from indm.errors import NoGpuError

if TYPE_CHECKING:
    from indm.suite.schema.suite import Suite

# Bytes: less would not hold the tables and the page of the smallest suite.
LEAST_FREE = 50_000_000


def machine(suite: "Suite | None", out: Path) -> list[Item]:
    """Look at the processors, the GPU and the disk."""
    gpu = gpu_item()
    if gpu.gap and (suite is None or suite.device != "cuda"):
        gpu = Item(gpu.name, MISSING, "torch sees none; only suites with device: cuda need one")
    return [_cpu_item(suite), gpu, disk_item(out)]


def _cpu_item(suite: "Suite | None") -> Item:
    cpus = os.cpu_count() or 1
    used = f", {suite.threads} used by a job" if suite else ""
    few = ": more than there are, so jobs will wait for each other" if suite and suite.threads > cpus else ""
    return Item("CPU", READY, f"{cpus} CPUs{used}{few}")


def disk_item(out: Path) -> Item:
    """Look for room at the results folder, and for the right to write there."""
    folder = next(path for path in (out.absolute(), *out.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        gap = f"{folder}: cannot be written; give yourself the right, or another folder (--out)"
        return Item("disk", MISSING, f"{folder} cannot be written", gap)
    detail = f"{free / 1e9:.1f} GB free at {out}"
    if free < LEAST_FREE:
        gap = f"{folder}: found {free / 1e6:.0f} MB free on its disk, expected at least {LEAST_FREE / 1e6:.0f} MB; free space"
        return Item("disk", MISSING, detail, gap)
    return Item("disk", READY, detail)


def gpus(suite: "Suite") -> list[Item]:
    """Look for the GPUs that a suite's trainings need: one for each of their processes; none where it asks for none."""
    if suite.device != "cuda":
        return []
    item = gpu_item()
    if item.gap or suite.processes <= (found := _gpu_count()):
        return [item]
    gap = f"processes: {suite.processes}, on a GPU each, and torch sees {found}; set processes to {found} in the suite"
    return [Item(item.name, MISSING, item.detail, gap)]


def _gpu_count() -> int:
    import torch

    return torch.cuda.device_count()


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
