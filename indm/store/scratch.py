"""Unfinished work of a stage, kept so that a killed job continues where it stopped.

It lies in ``<out>/<suite>/scratch/<run>/<stage>/``, which is not a declared output, because both engines delete those before a job.
Every file contains a key, by :func:`indm.bench.pipeline.runner.work_of`. A file with another key is removed and never used, so that
resuming cannot change a result. The folder is removed after the stage has ended without an error; in a job, after the manifest is
written, since engines delete the files of a job without one.
"""

import contextlib
import errno
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from indm.errors import ArtifactError
from indm.progress import say
from indm.store.files import read_spec, read_weights, refuse_link, write_weights

if TYPE_CHECKING:
    from torch import Tensor


Once = Callable[[str, Callable[[], dict[str, "Tensor"]]], dict[str, "Tensor"]]
FORMAT = "indm-scratch-1"
# A job that was asked to stop may still be saving when an engine starts it again.
LOCK_SECONDS = 60.0
# The folders to remove once the manifest of the job is written.
_WAITING: ContextVar[list[Path] | None] = ContextVar("waiting", default=None)
# Errors of a file system without locks.
NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}


class Work(NamedTuple):
    """The folder of a job's unfinished work, the hash of everything on which it depends, and the stamp of the job's code."""

    folder: Path
    key: str
    code: str


class Scratch:
    """The files of one stage's unfinished work; files with another key are removed from their folder."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        self.earlier = 0.0
        # For work that is not gathered from other processes, provenance records it anyway.
        self.computed_on: dict[str, str] = {}
        self._opened = time.monotonic()
        stale = []
        for path in sorted(folder.glob("*.safetensors")):
            spec: dict[str, Any] = {}
            # Damaged and foreign files have no key.
            with contextlib.suppress(ArtifactError):
                spec = read_spec(path, FORMAT)
            if spec.get("key") == key:
                self.earlier = max(self.earlier, spec["seconds"])
            else:
                stale.append(path)
        if stale:
            say(f"{folder}: removing {len(stale)} files of other parameters, data, code or versions")
        for path in stale:
            path.unlink()

    def path(self, name: str) -> Path:
        """Return the path of the file of a name."""
        return self.folder / f"{name}.safetensors"

    def save(self, name: str, tensors: Mapping[str, "Tensor"], spec: Mapping[str, Any] | None = None) -> None:
        """Write tensors of any shape and JSON content under a name.

        Raises:
            ArtifactError: if they cannot be written; an earlier file of this name stays.
        """
        seconds = self.earlier + time.monotonic() - self._opened
        known = {"names": list(tensors), "key": self.key, "seconds": seconds}
        write_weights(self.path(name), tensors, {**(spec or {}), **known}, FORMAT)

    def load(self, name: str) -> tuple[dict[str, "Tensor"], dict[str, Any]] | None:
        """Read the content saved under a name, with the tensors in their order and shapes, or ``None``."""
        if not self.path(name).is_file():
            return None
        tensors, spec = read_weights(self.path(name), FORMAT)
        return {key: tensors[key] for key in spec["names"]}, spec

    def once(self, name: str, make: Callable[[], dict[str, "Tensor"]]) -> dict[str, "Tensor"]:
        """Return the tensors, of any shape, saved under a name; make and save them first if there are none yet."""
        found = self.load(name)
        if found is not None:
            return found[0]
        tensors = make()
        self.save(name, tensors)
        return tensors

    def remove(self, prefix: str) -> None:
        """Remove the files of names with this prefix."""
        for path in self.folder.glob(f"{prefix}*.safetensors"):
            path.unlink()


def below(once: Once, prefix: str) -> Once:
    """Return a ``once`` that prepends a prefix to all names."""
    return lambda name, make: once(f"{prefix}-{name}", make)


@contextlib.contextmanager
def open_scratch(work: Work, *, keep: bool = False) -> Iterator[Scratch]:
    """Lock the folder of unfinished work for one process, and remove it, unless to keep, if the block ends without an error.

    Raises:
        ArtifactError: if another process has locked it, or it is not writable.
    """
    folder = work.folder
    for place in (folder, folder.parent):
        refuse_link(place)
    with _lock(folder, LOCK_SECONDS):
        scratch = Scratch(folder, work.key)
        yield scratch
        if keep:
            return
        if (waiting := _WAITING.get()) is None:
            _remove(folder)
        else:
            waiting.append(folder)


@contextlib.contextmanager
def removed_at_the_end() -> Iterator[None]:
    """Delay the removal of scratch folders in the block until the block has ended without an error."""
    folders: list[Path] = []
    token = _WAITING.set(folders)
    try:
        yield
    finally:
        _WAITING.reset(token)
    for folder in folders:
        # Another process that has begun the same job removes the folder at its own end. A folder that cannot be removed is
        # harmless: the job has its results, and must not fail.
        with contextlib.suppress(ArtifactError, OSError), _lock(folder, 0.0):
            _remove(folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder)
    # Also the run's folder, unless another stage has unfinished work there.
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


@contextlib.contextmanager
def _lock(folder: Path, seconds: float) -> Iterator[None]:
    """Hold the lock of a folder, after waiting at most some seconds; it is never stale, since the system frees it at the exit."""
    # Imported here, because few of the commands that import this module need a lock.
    from filelock import FileLock, Timeout

    lock = FileLock(folder / "lock", seconds, poll_interval=0.2, on_acquired=_sign)
    try:
        acquired = False
        # Another process may end and remove the folder after it was made.
        while not acquired:
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                lock.acquire()
                acquired = True
    except Timeout as error:
        holder = ""
        # The holder may just have released it.
        with contextlib.suppress(OSError):
            holder = (folder / "lock").read_text()
        found = f"found {holder or 'another process'} using this folder, expected no other process"
        raise ArtifactError(f"{folder}: {found}; wait until it has ended, or stop it") from error
    except OSError as error:
        # A file system without locks is used without them, because files are replaced as a whole in any case.
        if error.errno not in NO_LOCKS:
            words = f"cannot be written: {error.strerror}; free disk space or get write access, then run again"
            raise ArtifactError(f"{folder}: {words}") from error
    try:
        yield
    finally:
        lock.release()


def _sign(descriptor: int) -> None:
    """Write the holder of a lock into its file, for processes that wait for it."""
    # Written by the lock's own descriptor, because on NFS, closing another descriptor of the file would free the lock.
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())
