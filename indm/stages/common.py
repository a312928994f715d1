"""What several stages share: device, progress bars and reading a prepared dataset."""

import ctypes
import gc
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from indm.artifacts import read_array, read_json
from indm.errors import NoGpuError

# Of malloc.h. Larger blocks than 32 MiB are still given back: a glibc before 2.35 refuses to keep them.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, KEPT = -1, -3, 2**25


def set_up(device: str, threads: int, processes: int = 1) -> torch.device:
    """Choose the device and make torch's results repeat; collect garbage from here on, where the command line left it.

    Raises:
        NoGpuError: if the suite asks for a GPU and there is none, or there are fewer than processes on this machine.
    """
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
    _keep_memory()
    torch.set_num_threads(threads)
    # The same as use_deterministic_algorithms, which imports the compiler and its second with it.
    torch.set_deterministic_debug_mode("warn")
    # A help in finding reads of memory that was never written, at the price of writing all of it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise NoGpuError
    if device == "cpu" or not available:
        return torch.device("cpu")
    if torch.cuda.device_count() < processes:
        raise NoGpuError(torch.cuda.device_count(), processes)
    return torch.device("cuda")


def _keep_memory() -> None:
    """Keep freed memory for the next allocation, where the C library can (glibc).

    Given back to the system, the tensors of a training step come again as pages that it has to clear: 4 to 10 % of the time of
    the default suite's jobs.
    """
    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None), "mallopt"):
        return
    # In this order: after a change of the other, a refusal would leave this threshold at 128 KiB for good.
    if libc.mallopt(M_MMAP_THRESHOLD, KEPT):
        libc.mallopt(M_TRIM_THRESHOLD, 2**30)


def bar(description: str) -> Callable[[range], Iterable[int]]:
    """Return a progress bar for a range, rarely redrawn so that logs stay short."""
    return lambda steps: tqdm(steps, desc=description, mininterval=2.0, unit="step")


def read_split(folder: Path, split: str) -> Tensor:
    """Map a split's images into memory, uint8, shape (N, C, H, W): a batch is read from the disk when it is indexed."""
    return torch.from_numpy(read_array(folder / f"{split}.npy"))


def read_labels(folder: Path, split: str) -> Tensor:
    """Read a split's labels, int64, shape (N,)."""
    return torch.tensor(read_json(folder / "labels.json")[split], dtype=torch.int64)
