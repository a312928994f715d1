"""A process for each training, so that what an entry changes where it is imported ends with its own training.

The processes come from a server that has imported what they need, but no entry, so that they start quickly. Where an entry runs,
it is sealed: it finds no variable of the environment, no file and no program but what is installed and itself, because its seeds
do not count them, and it changes no file, because other models read them.
"""

import multiprocessing
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from indm.errors import ArtifactError
from indm.process import set_environment, set_up
from indm.store.provenance import RESTRICTIONS

# What the processes import before they are told what to do.
PRELOADED = ["indm.bench.entries.training", "torch._dynamo"]
# The variables of the environment on which the numbers of all models depend.
KEPT = {*RESTRICTIONS, "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "GLIBC_TUNABLES"}
PACKAGE = Path(__file__).resolve().parents[2]
# Where the system describes the machine, which libraries ask, and what it says of processes: how they were called.
MACHINE = ("/proc/", "/sys/", "/dev/null", "/dev/random", "/dev/urandom")
OF_PROCESSES = {"cmdline", "comm", "environ"}
# What starts a program, asks another machine, or stops another process.
ELSEWHERE = {
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "socket.connect",
    "socket.bind",
    "os.kill",
    "os.killpg",
}
# What changes files without opening them; os.replace is a renaming.
CHANGES = {"os.rename", "os.remove", "os.link", "os.symlink", "os.truncate", "os.mkdir", "os.rmdir"}
CHANGES |= {"os.chmod", "os.chown", "os.setxattr", "os.utime"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Work(NamedTuple):
    """A function to call in a process of its own, and its name for readers.

    Arguments:
        name: what is said of it if its process ends.
        prepare: what has to be read before the process is sealed.
        entry: the entry's file, for which the process is sealed; None if no entry runs.
        function: what is called.
    """

    name: str
    prepare: Callable[[], object]
    entry: Path | None
    function: Callable[[], Any]


def apart(work: Sequence[Work], cores: int) -> Iterator[tuple[int, Any]]:
    """Call functions, each in a process of its own, some at a time, and yield their numbers and results when they are there.

    Raises:
        ArtifactError: if a process ends before its function.
    """
    set_environment(1)
    with ThreadPoolExecutor(cores) as threads:
        running: dict[Future[Any], int] = {threads.submit(_alone, each): number for number, each in enumerate(work)}
        try:
            for each in as_completed(running):
                yield running[each], each.result()
        finally:
            threads.shutdown(cancel_futures=True)


def one_apart(work: Work) -> Any:
    """Call a function in a process of its own; see :func:`apart`."""
    ((_, result),) = apart([work], 1)
    return result


def _alone(work: Work) -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with ProcessPoolExecutor(1, context, set_up, ("cpu", 1)) as pool:
        try:
            return pool.submit(_sealed, work).result()
        except BrokenProcessPool:
            raise ArtifactError(
                f"{work.name}: found that its process ended, expected numbers; nothing is recorded"
            ) from None


def _sealed(work: Work) -> Any:
    work.prepare()
    if work.entry is not None:
        seal(work.entry)
    return work.function()


def seal(entry: Path) -> None:
    """Leave what the seeds of an entry do not count out of this process, until its end: the environment, files, the command."""
    for name in os.environ.keys() - KEPT:
        del os.environ[name]
    sys.argv[:] = sys.argv[:1]
    sys.dont_write_bytecode = True
    installed = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), str(PACKAGE)}
    allowed = (*(f"{Path(each).resolve()}/" for each in installed), *MACHINE)
    entry = entry.resolve()
    os.chdir("/")
    multiprocessing.process.ORIGINAL_DIR = "/"  # type: ignore[attr-defined]
    sys.addaudithook(partial(_refuse, entry, allowed))


def _refuse(entry: Path, allowed: tuple[str, ...], event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse a file that is there and is neither the entry nor among what is allowed, changes of files, and programs."""
    if event in ELSEWHERE:
        raise ArtifactError(f"found {event}, expected an entry that starts no program and asks no other machine")
    if event in CHANGES:
        raise ArtifactError(f"found {event}, expected an entry that changes no file")
    if event != "open" or not isinstance(arguments[0], str | bytes):
        return
    path = Path(os.fsdecode(arguments[0]))
    if not path.is_absolute():
        raise ArtifactError(f"found that it opens {path}, expected a path from the top, because it has no folder")
    path = path.resolve()
    if arguments[2] & WRITES and path != Path(os.devnull):
        raise ArtifactError(f"found that it writes {path}, expected an entry that changes no file")
    allows = str(path).startswith(allowed) and path.name not in OF_PROCESSES
    if path != entry and not allows and path.is_file():
        raise ArtifactError(
            f"found that it opens {path}, expected an entry that reads only itself and what is installed, because its seeds count "
            "nothing else; put it into the file"
        )
