"""Everything that is done to the process, and why: garbage, memory, threads, determinism, the device, signals.

- **Garbage.** What a stage imports, some hundred thousand objects, stays until it ends. Garbage is not looked for among them: not
  while they are imported (:func:`start`), nor at the exit; that would take up to a third of a short stage's time. Stages with
  networks collect garbage again from :func:`set_up` on. The others, of seconds, make none that matters.
- **Memory.** Given back to the system, the tensors of a training step come again as pages that it has to clear: 4 to 10 % of the
  time of the default suite's jobs. So freed memory is kept, where the C library can (:func:`_keep_memory`).
- **Threads.** NumPy's and torch's pools of threads read their sizes once, when they are imported: :func:`limit_threads` comes
  before.
- **Determinism.** Results repeat to the byte on one machine: :func:`set_up`.
- **Signals.** A training that is asked to stop finishes its step first: :func:`sigterm_noted`.
"""

import atexit
import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from indm.errors import NoGpuError

if TYPE_CHECKING:
    import torch

# Of malloc.h. Larger blocks than 32 MiB are still given back: a glibc before 2.35 refuses to keep them.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, KEPT = -1, -3, 2**25


def start() -> None:
    """Stop looking for garbage, until :func:`set_up` does so again; nor look for it at the exit."""
    gc.disable()
    atexit.register(gc.freeze)


def limit_threads(threads: int) -> None:
    """Set the size of the pools of threads of libraries that are not imported yet."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(threads)


def set_up(device: str, threads: int, processes: int = 1) -> "torch.device":
    """Choose the device and make torch's results repeat; collect garbage from here on, where :func:`start` left it.

    Arguments:
        device: ``cpu``, ``cuda``, or ``auto``: a GPU where there is one.
        threads: of this process on the CPU.
        processes: processes on this machine that train together, each on a GPU of its own.

    Raises:
        NoGpuError: if the suite asks for a GPU and there is none, or there are fewer than processes on this machine.
    """
    # Imported here: the command line, which calls the other functions, does not pay for it.
    import torch

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
    """Keep freed memory for the next allocation, where the C library can (glibc)."""
    # Imported here: the command line does not pay for it.
    import ctypes

    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None), "mallopt"):
        return
    # In this order: after a change of the other, a refusal would leave this threshold at 128 KiB for good.
    if libc.mallopt(M_MMAP_THRESHOLD, KEPT):
        libc.mallopt(M_TRIM_THRESHOLD, 2**30)


@contextlib.contextmanager
def sigterm_noted() -> Iterator[threading.Event]:
    """Set an event on SIGTERM, instead of dying of it, inside the block; of the main thread."""
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)
