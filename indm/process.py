"""Everything that is done to the process, and why: garbage, memory, threads, determinism, the device, other processes, signals.

- **Garbage.** What a stage imports, some hundred thousand objects, stays until it ends. Garbage is not looked for among them: not
  while they are imported (:func:`start`), nor at the exit; that would take up to a third of a short stage's time. Stages with
  networks collect garbage again from :func:`set_up` on. The others, of seconds, make none that matters.
- **Memory.** Given back to the system, the tensors of a training step come again as pages that it has to clear: 4 to 10 % of the
  time of the default suite's jobs. So freed memory is kept, where the C library can (:func:`_keep_memory`).
- **Threads.** NumPy's and torch's pools of threads read their sizes once, when they are imported: :func:`limit_threads` comes
  before.
- **Determinism.** Results repeat to the byte on one machine: :func:`set_up`.
- **Precision.** GPUs can round the factors of float32 products to TF32, and oneDNN rounds them to bfloat16 on processors that have
  it, where a program or the environment allows it. By default torch lets cuDNN convolve in TF32. Here products are IEEE float32
  unless a training asks for less: :func:`unset_fpmath`, :func:`set_up`, :func:`products_in`, and in someone else's program
  :func:`float32_products`. All of them rest on :func:`_switches`.
- **Other processes.** Whether something else has started several to train together: :func:`started_processes`.
- **Signals.** A training that is asked to stop finishes its step first: :func:`sigterm_noted`.
"""

import atexit
import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from indm.errors import NoGpuError, ParamsError

if TYPE_CHECKING:
    import torch

# How something is read and set, and the value that float32 needs.
Switch = tuple[Callable[[], Any], Callable[[Any], object], Any]
# Of malloc.h. Larger blocks than 32 MiB are still given back: a glibc before 2.35 refuses to keep them.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, KEPT = -1, -3, 2**25
# By which oneDNN is told, when torch is imported and never again, to round the factors of float32 products.
FPMATH = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")
# What torchrun leaves to each of the processes that it starts, beside WORLD_SIZE and MASTER_ADDR.
NUMBERS = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")


def start() -> None:
    """Stop looking for garbage, until :func:`set_up` does so again; nor look for it at the exit."""
    gc.disable()
    atexit.register(gc.freeze)


def limit_threads(threads: int) -> None:
    """Set the size of the pools of threads of libraries that are not imported yet."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(threads)


def unset_fpmath() -> None:
    """Let oneDNN compute float32 products in float32, whatever the environment says; before torch is imported."""
    for variable in FPMATH:
        os.environ.pop(variable, None)


def started_processes() -> int:
    """Return how many processes something else, such as ``torchrun``, has started to train together, this one among them.

    Raises:
        ParamsError: if the environment says half of what torchrun would say, or no numbers.
    """
    if (count := _whole_number("WORLD_SIZE", "1")) <= 1:
        return 1
    if missing := [name for name in (*NUMBERS, "MASTER_ADDR") if name not in os.environ]:
        raise ParamsError(
            f"environment: found WORLD_SIZE={count} without {', '.join(missing)}, expected all that torchrun sets; "
            "unset WORLD_SIZE, or start the processes by torchrun"
        )
    for name in NUMBERS:
        _whole_number(name)
    return count


def is_first() -> bool:
    """Return whether this process writes: of several that something else has started, the first; one alone does."""
    return started_processes() == 1 or int(os.environ["RANK"]) == 0


def _whole_number(name: str, default: str = "") -> int:
    text = os.environ.get(name, default)
    if not text.isdecimal():
        raise ParamsError(f"environment: found {name}={text}, expected a whole number, as torchrun sets it; unset it")
    return int(text)


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
    only_float32()
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise NoGpuError
    if device == "cpu" or not available:
        return torch.device("cpu")
    if torch.cuda.device_count() < processes:
        raise NoGpuError(torch.cuda.device_count(), processes)
    return torch.device("cuda")


@contextlib.contextmanager
def products_in(precision: str, device: "torch.device") -> Iterator[None]:
    """Compute products of float32 tensors in TF32 inside the block, if a precision other than ``float32`` asks for it.

    Only where the device has it: on a CPU the same switch would allow oneDNN to round as it likes.
    """
    if precision == "float32" or not _has_tf32(device):
        yield
        return
    _allow_tf32(True)
    try:
        yield
    finally:
        _allow_tf32(False)


@contextlib.contextmanager
def float32_products() -> Iterator[None]:
    """Compute in IEEE float32 inside the block, products too, whatever a program allows outside it."""
    changed = []
    try:
        for read, write, float32 in [*_switches(), *_defaults()]:
            if (before := read()) != float32:
                changed.append((write, before))
                write(float32)
        yield
    finally:
        for write, before in reversed(changed):
            write(before)


def only_float32() -> None:
    """Compute products of float32 tensors in IEEE float32 from here on."""
    # By torch's older switches too: a release that has both refuses to read an older one that contradicts a newer one.
    _allow_tf32(False)
    for _, write, float32 in _switches():
        write(float32)


def precision_used(precision: str, device: "torch.device") -> str:
    """Name what a device computes products in where a precision is asked for: a device without TF32 has ``float32``."""
    return "float32" if precision == "tf32" and not _has_tf32(device) else precision


def precision_now() -> str:
    """Name what products of float32 tensors are computed in: ``float32``, or what a switch allows some of them."""
    found = {value for read, _, float32 in _switches() if (value := read()) not in (float32, "none")}
    return "float32" if not found else "bfloat16" if found & {"bf16", "medium"} else "tf32"


def _allow_tf32(allowed: bool) -> None:
    import torch

    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def _switches() -> list[Switch]:
    """Return how each of torch's switches of products of float32 tensors is read and set, and its value for IEEE float32.

    Parents come first: a switch that was never set has its parent's value, so that :func:`float32_products` need not touch it.
    """
    import torch

    backends: Any = torch.backends
    cudnn, mkldnn = backends.cudnn, backends.mkldnn
    if hasattr(cudnn, "conv"):
        # What mkldnn.fp32_precision sets is the parent of all: a mistake in torch.
        parents = [backends, type(mkldnn.matmul)("mkldnn", "all"), cudnn]
        children = [mkldnn.matmul, mkldnn.conv, mkldnn.rnn, backends.cuda.matmul, cudnn.conv, cudnn.rnn]
        found = [_attribute(place, "fp32_precision", "ieee") for place in (*parents, *children)]
    else:
        # Releases before 2.9.
        matmul = torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"
        found = [matmul, _attribute(cudnn, "allow_tf32", False)]
    if any(os.environ.get(variable, "STRICT").upper() != "STRICT" for variable in FPMATH):
        # oneDNN has read the variable already, so oneDNN is disabled, and other libraries compute the products.
        found.append(_attribute(mkldnn, "enabled", False))
    return found


def _attribute(place: Any, name: str, float32: Any) -> Switch:
    return partial(getattr, place, name), partial(setattr, place, name), float32


def _defaults() -> list[Switch]:
    """Return the same of what else makes a program's tensors others than float32: autocast, the default type."""
    import torch

    autocast: list[Switch] = [
        (partial(torch.is_autocast_enabled, kind), partial(torch.set_autocast_enabled, kind), False)
        for kind in ("cpu", "cuda")
    ]
    return [*autocast, (torch.get_default_dtype, torch.set_default_dtype, torch.float32)]


def _has_tf32(device: "torch.device") -> bool:
    """Return whether it is a GPU with TF32: NVIDIA's from compute capability 8 on have it."""
    import torch

    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


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
