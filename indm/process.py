"""Settings of the process, and their reasons: garbage, memory, threads, determinism, the device, other processes, signals.

- **Garbage.** The imports of a stage create many objects that stay until it ends. The garbage collector does not search
  them, neither during the imports (:func:`start`) nor at the exit, because the search would be a large part of a short stage's
  time. Stages with networks collect garbage from :func:`set_up` on. The other stages are short and make little garbage.
- **Memory.** If the tensors of a training step were given back to the system, it would have to clear their pages again.
  Therefore freed memory is kept if the C library can (:func:`_keep_memory`).
- **Threads.** The thread pools of NumPy and torch read their sizes once, when they are imported, so :func:`set_environment`
  comes first.
- **Determinism.** Results are bit-identical on one machine: :func:`set_up`.
- **Precision.** GPUs can round the factors of float32 products to TF32, and oneDNN rounds them to bfloat16 on processors
  that have it, if a program or the environment allows it. By default torch lets cuDNN convolve in TF32. Here products are
  IEEE float32 unless a training asks for less: :func:`unset_fpmath`, :func:`set_up`, :func:`products_in`, and in someone
  else's program :func:`float32_products`. All of them rest on :func:`_switches`.
- **Other processes.** Another program, such as torchrun, may have started several processes to train together:
  :func:`started_processes`.
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

# A getter, a setter, and the value that float32 needs.
Switch = tuple[Callable[[], Any], Callable[[Any], object], Any]
# From malloc.h. Blocks above 32 MiB are still given back, because a glibc before 2.35 refuses to keep them.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, KEPT = -1, -3, 2**25
# oneDNN reads this variable once, when torch is imported: it allows rounding the factors of float32 products.
FPMATH = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")
# Variables that torchrun sets for each of its processes, in addition to WORLD_SIZE and MASTER_ADDR.
NUMBERS = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")


def start() -> None:
    """Stop collecting garbage until :func:`set_up` starts it again; do not collect at the exit either."""
    gc.disable()
    atexit.register(gc.freeze)


def set_environment(threads: int) -> None:
    """Set what libraries read when they are imported: the sizes of their thread pools, and float32 products."""
    unset_fpmath()
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(threads)


def unset_fpmath() -> None:
    """Let oneDNN compute float32 products in float32, whatever the environment allows; call it before torch is imported."""
    for variable in FPMATH:
        os.environ.pop(variable, None)


def started_processes() -> int:
    """Return how many processes another program, such as ``torchrun``, has started to train together, including this one.

    Raises:
        ParamsError: if variables that torchrun sets are missing or are not numbers.
    """
    if (count := _whole_number("WORLD_SIZE", "1")) <= 1:
        return 1
    if missing := [name for name in (*NUMBERS, "MASTER_ADDR") if name not in os.environ]:
        raise ParamsError(
            f"environment: found WORLD_SIZE={count} without {', '.join(missing)}, expected all variables that torchrun "
            "sets; unset WORLD_SIZE, or start the processes with torchrun"
        )
    for name in NUMBERS:
        _whole_number(name)
    return count


def is_first() -> bool:
    """Return whether this process writes files: it is the only one, or the first of those that torchrun started."""
    return started_processes() == 1 or int(os.environ["RANK"]) == 0


def _whole_number(name: str, default: str = "") -> int:
    text = os.environ.get(name, default)
    if not text.isdecimal():
        raise ParamsError(f"environment: found {name}={text}, expected a whole number, as torchrun sets it; unset it")
    return int(text)


def set_up(device: str, threads: int, processes: int = 1) -> "torch.device":
    """Choose the device (``auto``: a GPU if there is one), make torch deterministic, and collect garbage again.

    Raises:
        NoGpuError: if a GPU is asked for and torch sees none, or if it sees fewer GPUs than processes on this machine.
    """
    # Imported here, because the command line calls the other functions and should not import torch.
    import torch

    if not gc.isenabled():
        gc.freeze()
        gc.enable()
    _keep_memory()
    torch.set_num_threads(threads)
    # The same as use_deterministic_algorithms, which also imports the compiler, whose import is slow.
    torch.set_deterministic_debug_mode("warn")
    # It helps to find reads of memory that was never written, but writes all of it.
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
    """Compute products of float32 tensors in TF32 inside the block if the precision is not ``float32``.

    Only if the device has TF32: on a CPU the same switch would allow oneDNN to round as it likes.
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
    """Compute in IEEE float32 inside the block, products too, whatever the calling program allows."""
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
    # Set torch's older switches too: a release that has both refuses to read an old one that contradicts a new one.
    _allow_tf32(False)
    for _, write, float32 in _switches():
        write(float32)


def precision_used(precision: str, device: "torch.device") -> str:
    """Name the precision of products on a device when one is asked for: a device without TF32 has ``float32``."""
    return "float32" if precision == "tf32" and not _has_tf32(device) else precision


def precision_now() -> str:
    """Name the precision of products of float32 tensors: ``float32``, or the precision that a switch allows for some."""
    found = {value for read, _, float32 in _switches() if (value := read()) not in (float32, "none")}
    return "float32" if not found else "bfloat16" if found & {"bf16", "medium"} else "tf32"


def _allow_tf32(allowed: bool) -> None:
    import torch

    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def _switches() -> list[Switch]:
    """Return torch's switches for products of float32 tensors, each with its value for IEEE float32.

    Parents come first: a switch that was never set has its parent's value, so that :func:`float32_products` need not touch
    it.
    """
    import torch

    backends: Any = torch.backends
    cudnn, mkldnn = backends.cudnn, backends.mkldnn
    if hasattr(cudnn, "conv"):
        # mkldnn.fp32_precision sets the parent of all switches, which is a bug in torch.
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
    """Return the other switches that give tensors another type than float32: autocast and the default type."""
    import torch

    autocast: list[Switch] = [
        (partial(torch.is_autocast_enabled, kind), partial(torch.set_autocast_enabled, kind), False)
        for kind in ("cpu", "cuda")
    ]
    return [*autocast, (torch.get_default_dtype, torch.set_default_dtype, torch.float32)]


def _has_tf32(device: "torch.device") -> bool:
    """Return whether a device is a GPU with TF32: an NVIDIA GPU with compute capability 8 or above."""
    import torch

    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def _keep_memory() -> None:
    """Keep freed memory for the next allocation if the C library can (glibc)."""
    # Imported here, because the command line does not need it.
    import ctypes

    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None), "mallopt"):
        return
    # In this order: if the other was set first, a refusal here would leave this threshold at 128 KiB.
    if libc.mallopt(M_MMAP_THRESHOLD, KEPT):
        libc.mallopt(M_TRIM_THRESHOLD, 2**30)


@contextlib.contextmanager
def sigterm_noted() -> Iterator[threading.Event]:
    """Set an event on SIGTERM inside the block instead of exiting; for the main thread."""
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)
